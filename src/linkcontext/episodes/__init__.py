"""Episodes: how they are drawn from items, and how they are worded. All prompts are worded here."""
