"""Runs: predictions, baselines and metrics."""
