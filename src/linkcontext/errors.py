"""The one error a user can cause. The command line prints its sentence and leaves with exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what, where, and what to do about it."""


EXCERPT = 80  # letters of a value that stand in a message: a value may be a whole file


def excerpt(value: object) -> str:
    """A value from a file as a message shows it: its beginning, and how long it is where that is not all of it."""
    if isinstance(value, list | tuple | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} values"
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}... ({len(text):,} letters)"
