"""The tasks of `--benchmark`, one module each."""
