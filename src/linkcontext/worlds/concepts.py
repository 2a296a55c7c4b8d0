"""Concepts of the procedural world: every vector of numbers in [0, 1) is a concept.

A concept belongs to a family: a *creature* is a body with one to five more parts, a *glyph* consists of two to five
strokes, and a *blob* is an outline with two to six bumps. `SLOTS` defines the meaning of the numbers, `decode` computes
attributes from them, and `neighbours` changes one or two attributes, which gives hard negatives by construction.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from linkcontext.seeds import Name, rng

FAMILIES = ("creature", "glyph", "blob")
SHAPES = ("circle", "box", "triangle", "star", "ring", "cross", "moon", "capsule")
TEXTURES = ("plain", "striped", "dotted", "checkered", "gradient", "ringed")
COLOURS = {
    "red": (0.86, 0.13, 0.15),
    "orange": (0.97, 0.52, 0.08),
    "yellow": (0.98, 0.87, 0.15),
    "green": (0.16, 0.66, 0.22),
    "teal": (0.08, 0.62, 0.62),
    "blue": (0.13, 0.33, 0.86),
    "purple": (0.50, 0.18, 0.70),
    "pink": (0.97, 0.50, 0.72),
    "brown": (0.50, 0.29, 0.12),
    "black": (0.07, 0.07, 0.08),
    "white": (0.96, 0.96, 0.95),
    "grey": (0.52, 0.53, 0.55),
}
PARTS = 6  # maximum parts of a creature
STROKES = 5  # maximum strokes of a glyph
HARMONICS = 4  # harmonics of a blob's outline

PER_PART = ("shape", "colour", "accent", "texture", "size", "aspect", "angle", "x", "y", "mirrored")


def _slots() -> dict[str, slice]:
    sizes = {"family": 1, "count": 1, **dict.fromkeys(PER_PART, PARTS)}
    sizes |= {"stroke": STROKES * 6, "width": 1, "amplitude": HARMONICS, "phase": HARMONICS}
    slots, start = {}, 0
    for name, size in sizes.items():
        slots[name] = slice(start, start + size)
        start += size
    return slots


SLOTS = _slots()
LENGTH = max(s.stop for s in SLOTS.values())  # numbers of a concept
CHANGES = 5  # numbers that define how a neighbour differs


@dataclass(frozen=True, slots=True)
class Concepts:
    """Attributes of N concepts. Integers index the tuples above; lengths are in units of half a picture's width."""

    family: Tensor  # int64[N]
    count: Tensor  # int64[N]: parts, strokes or bumps
    shape: Tensor  # int64[N, PARTS]
    colour: Tensor  # int64[N, PARTS]
    accent: Tensor  # int64[N, PARTS]: the second colour of a texture, never the first
    texture: Tensor  # int64[N, PARTS]
    size: Tensor  # float32[N, PARTS]
    aspect: Tensor  # float32[N, PARTS]
    angle: Tensor  # float32[N, PARTS], radians
    x: Tensor  # float32[N, PARTS]
    y: Tensor  # float32[N, PARTS]
    mirrored: Tensor  # bool[N, PARTS]: drawn on both sides
    stroke: Tensor  # float32[N, STROKES, 3, 2]: control points of quadratic curves
    width: Tensor  # float32[N]: width of strokes
    amplitude: Tensor  # float32[N, HARMONICS]
    phase: Tensor  # float32[N, HARMONICS], radians


def _pick(u: Tensor, options: int) -> Tensor:
    return (u * options).long().clamp_(max=options - 1)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u


def decode(vectors: Tensor) -> Concepts:
    """The attributes of concepts float32[N, LENGTH]."""
    u = {name: vectors[:, where] for name, where in SLOTS.items()}
    n = len(vectors)
    first = torch.arange(PARTS, device=vectors.device) == 0
    family = torch.bucketize(
        u["family"][:, 0].contiguous(), torch.tensor([0.5, 0.75], device=vectors.device), right=True
    )
    fewest = torch.tensor([2, 2, 2], device=vectors.device)[family]
    most = torch.tensor([PARTS, STROKES, 6], device=vectors.device)[family]
    colour = _pick(u["colour"], len(COLOURS))
    away = 1 + _pick(u["accent"], len(COLOURS) - 1)
    around = 2 * torch.pi * u["x"]  # other parts are placed around the body
    reach = torch.where(first, 0.0, _between(u["y"], 0.40, 0.72))
    return Concepts(
        family=family,
        count=fewest + (u["count"][:, 0] * (most - fewest + 1)).long(),
        shape=_pick(u["shape"], len(SHAPES)),
        colour=colour,
        accent=(colour + away) % len(COLOURS),
        texture=_pick(u["texture"], len(TEXTURES)),
        size=torch.where(first, _between(u["size"], 0.42, 0.60), _between(u["size"], 0.16, 0.32)),
        aspect=_between(u["aspect"], 0.65, 1.5),
        angle=_between(u["angle"], -torch.pi, torch.pi),
        x=reach * around.cos(),
        y=reach * around.sin(),
        mirrored=(u["mirrored"] < 0.4) & ~first,
        stroke=_between(u["stroke"], -0.85, 0.85).view(n, STROKES, 3, 2),
        width=_between(u["width"][:, 0], 0.05, 0.13),
        amplitude=_between(u["amplitude"], 0.02, 0.16),
        phase=2 * torch.pi * u["phase"],
    )


