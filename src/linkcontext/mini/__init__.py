"""Building the bundled models from nothing, and finding their weights."""
