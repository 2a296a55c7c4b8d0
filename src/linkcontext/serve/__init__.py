"""An HTTP endpoint for OpenAI clients: requests, access, the thread that runs the model, and the responses."""
