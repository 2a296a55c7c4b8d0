"""The one error a user can cause. The command line prints its sentence and leaves with exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what, where, and what to do about it."""


EXCERPT, END = 80, 30  # letters of a value that stand in a message, and of them at its end: it may be a whole file


def excerpt(value: object) -> str:
    """A value from a file as a message shows it: both ends, and how long it is where that is not all of it.

    The end of a path is the file's name.
    """
    if isinstance(value, list | tuple | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} values"
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - END]}...{text[-END:]} ({len(text):,} letters)"