def draw_concepts(count: int, *names: Name) -> Tensor:
    """Draw concepts float32[count, LENGTH]. Concept i is a function of the names and i."""
    rows = [rng(*names, "concept", i).random(LENGTH, dtype=np.float32) for i in range(count)]
    return torch.from_numpy(np.stack(rows))


def draw_changes(count: int, *names: Name) -> Tensor:
    """Draw the `changes` of `neighbours`, float32[count, CHANGES], for the concepts drawn with the same names."""
    rows = [rng(*names, "neighbour", i).random(CHANGES, dtype=np.float32) for i in range(count)]
    return torch.from_numpy(np.stack(rows))


def neighbours(vectors: Tensor, changes: Tensor) -> Tensor:
    """A hard negative of each concept: float32[N, LENGTH] with one or two attributes changed.

    `changes` float32[N, CHANGES] in [0, 1) selects how many and which. A number is shifted by a quarter to three
    quarters of its range, modulo 1, which always changes an attribute with four or more values.
    """
    things = decode(vectors)
    table, options = (t.to(vectors.device) for t in _changeable())
    many = options[things.family, things.count]
    moved = vectors.clone()
    for pick, shift, wanted in ((0, 1, 1.0), (2, 3, 0.5)):
        group = table[things.family, things.count, (changes[:, pick] * many).long()]
        moved += group * ((changes[:, 4] < wanted) * (0.25 + 0.5 * changes[:, shift]))[:, None]
    return moved % 1.0


@functools.cache
def _changeable() -> tuple[Tensor, Tensor]:
    """For each (family, count): groups of slots that change together, float32[3, 7, groups, LENGTH], and a count."""
    lists = {(f, c): changeable(family, c) for f, family in enumerate(FAMILIES) for c in range(2, PARTS + 1)}
    table = torch.zeros(len(FAMILIES), PARTS + 1, max(map(len, lists.values())), LENGTH)
    options = torch.zeros(len(FAMILIES), PARTS + 1)
    for (family, count), groups in lists.items():
        options[family, count] = len(groups)
        for g, slots in enumerate(groups):
            table[family, count, g, slots] = 1
    return table, options


def changeable(family: str, count: int) -> list[list[int]]:
    """The possible changes of a neighbour: each entry lists the slots that change together."""
    at = {name: where.start for name, where in SLOTS.items()}
    if family == "creature":
        parts = [[at[name] + part] for part in range(count) for name in ("shape", "colour", "texture")]
        return parts + [[at["x"] + part] for part in range(1, count)]
    if family == "glyph":
        strokes = [list(range(at["stroke"] + 6 * s, at["stroke"] + 6 * s + 6)) for s in range(min(count, STROKES))]
        return [*strokes, [at["colour"]]]
    return [[at["colour"]], [at["texture"]], [at["count"]], [at["phase"]], [at["amplitude"] + 1]]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a concept in words: its colour, its texture and its shape."""

    colour: str
    texture: str
    shape: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The attributes that every picture of a concept shows."""

    family: str
    count: int
    parts: tuple[Part, ...]


def facts(things: Concepts) -> Sequence[Facts]:
    """The facts of N concepts."""
    colours = tuple(COLOURS)
    all_facts = []
    for i in range(len(things.family)):
        family, count = FAMILIES[int(things.family[i])], int(things.count[i])
        shown = count if family == "creature" else 1
        parts = tuple(
            Part(
                colours[int(things.colour[i, p])],
                "plain" if family == "glyph" else TEXTURES[int(things.texture[i, p])],
                SHAPES[int(things.shape[i, p])] if family == "creature" else family,
            )
            for p in range(shown)
        )
        all_facts.append(Facts(family, count, parts))
    return all_facts
