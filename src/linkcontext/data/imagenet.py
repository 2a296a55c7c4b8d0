"""ImageNet as Link-Context Learning splits it: 900 classes to train on, and 100 others in 50 pairs to test on.

`imagenet-900:DIR`  pictures of DIR/train alone: no validation picture is ever trained on
`imagenet-100:DIR`  the test classes, split `train` for the support and `val` for the queries; the fact `neighbours`
                    names a class's partner, so that `--negatives neighbours` makes the paper's pairs
A class gives as many pictures as the authors' lists have of it, drawn by name: which ones they took is not known.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import resources
from pathlib import Path

from linkcontext.data import images
from linkcontext.data.copies import dispute
from linkcontext.data.formats import SUFFIXES
from linkcontext.data.manifest import Dataset
from linkcontext.data.problems import Problems
from linkcontext.data.reader import Reader
from linkcontext.data.scan import as_row, is_litter, is_text, look, revived
from linkcontext.errors import InputError, first_few
from linkcontext.progress import progress
from linkcontext.records import Item
from linkcontext.seeds import rng
from linkcontext.storage import cache_dir, write_text, written_once

PICTURES = {  # of a class, by split: 36 in the authors' training list; 32 to show and 50 to ask about in their test
    "imagenet-900": {"train": 36},
    "imagenet-100": {"train": 32, "val": 50},
}
VALIDATION = "ILSVRC2012_val_"  # what the names of ImageNet's validation pictures begin with
WANTED = (
    "ImageNet (ILSVRC 2012) cannot be fetched for you, it needs an account at image-net.org. Unpack "
    "ILSVRC2012_img_train.tar to DIR/train/nXXXXXXXX/ and ILSVRC2012_img_val.tar to DIR/val/nXXXXXXXX/, a folder for "
    "each class, and give imagenet-900:DIR or imagenet-100:DIR"
)


def class_names(part: str) -> dict[str, str]:
    """WordNet id to name, of `imagenet-900` or `imagenet-100`, in the order of ILSVRC's class numbers."""
    return dict(_classes()["train" if part == "imagenet-900" else "test"])


def pairs() -> tuple[tuple[str, str], ...]:
    """The 50 pairs of test classes: the rows 2k and 2k + 1 of the list."""
    ids = list(class_names("imagenet-100"))
    return tuple(zip(ids[::2], ids[1::2], strict=True))


def open_imagenet(part: str, folder: str, strict: bool = False) -> Dataset:
    """The pictures of one part below an ImageNet folder, sorted by path.

    They are decoded once; what was found is kept in the cache until a file changes. Raises `InputError` without the
    folder, for classes that are not there (all of them in one sentence), and with `strict` for a bad picture.
    """
    root = Path(folder)
    if not folder or not root.is_dir():
        raise InputError(f"{part}:{folder}: no such folder. {WANTED}.")
    names, problems = class_names(part), Problems(strict)
    chosen = _chosen(root, part, problems)
    stamps = [(path, (s := (root / path).stat()).st_size, s.st_mtime_ns) for path in chosen]
    key = hashlib.sha256(json.dumps([str(root.resolve()), images.READER, stamps]).encode()).hexdigest()[:32]
    kept = written_once(cache_dir() / "imagenet" / key, partial(_write, root, chosen))
    partner = dict((*pairs(), *((b, a) for a, b in pairs()))) if part == "imagenet-100" else {}
    items, sketches = [], {}
    for path, row in json.loads((kept / "pictures.json").read_text(encoding="utf-8")).items():
        split, wnid, _ = path.split("/")
        seen = revived(*row)
        if seen.looks is None:
            problems.add(f"{root / path}: {seen.reason}")
            continue
        facts = {"neighbours": [partner[wnid]]} if wnid in partner else {}
        items.append(Item(path, path, wnid, names[wnid], seen.sha256, split, facts=facts, pixels=seen.pixels))
        sketches[path] = seen.looks.sketch
    dataset = Dataset(root, tuple(items), sketches=sketches)
    if contradiction := dispute(dataset):
        problems.add(contradiction)
    return replace(dataset, problems=tuple(problems.sentences))


IMAGENET_900 = Reader(open=lambda folder, strict, _fewest: open_imagenet("imagenet-900", folder, strict))
IMAGENET_100 = Reader(open=lambda folder, strict, _fewest: open_imagenet("imagenet-100", folder, strict))


def _chosen(root: Path, part: str, problems: Problems) -> list[str]:
    """The paths of the pictures to use, sorted. Which ones depends on the names of the class's files alone."""
    chosen: list[str] = []
    strays: list[str] = []
    others: list[str] = []
    lost: dict[str, list[str]] = {}
    for split, count in PICTURES[part].items():
        for wnid in class_names(part):
            there, unused = _listed(root / split / wnid)
            others += [f"{split}/{wnid}/{name}" for name in unused]
            if split == "train":
                strays += [f"{split}/{wnid}/{name}" for name in there if name.startswith(VALIDATION)]
                there = [name for name in there if not name.startswith(VALIDATION)]
            if not there:
                lost.setdefault(split, []).append(wnid)
            drawn = rng("imagenet", part, split, wnid).permutation(len(there))[:count]
            chosen += [f"{split}/{wnid}/{there[place]}" for place in drawn]
    if lost:
        missing = "; ".join(f"{len(ids)} in {split}/ ({first_few(ids)})" for split, ids in lost.items())
        raise InputError(f"{root}: classes of {part} without a picture: {missing}. {WANTED}.")
    if strays:
        problems.add(f"{root}: validation pictures left out of train/: {len(strays)} ({first_few(strays)}).")
    if others:
        problems.note(
            f"{root}: files and folders left out because they are not named as pictures: {len(others)} "
            f"({first_few(others)})."
        )
    return sorted(chosen)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the pictures in a folder, and of what else is in it, sorted; none where there is no such folder."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not is_litter(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror}). Check its permissions.") from error
    pictures = [name for name in names if name.lower().endswith(SUFFIXES) and name[0] != "." and is_text(name)]
    return pictures, [repr(os.fsencode(name)) if not is_text(name) else name for name in names if name not in pictures]


def _write(root: Path, chosen: Sequence[str], folder: Path) -> None:
    """Decode every picture once: its path to its hash, or to what is wrong with it."""
    rows: dict[str, list[str | int]] = {}
    with progress(f"Reading the pictures in {root}", len(chosen)) as advance:
        for path in chosen:
            rows[path] = as_row(look(root / path, 0, 0))
            advance()
    write_text(json.dumps(rows), folder / "pictures.json")


@cache
def _classes() -> Mapping[str, dict[str, str]]:
    text = resources.files("linkcontext.data").joinpath("imagenet.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, str]] = json.loads(text)
    return content
