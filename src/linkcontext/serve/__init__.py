"""A model behind an endpoint of OpenAI's kind."""
