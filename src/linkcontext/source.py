"""From what a user writes after --data to a data set."""

import re
from pathlib import Path

from linkcontext.data.class_folders import open_folder
from linkcontext.data.digits import open_digits
from linkcontext.data.hub import open_huggingface
from linkcontext.data.imagenet import PICTURES, open_imagenet
from linkcontext.data.manifest import Dataset
from linkcontext.errors import InputError
from linkcontext.storage import cache_dir, written_once
from linkcontext.worlds import folder as worlds
from linkcontext.worlds.scenes import write_scenes

WORLD_CLASSES, WORLD_IMAGES, TAUGHT_IMAGES, REPLAY_IMAGES = 60, 40, 24, 16
WORLD_VERSION = 1  # of what is drawn; kept worlds of another version are drawn anew


def open_data(spec: str, strict: bool = False, fewest: int = 2) -> Dataset:
    """The data set meant by a folder, `digits`, `world:SEED`, `world:taught`, `hf:NAME` or `imagenet-100:DIR`.

    `world:SEED` has 60 concepts in hard-neighbour pairs with 40 pictures each; `world:taught` new pictures of the
    320 concepts that the bundled models know by name, 24 each, and `world:replay` 16 others of each to train on: the
    retention benchmark asks about those of world:taught. `scenes:SEED` are pictures with questions of every task. What
    is made is kept in the cache. A folder has at least `fewest` classes.
    """
    if spec == "digits":
        return open_digits()
    if spec.startswith("hf:"):
        return open_huggingface(spec.removeprefix("hf:"), strict, fewest)
    if spec.startswith("world:"):
        return _world(spec.removeprefix("world:"))
    if spec.startswith("scenes:"):
        seed = spec.removeprefix("scenes:")
        if not re.fullmatch(r"\d{1,9}", seed):
            raise InputError(f"--data {spec}: write scenes:SEED with a whole number.")
        kept = cache_dir() / "worlds" / f"v{WORLD_VERSION}-scenes-{seed}"
        return open_folder(written_once(kept, lambda out: _only(write_scenes(out, int(seed)))))
    part, _, folder = spec.partition(":")
    if part in PICTURES:
        return open_imagenet(part, folder, strict)
    return open_folder(Path(spec), strict, fewest)


def _world(which: str) -> Dataset:
    kept = cache_dir() / "worlds" / f"v{WORLD_VERSION}-{which}"
    if which == "taught":
        return open_folder(written_once(kept, lambda out: _only(worlds.write_taught(out, TAUGHT_IMAGES))))
    if which == "replay":
        stream = worlds.REPLAY_STREAM
        return open_folder(written_once(kept, lambda out: _only(worlds.write_taught(out, REPLAY_IMAGES, stream))))
    if not re.fullmatch(r"\d{1,9}", which):
        raise InputError(f"--data world:{which}: write world:SEED with a whole number, world:taught or world:replay.")
    seed = int(which)
    return open_folder(written_once(kept, lambda out: _only(worlds.write_seed(out, WORLD_CLASSES, WORLD_IMAGES, seed))))


def _only(_: Dataset) -> None:
    """A writer's data set names the folder it was written in, which is about to be renamed."""
