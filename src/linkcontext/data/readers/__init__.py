"""Published file formats: one module for each, which turns records of the format into questions."""
