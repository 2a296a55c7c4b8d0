"""Data sets, pictures, and the files of other tools."""
