"""Which classes look and sound alike: features of pictures and names, and each class's nearest others."""
