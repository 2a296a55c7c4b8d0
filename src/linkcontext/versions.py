"""The formats of the files that linkcontext writes, each with its version. docs/stability.md says what is promised."""

from typing import Any

from linkcontext.errors import InputError, excerpt

MANIFEST = "linkcontext.manifest/1"
RUN = "linkcontext.run/1"
TRAINING = "linkcontext.training/1"


def check_format(recorded: Any, expected: str, where: str) -> None:
    """Raise `InputError` for a file of another format or version.

    A file without the key, `None`, was written by linkcontext 0.1 or by hand; it is read as version 1.
    """
    if recorded is not None and recorded != expected:
        raise InputError(
            f"{where}: its format is {excerpt(str(recorded))}, and this version of linkcontext reads {expected}. Use "
            "the version that wrote it, or write it again."
        )
