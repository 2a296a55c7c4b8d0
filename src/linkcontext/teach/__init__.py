"""Showing a model something new and asking about it."""
