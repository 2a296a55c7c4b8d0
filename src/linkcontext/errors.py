"""The one error a user can cause. The command line prints its sentence and leaves with exit code 2."""

import errno
import os
import re


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what, where, and what to do about it."""


# The system's errors for a path that cannot exist here, or that this user may not read.
UNREACHABLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM)
UNDECODED = re.compile("[\ud800-\udfff]")  # what Python makes of bytes that are not UTF-8; no file can hold it
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey; not tabs and ends of lines

NAMED = 5  # so many culprits stand in a sentence, the others are counted
EXCERPT, END = 80, 30  # letters of a value that a message repeats, and how many of them are its last ones


def excerpt(value: object) -> str:
    """A value from a file as a message shows it: both ends, and how long it is where that is not all of it.

    The end of a path is the file's name.
    """
    if isinstance(value, list | tuple | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} values"
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - END]}...{text[-END:]} ({len(text):,} letters)"


def quoted(value: object) -> str:
    """`excerpt`, with texts in quotation marks."""
    return repr(excerpt(value)) if isinstance(value, str) else excerpt(value)


def path_error(error: OSError) -> str:
    """The sentence about a user's path that cannot be opened."""
    path = f"{excerpt(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
    return f"{path}cannot be opened ({error.strerror}). Check the path and its permissions."


def counted(count: int, thing: str) -> str:
    """A number of things in words: `1 picture`, `1,200 pictures`, `2 classes`."""
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count:,} {thing if count == 1 else plural}"


def first_few(names: list[str], whole: bool = False) -> str:
    """The first of many names, and how many more there are. Long ones are shortened unless `whole` (sentences)."""
    more = len(names) - NAMED
    return ", ".join(name if whole else excerpt(name) for name in names[:NAMED]) + (
        f" and {more} more" if more > 0 else ""
    )
