"""Each class's neighbours: how alike two classes are, the ranked lists and their file.

A class has two unit vectors: `image`, the mean of its pictures' features, and `text`, that of its name. With weights
tt, it, ii (the paper's are 0.5, 0.8, 0.5) the similarity of a and b is

    tt text_a·text_b + it (image_a·text_b + text_a·image_b) + ii image_a·image_b

which is one product of two long vectors, [image_a, text_a] · [ii image_b + it text_b, it image_b + tt text_b].

Three rules say which classes are listed and how one is drawn as a negative (`linkcontext.episodes.pool.by_rule`):

    topk        the 100 nearest, each as likely as any other
    linear      the 100 nearest, the j-th with weight 101 - j (the paper)
    intervals   all classes by rank, cut into 36 parts, one of each at random, with weights 36 ... 1 (the released code)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from linkcontext.data.images import open_image, sha256
from linkcontext.data.manifest import Dataset
from linkcontext.data.sources import digest
from linkcontext.errors import InputError
from linkcontext.records import read_jsonl, write_jsonl
from linkcontext.seeds import rng
from linkcontext.storage import replacing

Rule = Literal["topk", "linear", "intervals"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Weights = tuple[float, float, float]  # text-text, image-text, image-image
KEPT, PARTS = 100, 36
CHUNK = 256  # classes whose similarities to all others are in memory at once
DIGITS = 6  # of a written similarity; ranks are by all of it
BITS = 26  # two factors of 26 bits and a product below sqrt(2): sums stay below 2**53
SHOWN, EDGE, LABEL = 40, 96, 14  # rows of a sheet, pixels of a picture and of the line above it


@dataclass(frozen=True, slots=True)
class Near:
    """Another class, and how alike it is."""

    class_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A line of the file: a class and its neighbours, nearest first."""

    class_id: str
    name: str
    neighbours: tuple[Near, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """What stands beside the file: what it was made from and how. `sha256` is that of the file."""

    sha256: str
    classes: int
    data: str
    encoder: dict[str, Any]
    weights: Weights
    rule: Rule
    images_per_class: int
    split: str | None
    seed: int


def checked(weights: Sequence[float]) -> Weights:
    """Three numbers, or an `InputError`."""
    if len(weights) != 3 or not all(0 <= weight < np.inf for weight in weights) or not any(weights):
        said = " ".join(f"{weight:g}" for weight in weights)
        raise InputError(
            f"--weights {said}: give three numbers, none below 0 and not all 0, for text-text, image-text and "
            "image-image, like 0.5 0.8 0.5."
        )
    return weights[0], weights[1], weights[2]


def rank(image: Floats, text: Floats, weights: Weights, keep: int, chunk: int = CHUNK) -> Iterator[tuple[Ints, Floats]]:
    """For each class in turn the `keep` most similar others, nearest first, and their similarities, rounded.

    `image`, `text`: float64[C, D], rows of length 1. Equal similarities are in the order of the rows.
    """
    tt, it, ii = weights
    total = tt + 2 * it + ii  # a right side is at most so long, a left side sqrt(2)
    left = np.hstack([image, text])
    right = np.hstack([ii * image + it * text, it * image + tt * text]) / total
    # As whole numbers: their sums are exact, whatever the chunk, the threads and the order of adding.
    left, right = (np.rint(np.ldexp(side, BITS)) for side in (left, right))
    for start in range(0, len(left), chunk):
        found = left[start : start + chunk] @ right.T
        for own, row in enumerate(found, start):
            row[own] = -np.inf
            order = _highest(row, min(keep, len(row) - 1))
            yield order, np.round(np.ldexp(row[order], -2 * BITS) * total, DIGITS)


def _highest(row: Floats, count: int) -> Ints:
    """Where the highest are, in falling order. All that tie with the last are looked at, not those a sort met first."""
    edge = np.partition(row, -count)[-count]
    places = np.flatnonzero(row >= edge)
    order = np.argsort(-row[places])
    if (np.diff(row[places][order]) == 0).any():
        order = np.argsort(-row[places], kind="stable")  # ties keep their order, in four times the time
    return places[order][:count]


def listed(
    names: Mapping[str, str], image: Floats, text: Floats, weights: Weights, rule: Rule, seed: int
) -> Iterator[Neighbours]:
    """The lines of the file. `names` maps class ids, in the order of the rows of `image` and `text`, to names."""
    ids = list(names)
    ranked = rank(image, text, weights, KEPT if rule != "intervals" else len(ids))
    for (class_id, name), (order, similar) in zip(names.items(), ranked, strict=True):
        places = list(range(len(order)))
        if rule == "intervals":
            parts, stream = min(PARTS, len(order)), rng("mining", seed, "intervals", class_id)
            cuts = [len(order) * part // parts for part in range(parts + 1)]
            places = [int(stream.integers(low, high)) for low, high in pairwise(cuts)]
        near = (Near(ids[order[place]], float(similar[place])) for place in places)
        yield Neighbours(class_id, name, tuple(near))


def made_file(path: Path) -> Path:
    """What stands beside a file of neighbours."""
    return path.with_suffix(".made.json")


def read_made(path: Path) -> Made:
    """How a file of neighbours was made. Raises `InputError` where it is not there or not whole."""
    beside = made_file(path)
    for file in (path, beside):
        if not file.is_file():
            raise InputError(f"{file}: not there. Write {path.name} and what stands beside it with `linkcontext mine`.")
    found = list(read_jsonl(Made, beside))
    if len(found) != 1 or sha256(path) != found[0].sha256:
        raise InputError(f"{path}: cut short, or changed since it was written. Write it again with `linkcontext mine`.")
    return found[0]


def read_neighbours(path: Path, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Class id to its neighbours' ids, nearest first. Raises as `read_made`, and for another data set's file."""
    if read_made(path).data != digest(dataset):
        raise InputError(
            f"{path}: made from other pictures than those of {dataset.root}. Run `linkcontext mine` on this data set."
        )
    return {row.class_id: tuple(near.class_id for near in row.neighbours) for row in read_jsonl(Neighbours, path)}


def mined(path: str | None, dataset: Dataset) -> dict[str, tuple[str, ...]] | None:
    """What the flag --neighbours says of a data set: the file's neighbours, or None where it is not given."""
    return None if path is None else read_neighbours(Path(path), dataset)


def write_neighbours(rows: Sequence[Neighbours], path: Path, **made: Any) -> None:
    """Write the file and what stands beside it; `made` has the other fields of `Made`."""
    write_jsonl(rows, path)
    write_jsonl([Made(sha256(path), len(rows), **made)], made_file(path))


def sheet(dataset: Dataset, rows: Sequence[Neighbours], path: Path) -> None:
    """Draw classes, two pictures of each, beside the nearest, the middle and the farthest of their list."""
    classes, names = dataset.by_class(), dataset.names()
    rows = rows[:SHOWN]
    drawn = Image.new("RGB", (4 * (2 * EDGE + LABEL), len(rows) * (EDGE + LABEL)), "white")
    pen = ImageDraw.Draw(drawn)
    for row, line in enumerate(rows):
        others = [line.neighbours[place] for place in (0, len(line.neighbours) // 2, -1)]
        shown = [(line.class_id, line.name)] + [(n.class_id, f"{n.similarity:.2f} {names[n.class_id]}") for n in others]
        for column, (class_id, label) in enumerate(shown):
            left, top = column * (2 * EDGE + LABEL), row * (EDGE + LABEL)
            pen.text((left, top), label[:32], "black")
            for number, item in enumerate(classes[class_id][:2]):
                picture = ImageOps.contain(open_image(dataset.root / item.path), (EDGE, EDGE))
                drawn.paste(picture, (left + number * EDGE, top + LABEL))
    with replacing(path) as new:
        drawn.save(new, "PNG")
