"""A web page on this machine to teach a model, ask it, chat with it, and look at runs."""
