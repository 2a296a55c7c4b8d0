"""Running prefix trees on a network: token ids and tensors only, no episode, no wording, no file."""
