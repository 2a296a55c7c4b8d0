"""Mining hard negatives: features of pictures and names, and the nearest classes of each class."""
