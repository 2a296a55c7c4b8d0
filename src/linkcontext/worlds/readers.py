"""Data sets that are drawn once into the cache: worlds of invented things, and scenes with questions."""

import re
from collections.abc import Callable
from pathlib import Path

from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import Dataset
from linkcontext.data.reader import Reader
from linkcontext.errors import InputError
from linkcontext.storage import cache_dir, written_once
from linkcontext.worlds import folder
from linkcontext.worlds.scenes import write_scenes

WORLD_CLASSES, WORLD_IMAGES, TAUGHT_IMAGES, REPLAY_IMAGES = 60, 40, 24, 16
VERSION = 1  # of what is drawn; cached worlds of another version are drawn again


def open_world(argument: str) -> Dataset:
    """`SEED`, `taught` or `replay`.

    A seed gives 60 concepts in pairs of hard neighbours, with 40 pictures each. `taught` gives 24 new pictures of each
    of the 320 concepts that the bundled models know by name; the retention benchmark asks about them. `replay` gives 16
    others of each for training.
    """
    if argument == "taught":
        return _open_once(argument, lambda out: folder.write_taught(out, TAUGHT_IMAGES))
    if argument == "replay":
        return _open_once(argument, lambda out: folder.write_taught(out, REPLAY_IMAGES, folder.REPLAY_STREAM))
    if not _is_seed(argument):
        raise InputError(
            f"--data world:{argument}: write world:SEED with a whole number, world:taught or world:replay."
        )
    return _open_once(argument, lambda out: folder.write_seed(out, WORLD_CLASSES, WORLD_IMAGES, int(argument)))


def open_scenes(argument: str) -> Dataset:
    """Pictures with questions of every task, for a seed."""
    if not _is_seed(argument):
        raise InputError(f"--data scenes:{argument}: write scenes:SEED with a whole number.")
    return _open_once(f"scenes-{argument}", lambda out: write_scenes(out, int(argument)))


WORLD = Reader(open=lambda argument, _strict, _fewest: open_world(argument))
SCENES = Reader(open=lambda argument, _strict, _fewest: open_scenes(argument))


def _is_seed(argument: str) -> bool:
    return re.fullmatch(r"\d{1,9}", argument) is not None


def _open_once(name: str, draw: Callable[[Path], object]) -> Dataset:
    """The data set in the cache under this name. `draw` writes it into a folder, which is renamed when it is whole."""

    def write(out: Path) -> None:
        draw(out)

    return open_folder(written_once(cache_dir() / "worlds" / f"v{VERSION}-{name}", write))
