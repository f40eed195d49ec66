"""From a call to the model, and from its result to a reply."""
