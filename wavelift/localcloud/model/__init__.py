"""The cloud itself: resources and their rules. Nothing here knows HTTP."""
