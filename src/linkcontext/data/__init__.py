"""Pictures in, items out: class folders, data sets, digits, the procedural world."""
