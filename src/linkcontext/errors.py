"""The one error a user can cause. The command line prints its sentence and leaves with exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what, where, and what to do about it."""
