"""The split of ImageNet in Link-Context Learning (arXiv 2308.07891): 900 training classes, 100 test classes in pairs.

`imagenet-900:DIR`  pictures of DIR/train only, so that no validation picture is trained on
`imagenet-100:DIR`  the test classes, with the split `train` for supports and `val` for queries; the fact `neighbours`
                    names the partner of a class, so that `--negatives neighbours` draws the paper's pairs
Of each class as many pictures are used as the authors' lists have. They are sampled by name, because which ones the
authors used is not published.
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
from linkcontext.data.copies import label_conflict_sentence
from linkcontext.data.formats import SUFFIXES
from linkcontext.data.manifest import Dataset
from linkcontext.data.problems import Problems
from linkcontext.data.reader import Reader
from linkcontext.data.scan import from_row, is_litter, is_text, scan_file, to_row
from linkcontext.errors import InputError, first_few
from linkcontext.progress import progress
from linkcontext.records import Item
from linkcontext.seeds import rng
from linkcontext.storage import cache_dir, write_text, written_once

PICTURES = {  # pictures per class by split: 36 in the authors' training list; 32 for supports and 50 for queries
    "imagenet-900": {"train": 36},
    "imagenet-100": {"train": 32, "val": 50},
}
VALIDATION = "ILSVRC2012_val_"  # the prefix of the names of validation pictures
INSTRUCTIONS = (
    "ImageNet (ILSVRC 2012) cannot be fetched for you, because it needs an account at image-net.org. Unpack "
    "ILSVRC2012_img_train.tar to DIR/train/nXXXXXXXX/ and ILSVRC2012_img_val.tar to DIR/val/nXXXXXXXX/, a folder for "
    "each class, and give imagenet-900:DIR or imagenet-100:DIR"
)


def class_names(part: str) -> dict[str, str]:
    """WordNet id to class name of `imagenet-900` or `imagenet-100`, in the order of ILSVRC's class numbers."""
    return dict(_classes()["train" if part == "imagenet-900" else "test"])


def pairs() -> tuple[tuple[str, str], ...]:
    """The 50 pairs of test classes, which are the rows 2k and 2k + 1 of the list, as WordNet ids."""
    ids = list(class_names("imagenet-100"))
    return tuple(zip(ids[::2], ids[1::2], strict=True))


def open_imagenet(part: str, folder: str, strict: bool = False) -> Dataset:
    """Open the pictures of `imagenet-900` or `imagenet-100` below an ImageNet folder, sorted by path.

    They are decoded once, and the result is cached until a file changes. Raises `InputError` if the folder or a class
    is missing (one message for all classes), and with `strict` for a picture that cannot be used.
    """
    root = Path(folder)
    if not folder or not root.is_dir():
        raise InputError(f"{part}:{folder}: no such folder. {INSTRUCTIONS}.")
    names, problems = class_names(part), Problems(strict)
    chosen = _chosen(root, part, problems)
    stamps = [(path, (s := (root / path).stat()).st_size, s.st_mtime_ns) for path in chosen]
    key = hashlib.sha256(json.dumps([str(root.resolve()), images.READER, stamps]).encode()).hexdigest()[:32]
    kept = written_once(cache_dir() / "imagenet" / key, partial(_write, root, chosen))
    partner = dict((*pairs(), *((b, a) for a, b in pairs()))) if part == "imagenet-100" else {}
    items, sketches = [], {}
    for path, row in json.loads((kept / "pictures.json").read_text(encoding="utf-8")).items():
        split, wnid, _ = path.split("/")
        seen = from_row(*row)
        if seen.summary is None:
            problems.add(f"{root / path}: {seen.reason}")
            continue
        facts = {"neighbours": [partner[wnid]]} if wnid in partner else {}
        items.append(Item(path, path, wnid, names[wnid], seen.sha256, split, facts=facts, pixels=seen.pixels))
        sketches[path] = seen.summary.sketch
    dataset = Dataset(root, tuple(items), sketches=sketches)
    if contradiction := label_conflict_sentence(dataset):
        problems.add(contradiction)
    return replace(dataset, problems=tuple(problems.sentences))


IMAGENET_900 = Reader(open=lambda folder, strict, _fewest: open_imagenet("imagenet-900", folder, strict))
IMAGENET_100 = Reader(open=lambda folder, strict, _fewest: open_imagenet("imagenet-100", folder, strict))


def _chosen(root: Path, part: str, problems: Problems) -> list[str]:
    """The sorted paths of the pictures to use. The choice depends only on the names of the files of a class."""
    chosen: list[str] = []
    strays: list[str] = []
    others: list[str] = []
    empty: dict[str, list[str]] = {}  # split -> classes
    for split, count in PICTURES[part].items():
        for wnid in class_names(part):
            names, unused = _picture_names(root / split / wnid)
            others += [f"{split}/{wnid}/{name}" for name in unused]
            if split == "train":
                strays += [f"{split}/{wnid}/{name}" for name in names if name.startswith(VALIDATION)]
                names = [name for name in names if not name.startswith(VALIDATION)]
            if not names:
                empty.setdefault(split, []).append(wnid)
            drawn = rng("imagenet", part, split, wnid).permutation(len(names))[:count]
            chosen += [f"{split}/{wnid}/{names[place]}" for place in drawn]
    if empty:
        missing = "; ".join(f"{len(ids)} in {split}/ ({first_few(ids)})" for split, ids in empty.items())
        raise InputError(f"{root}: classes of {part} without a picture: {missing}. {INSTRUCTIONS}.")
    if strays:
        problems.add(f"{root}: validation pictures left out of train/: {len(strays)} ({first_few(strays)}).")
    if others:
        problems.note(
            f"{root}: files and folders left out because they are not named as pictures: {len(others)} "
            f"({first_few(others)})."
        )
    return sorted(chosen)


def _picture_names(folder: Path) -> tuple[list[str], list[str]]:
    """The sorted names of the pictures in a folder, and of the other files in it; none if the folder is missing."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not is_litter(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror}). Check its permissions.") from error
    pictures = [name for name in names if name.lower().endswith(SUFFIXES) and name[0] != "." and is_text(name)]
    return pictures, [repr(os.fsencode(name)) if not is_text(name) else name for name in names if name not in pictures]


def _write(root: Path, chosen: Sequence[str], folder: Path) -> None:
    """Decode every picture, and write a row of `scan.to_row` for each path."""
    rows: dict[str, list[str | int]] = {}
    with progress(f"Reading the pictures in {root}", len(chosen)) as advance:
        for path in chosen:
            rows[path] = to_row(scan_file(root / path, 0, 0))
            advance()
    write_text(json.dumps(rows), folder / "pictures.json")


@cache
def _classes() -> Mapping[str, dict[str, str]]:
    text = resources.files("linkcontext.data").joinpath("imagenet.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, str]] = json.loads(text)
    return content
