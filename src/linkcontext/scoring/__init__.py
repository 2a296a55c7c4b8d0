"""Models that score and generate: on the prefix tree, by whole prompts, behind an endpoint."""
