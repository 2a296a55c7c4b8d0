"""Does the answer come from the pictures? Conditions to run, and findings from what came of them."""
