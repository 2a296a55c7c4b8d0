"""Vision-language models: loading them, what differs between families, chat templates and kept features."""
