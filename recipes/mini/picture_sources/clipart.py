"""Clip art: a class is one picture of Debian's `openclipart-png`, of which training makes many by augmentation.

Left out are flags, brands, smileys, playing cards, dice, whatever shows digits or letters by name, and all but a few of
the two thousand stars that differ in a number of points. Pictures are 96 pixels wide, so that they can be cropped.
"""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from linkcontext.seeds import rng

from .exclude import why_excluded
from .fetch import debian_package
from .store import Pixels, Writer, fitted, premultiplied
from .variety import Shape, is_copy

PACKAGE = "openclipart-png"
LICENCE_NOTE = "Pictures of Debian's openclipart-png, dedicated to the public domain; scaled to 96 pixels."
SIZE = 96
STARS = 40
PIXELS = 16_000_000  # of a file at most; a few have ten times that
FOLDERS = (
    "signs_and_symbols/flags", "signs_and_symbols/led", "signs_and_symbols/clocks", "logos", "people/smilies",
    "people/bodypart", "computer/icons/etiquette-theme/apps", "computer/icons/flat-theme/applications",
    "computer/icons/lemon-theme/apps", "computer/icons/applications", "recreation/games/cards",
    "recreation/games/dice", "special/gradients", "special/examples", "unsorted/duplicates", "animals/birds",
    "animals/mammals/dogs", "animals/mammals/horses", "animals/amphibian", "animals/mammals/housecats",
    "people/clothing", "transportation/vehicles/hummers",
)  # fmt: skip
BRANDS = frozenset("firefox gnome kde tux linux windows yahoo mozilla apple coke konqueror hummer".split())


def title(path: str) -> list[str]:
    """The words of a file's name, without numbers: authors' names are often the last of them."""
    return re.sub(r"[^a-z]+|\b[a-z]\b", " ", PurePosixPath(path).stem.lower().replace("_", " ")).split()


def used(path: str) -> bool:
    """Whether the picture `people/team_sketch_02.png` is used, by its folder and name."""
    words = title(path)
    if any(path.startswith(f"{folder}/") for folder in FOLDERS) or not words:
        return False
    if BRANDS & set(words) or any(word.endswith(("flag", "logo", "smiley")) for word in words):
        return False
    return why_excluded(words) is None


def build(writer: Writer, downloads: Path, progress: Callable[[str], None]) -> None:
    """Fetch the package and scale its pictures."""
    folder = debian_package(PACKAGE, downloads) / "usr/share/openclipart/png"
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png") if not path.is_symlink())
    stars = [path for path in paths if path.startswith("shapes/stars/star_")]
    dropped = set(stars) - {stars[i] for i in rng("clipart", "stars").choice(len(stars), STARS, replace=False)}
    wanted = [path for path in paths if path not in dropped and used(path)]
    writer.origins.append({
        "name": PACKAGE,
        "author": "the authors of openclipart.org",
        "licence": "public domain",
        "url": f"Debian: {PACKAGE}",
    })  # fmt: skip
    near: dict[tuple[int, ...], list[Shape]] = {}
    for done, path in enumerate(wanted):
        if done % 250 == 0:
            progress(f"{done} of {len(wanted)} files, {len(writer.class_ids)} pictures")
        picture = read(folder / path)
        if picture is not None and not seen_before(picture, near):
            writer.add(picture, len(writer.classes), 0)
            writer.classes.append({"name": " ".join(title(path)), "path": path})


def read(path: Path) -> Pixels | None:
    """A file's picture, premultiplied uint8[96, 96, 4]. None if it is too large or broken, or nothing is visible."""
    try:
        image = Image.open(path)
        if image.width * image.height > PIXELS:
            return None
        small = image.convert("RGBA")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None
    small.thumbnail((4 * SIZE, 4 * SIZE), Image.Resampling.BOX)
    return fitted(premultiplied(small), SIZE)


def seen_before(picture: Pixels, near: dict[tuple[int, ...], list[Shape]]) -> bool:
    """Whether a picture of the same shape and colours came before; if not it is remembered.

    Pictures are compared with those of about the same mean colour only.
    """
    small = picture.reshape(16, SIZE // 16, 16, SIZE // 16, 4).mean((1, 3), dtype=np.float32) / 255
    shape = np.concatenate([small[..., i] for i in range(4)])
    bucket = tuple(np.round(small.mean((0, 1)) * 8).astype(int).tolist())
    if is_copy(shape, near.get(bucket, [])):
        return True
    near.setdefault(bucket, []).append(shape)
    return False
