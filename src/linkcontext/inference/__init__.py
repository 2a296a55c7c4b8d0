"""Running token trees on a network: tensors and tokens only, no episode, no wording, no file."""
