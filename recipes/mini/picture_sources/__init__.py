"""Where the bundled model's real pictures come from, a module for each source."""
