"""Measuring a model: tasks, runs, predictions, baselines, metrics and comparisons."""
