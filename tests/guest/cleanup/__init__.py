"""Leftovers of the former platform in small trees."""
