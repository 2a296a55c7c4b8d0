"""Characters: a class is a letter or symbol as different fonts draw it. Which ones: `scripts.py`.

Chinese, Thai and Khmer have many fonts; of the rarer scripts there are one to three drawings of a character.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fontTools import unicodedata
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from linkcontext.seeds import rng

from .exclude import licence_allows
from .fetch import debian_package, npm_folder, npm_package
from .icon_paint import colour
from .scripts import SCRIPTS, named
from .store import SIZE, Pixels, Writer, fitted, premultiplied
from .variety import Shape, in_turn, is_copy

LICENCE_NOTE = "Fonts of @fontsource and of Debian; single characters drawn at 64 pixels in other colours, some bolder."
DRAWINGS, PER_FONT = 24, 4  # of a class at most
CHINESE = 1000  # characters, of those that most fonts have
POINTS = 80  # drawn at, before it is fitted into 64 pixels

NPM = {
    **dict.fromkeys(("kanit", "prompt", "sarabun", "sriracha", "taviraj", "itim", "fahkwang", "chakra-petch"), "5.3.0"),
    **dict.fromkeys(("bai-jamjuree", "anuphan", "ibm-plex-sans-thai", "noto-serif-thai", "hanuman"), "5.3.0"),
    **dict.fromkeys(("abhaya-libre", "zcool-kuaile", "zcool-qingke-huangyou", "zcool-xiaowei", "long-cang"), "5.3.0"),
    **dict.fromkeys(("liu-jian-mao-cao", "zhi-mang-xing", "yomogi", "zen-kurenaido", "dela-gothic-one"), "5.3.0"),
    **{"mochiy-pop-one": "5.3.0", "ma-shan-zheng": "5.3.1", "k2d": "5.2.8", "freehand": "5.2.8"},
}
DEBIAN = (
    "fonts-noto-core", "fonts-noto-cjk", "fonts-lxgw-wenkai", "fonts-train", "fonts-rampart", "fonts-reggae",
    "fonts-rocknroll", "fonts-stick", "fonts-sawarabi-gothic", "fonts-sawarabi-mincho", "fonts-seto",
    "fonts-smiley-sans", "fonts-morisawa-bizud-gothic", "fonts-morisawa-bizud-mincho", "fonts-motoya-l-cedar",
    "fonts-motoya-l-maruberi", "fonts-mplus", "fonts-yusei-magic", "fonts-dotgothic16", "fonts-stix",
    "fonts-sil-mondulkiri", "fonts-sil-mondulkiri-extra", "fonts-sil-nuosusil", "fonts-sil-taiheritagepro",
)  # fmt: skip
# Of a family in nine weights these are enough; of subsets only those that can hold what is drawn.
WEIGHTS = ("100", "300", "400", "500", "700", "900")
WESTERN = ("latin", "vietnamese", "cyrillic", "greek")
_SPDX = {"SIL-1.1": "OFL-1.1", "Apache-2": "Apache-2.0", "SIL OFL 1.1": "OFL-1.1"}


class Face(NamedTuple):
    """One font file that has a character."""

    path: Path
    origin: int


def debian_licence(copyright_file: str) -> str | None:
    """SPDX name of the licence of a package's fonts: of the first licence that its copyright file names.

    Of alternatives, `A or B`, the first that is allowed.
    """
    first = next((line for line in copyright_file.splitlines() if line.startswith("License:")), "")
    names = [name.strip() for name in first.removeprefix("License:").split(" or ")]
    names = [_SPDX.get(name, name) for name in names]
    return next((name for name in names if licence_allows(name)), names[0] or None)


def packages(downloads: Path) -> Iterator[tuple[dict[str, Any], list[Path]]]:
    """Whose fonts they are and the font files, of each package whose licence allows their use."""
    for name, version in NPM.items():
        folder = npm_folder(npm_package(f"@fontsource/{name}", version, downloads))
        about = json.loads((folder / "metadata.json").read_text("utf-8"))
        files = sorted(path for path in (folder / "files").glob("*-normal.woff") if _used(path.stem, name))
        origin = {"name": about["family"], "author": about["license"]["attribution"][:120]}
        yield origin | {"licence": about["license"]["type"], "url": f"npm: @fontsource/{name}"}, files
    for name in DEBIAN:
        folder = debian_package(name, downloads)
        text = (folder / f"usr/share/doc/{name}/copyright").read_text("utf-8", errors="replace")
        files = sorted(p for p in (folder / "usr/share/fonts").rglob("*") if p.suffix in (".ttf", ".otf", ".ttc"))
        origin = {"name": name, "author": _holder(text), "licence": debian_licence(text), "url": f"Debian: {name}"}
        yield origin, [path for path in files if not path.is_symlink()]


def build(writer: Writer, downloads: Path, progress: Callable[[str], None]) -> None:
    """Fetch the fonts, find who draws what, and draw it."""
    faces: dict[str, list[Face]] = defaultdict(list)
    names: dict[str, tuple[str, str]] = {}
    for origin, files in packages(downloads):
        if not licence_allows(origin["licence"]):
            progress(f"{origin['name']} is left out: its licence is {origin['licence']}")
            continue
        progress(f"{origin['name']}: {len(files)} files")
        writer.origins.append(origin)
        for path in files:
            for character in characters(path):
                if character not in names:
                    script = unicodedata.script(character)
                    names[character] = (script, named(character, script) or "")
                if names[character][1]:
                    faces[character].append(Face(path, len(writer.origins) - 1))
    chosen = choose(faces, names)
    for done, character in enumerate(chosen):
        if done % 250 == 0:
            progress(f"{done} of {len(chosen)} characters, {len(writer.class_ids)} pictures")
        script, name = names[character]
        drawn = draw_class(character, faces[character])
        if drawn:
            for picture, face in drawn:
                writer.add(picture, len(writer.classes), face.origin)
            writer.classes.append({"name": name, "character": character, "script": SCRIPTS.get(script, "symbols")})


def choose(faces: dict[str, list[Face]], names: dict[str, tuple[str, str]]) -> list[str]:
    """All characters but Chinese ones, of which those that most packages have, sorted by code."""
    fonts = {character: len({face.origin for face in own}) for character, own in faces.items()}
    chinese = [character for character in faces if names[character][0] == "Hani"]
    most = sorted(chinese, key=lambda character: (-fonts[character], rng("Chinese", character).random()))
    return sorted(set(faces) - set(chinese) | set(most[:CHINESE]))


def draw_class(character: str, faces: list[Face]) -> list[tuple[Pixels, Face]]:
    """Pictures of a character by different fonts, without copies."""
    pictures: list[tuple[Pixels, Face]] = []
    shapes: list[Shape] = []
    for face in in_turn(faces, lambda face: face.origin, PER_FONT, rng("fonts", character)):
        random = rng("fonts", character, face.origin, face.path.name)
        bolder = int(random.choice([0, 0, 0, 1] if "\u4e00" <= character <= "\u9fff" else [0, 0, 0, 0, 1, 2]))
        picture = draw(character, face.path, colour(random), bolder)
        if picture is None:
            continue
        shape = picture[..., 3].reshape(16, SIZE // 16, 16, SIZE // 16).mean((1, 3), dtype=np.float32) / 255
        if not is_copy(shape, shapes):
            pictures.append((picture, face))
            shapes.append(shape)
        if len(pictures) == DRAWINGS:
            break
    return pictures


def draw(character: str, path: Path, ink: str, bolder: int) -> Pixels | None:
    """One character, premultiplied uint8[64, 64, 4]. None if the font draws nothing for it, or no more than a dot."""
    font = _font(path)
    left, top, right, bottom = font.getbbox(character, stroke_width=bolder)
    if not POINTS / 4 < max(right - left, bottom - top) < 20 * POINTS:
        return None
    coverage = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(coverage).text((1 - left, 1 - top), character, 255, font, stroke_width=bolder)
    image = Image.new("RGBA", coverage.size, ink)
    image.putalpha(coverage)
    return fitted(premultiplied(image))


@lru_cache(maxsize=512)
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, POINTS, layout_engine=ImageFont.Layout.BASIC)


def characters(path: Path) -> list[str]:
    """The characters that a font file has; of a collection, its first font."""
    with TTFont(path, lazy=True, fontNumber=0) as font:
        return [chr(code) for code in font.getBestCmap() or ()]


def _used(file: str, package: str) -> bool:
    """Whether a file of a @fontsource package, such as `kanit-thai-400-normal`, can hold what is drawn."""
    subset, weight, _ = file.removeprefix(f"{package}-").rsplit("-", 2)
    return weight in WEIGHTS and not subset.startswith(WESTERN)


def _holder(copyright_file: str) -> str:
    """The first holder that a Debian copyright file names."""
    lines = copyright_file.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("Copyright:"):
            return (line.removeprefix("Copyright:").strip() or following.strip())[:120]
    return "see the package's copyright file"
