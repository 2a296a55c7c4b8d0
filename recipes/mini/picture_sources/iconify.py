"""Icons: a class is a name, such as "arrow left", that eight or more authors have drawn.

From the npm package `@iconify/json`, about 240 icon sets with author and licence each. Of each name at most forty
drawings are kept, from as many authors as there are, and no two that look the same: a query must never have a copy of
itself among the pictures beside it. Each is drawn once by resvg: in one colour, a gradient, with an outline, on a
plate, with thinner or thicker strokes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from linkcontext.seeds import rng

from .exclude import licence_allows, why_excluded
from .fetch import npm_files, npm_package
from .icon_names import class_key, is_brand, words
from .icon_paint import Box, colour, content_box, drawn, painted, squared, surrounded
from .store import SIZE, Pixels, Writer, premultiplied
from .variety import Shape, in_turn, is_copy

PACKAGE, VERSION = "@iconify/json", "2.2.535"
LICENCE_NOTE = "Icon sets of @iconify/json; drawn at 64 pixels, most in other colours, some with other strokes."
AUTHORS = 8  # that have drawn a name, for it to be a class
DRAWINGS = 40  # of a class at most
PER_AUTHOR = 6  # of a class at most

# The first decide what a brand is; sets with animations lack half of each picture when they stand still.
BRAND_SETS = ("fa7-brands", "fa6-brands", "bxl", "cib")
CATEGORIES = ("Logos", "Emoji")
SETS = frozenset({
    *("circle-flags", "flag", "flagpack", "cif"),  # flags
    *("fa6-brands", "fa-brands", "academicons"),  # brands
    *("vscode-icons", "material-icon-theme", "file-icons", "devicon", "devicon-plain", "catppuccin", "skill-icons"),
    *("gcp", "k8s", "unjs"),  # brands of software
    *("fluent-emoji", "svg-spinners"),
})  # fmt: skip


@dataclass
class Drawing:
    """One icon of one set."""

    origin: int
    author: str
    icon: str
    body: str
    box: Box
    colourful: bool


@dataclass
class Name:
    """What was drawn under the same words, in any order, or under synonyms."""

    drawings: list[Drawing] = field(default_factory=list)
    orders: Counter[str] = field(default_factory=Counter)


def set_used(prefix: str, info: dict[str, Any]) -> bool:
    """Whether a set's licence and subject allow its use."""
    return (
        licence_allows(info["license"].get("spdx"))
        and info.get("category") not in CATEGORIES
        and prefix not in SETS
        and "Contains Animations" not in info.get("tags", ())
    )


def read_names(tgz: Path, origins: list[dict[str, Any]]) -> dict[str, Name]:
    """All drawings of the sets in use by class key; sets are appended to `origins`."""
    infos = next(json.load(file) for name, file in npm_files(tgz, ".json") if name == "collections.json")
    names: dict[str, Name] = defaultdict(Name)
    brands: set[str] = set()
    for path, file in npm_files(tgz, ".json"):
        prefix = Path(path).stem
        if prefix not in infos or not (prefix in BRAND_SETS or set_used(prefix, infos[prefix])):
            continue
        content = json.load(file)
        if prefix in BRAND_SETS:
            brands |= {class_key(words(icon)) or "" for icon in content["icons"]}
            continue
        info, origin = infos[prefix], len(origins)
        origins.append({
            "name": info["name"],
            "author": info["author"]["name"],
            "licence": info["license"]["spdx"],
            "url": info["author"].get("url") or info["license"].get("url") or f"npm: {PACKAGE}, {prefix}",
        })  # fmt: skip
        for icon, body, box in _icons(content):
            listed = words(icon)
            key = class_key(listed)
            if key and not why_excluded(listed):
                name = names[key]
                author = info["author"]["name"]
                name.drawings.append(Drawing(origin, author, icon, body, box, bool(info.get("palette"))))
                name.orders[" ".join(listed)] += 1
    known = frozenset(brands)
    return {key: name for key, name in names.items() if not is_brand(key, known)}


def _icons(content: dict[str, Any]) -> Iterable[tuple[str, str, Box]]:
    """Name, body and view box of the icons of a set, with other names of an unchanged icon."""
    icons, aliases = content["icons"], content.get("aliases") or {}
    for name, parent in [*((name, name) for name in icons), *_unchanged(aliases, icons)]:
        icon = icons[parent]
        side = {key: icon.get(key, content.get(key, default)) for key, default in _BOX.items()}
        yield name, icon["body"], (side["left"], side["top"], side["width"], side["height"])


_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}  # the format's defaults


def _unchanged(aliases: dict[str, Any], icons: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, alias["parent"])
        for name, alias in aliases.items()
        if set(alias) == {"parent"} and alias["parent"] in icons
    ]


def build(writer: Writer, downloads: Path, progress: Callable[[str], None]) -> None:
    """Fetch the package, choose the names and draw them."""
    tgz = npm_package(PACKAGE, VERSION, downloads)
    progress("reading the sets")
    names = read_names(tgz, writer.origins)
    wanted = {key: name for key, name in names.items() if len({one.author for one in name.drawings}) >= AUTHORS}
    taken: set[str] = set()
    # Rare names first: an icon that has two names goes to the class that has fewer others.
    for done, key in enumerate(sorted(wanted, key=lambda key: (len(wanted[key].drawings), key))):
        if done % 100 == 0:
            progress(f"{done} of {len(wanted)} names, {len(writer.class_ids)} pictures")
        _draw_class(key, wanted[key], taken, writer)


def _draw_class(key: str, name: Name, taken: set[str], writer: Writer) -> None:
    """Draw a name's icons, but none that was drawn for another name, unless authors then are too few."""
    pictures: list[tuple[Pixels, Drawing]] = []
    shapes: list[Shape] = []
    for one in in_turn(name.drawings, lambda one: one.author, PER_AUTHOR, rng("iconify", key))[: 3 * DRAWINGS]:
        if len(pictures) == DRAWINGS:
            break
        seen = None if one.body in taken else _look(one)
        if seen is None or is_copy(seen[1], shapes):
            continue
        box, shape = seen
        random = rng("iconify", key, one.origin, one.icon)
        body, around = (one.body, colour(random)) if one.colourful else painted(one.body, random)
        pictures.append((premultiplied(surrounded(drawn(body, box, SIZE), around, random)), one))
        shapes.append(shape)
    authors = len({one.author for _, one in pictures})
    if authors >= AUTHORS:
        taken |= {one.body for _, one in pictures}
        for picture, one in pictures:
            writer.add(picture, len(writer.classes), one.origin)
        first, *others = [spelling for spelling, count in name.orders.most_common(6) if count >= 3]
        writer.classes.append({"name": first, "also": others, "authors": authors})


def _look(one: Drawing) -> tuple[Box, Shape] | None:
    """The part of a drawing's view box that is drawn on, and its shape, float[16, 16]. None if nothing is drawn."""
    box = squared(one.box)
    try:
        part = content_box(np.asarray(drawn(one.body, box, SIZE).getchannel("A")), box)
        if part is None:
            return None
        shape = drawn(one.body, part, 16).getchannel("A")
    except ValueError:  # a drawing that resvg refuses
        return None
    return part, np.asarray(shape, np.float32) / 255
