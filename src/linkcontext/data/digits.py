"""scikit-learn's handwritten digits: 1,797 scans of real handwriting, in ten classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import Dataset
from linkcontext.data.reader import Reader
from linkcontext.errors import InputError
from linkcontext.progress import progress
from linkcontext.storage import cache_dir, written_once

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EDGE = 64  # pixels


def open_digits() -> Dataset:
    """Ten classes of white digits on black, 64 x 64 pixels. The pictures are written into the cache once."""
    return open_folder(written_once(cache_dir() / f"digits-{EDGE}", _write_digits), strict=True)


def _open(argument: str, _strict: bool, _fewest: int) -> Dataset:
    if argument:
        raise InputError(f"--data digits:{argument}: there is only one data set of digits. Write --data digits.")
    return open_digits()


DIGITS = Reader(open=_open)


def _write_digits(folder: Path) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second to import and is needed once

    digits = load_digits()
    for name in NAMES:
        (folder / name).mkdir()
    with progress("Writing the digits", len(digits.target)) as advance:
        for number, (ink, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            grey = (ink * (255 / 16)).round().astype(np.uint8)  # float64[8, 8], 0 to 16
            picture = Image.fromarray(grey).resize((EDGE, EDGE), Image.Resampling.BICUBIC)
            picture.save(folder / NAMES[digit] / f"{number:04d}.png")
            advance()
