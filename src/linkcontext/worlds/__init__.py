"""The procedural world: concepts, instances and what is true of them."""
