"""The procedural world: concepts, their pictures and the facts about them."""
