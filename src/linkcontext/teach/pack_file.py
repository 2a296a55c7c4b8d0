"""Where a pack is to be read: checked before anything that takes seconds is imported."""

from pathlib import Path

from linkcontext.errors import InputError
from linkcontext.python_words import did_you_mean_path


def stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is written: its time, in nanoseconds, and its size."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def check_new_pack(path: Path) -> None:
    """Raise `InputError` if there is something at a path where a new pack is to be written."""
    if path.is_dir():
        raise InputError(f"{path}: a folder. Give the name of a file, such as {path / 'zoo.pack'}.")
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
    hint = did_you_mean_path(path, path.parent.glob("*.pack")) if path.parent.is_dir() else ""
    raise InputError(f"{path}: no such pack.{hint} Write one with `linkcontext teach --data FOLDER --out {path}`.")
