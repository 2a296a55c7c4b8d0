"""Short forms of conversations: parts and turns as they are read, and the records of LLaVA and of messages."""


def text(words):
    return {"type": "text", "text": words}


def image(path):
    return {"type": "image", "image": path}


def turn(role, *parts, **more):
    return {"role": role, "content": list(parts), **more}


def talk(*values):
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


def chat(*values):
    return [{"role": ("user", "assistant")[i % 2], "content": value} for i, value in enumerate(values)]
