"""Loading vision-language models and running them: features, likelihood, generation."""
