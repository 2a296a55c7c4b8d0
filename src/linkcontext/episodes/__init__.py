"""Episodes drawn from items, and the only place that words a prompt."""
