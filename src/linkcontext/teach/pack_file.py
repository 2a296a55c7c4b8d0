"""Where a pack is to be read: checked before anything that takes seconds is imported."""

from pathlib import Path

from linkcontext.errors import InputError
from linkcontext.python_words import did_you_mean


def check_new_pack(path: Path) -> None:
    """Raise `InputError` if there is something at a path where a new pack is to be written."""
    if path.exists():
        raise InputError(f"{path}: exists already. Choose another name, or remove it.")


def check_pack_file(path: Path) -> None:
    """Raise `InputError` if there is no file at a path, with what to do."""
    if path.is_file():
        return
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, and a pack is a file. Give the name of a pack, such as {path.name}.pack."
        )
    beside = [each.name for each in path.parent.glob("*.pack")] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside)
    raise InputError(f"{path}: no such pack.{hint} Write one with `linkcontext teach --data FOLDER --out {path}`.")
