"""Training: what is learnt from, in which proportion, and the loop that learns it."""
