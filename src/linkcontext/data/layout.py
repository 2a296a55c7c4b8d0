"""What the path of a picture says: its split, its class, and the source it shares with others."""

import re
from pathlib import PurePosixPath

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def place(path: str) -> tuple[str, str]:
    """The split and the class id of a path below the root; a class of "" when it lies in no class folder.

    The outermost folder called as a split is the split, a second one a class: CIFAR-100 has a class `train`.
    """
    folders = path.split("/")[:-1]
    for at, folder in enumerate(folders):
        if folder.lower() in SPLITS:
            return normal_split(folder), "/".join(folders[:at] + folders[at + 1 :])
    return "", "/".join(folders)


def normal_split(name: str) -> str:
    """`train`, `val` or `test` for any customary spelling, another name as it is."""
    return SPLITS.get(name.lower(), name)


def named(class_id: str) -> str:
    """What people call a class that has an id and nothing else: `animals/ice_bear` is an ice bear."""
    return class_id.rsplit("/", 1)[-1].replace("_", " ")


def source_group(path: str) -> str:
    """What pictures of one source share: `writer07` of `a/writer07_12.png`; without a number, the stem."""
    stem = PurePosixPath(path).stem
    numbered = re.fullmatch(r"(.+)[_\- ][0-9]+", stem)
    return numbered[1] if numbered else stem
