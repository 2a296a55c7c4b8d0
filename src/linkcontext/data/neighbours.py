"""Neighbours of classes: how similar two classes are, ranked lists, and the file that holds them.

A class has two unit vectors: `image` is the mean of its pictures' features, `text` the feature of its name. With
weights tt, it, ii (0.5, 0.8, 0.5 in arXiv 2308.07891) the similarity of two classes a and b is

    tt text_a·text_b + it (image_a·text_b + text_a·image_b) + ii image_a·image_b

It is computed as one dot product, [image_a, text_a] · [ii image_b + it text_b, it image_b + tt text_b].

Three rules decide which classes a list holds, and how a negative is drawn from it
(`linkcontext.episodes.pool.by_rule`):

    topk        the 100 nearest, drawn with equal weights
    linear      the 100 nearest, the j-th drawn with weight 101 - j (the paper)
    intervals   the ranking is cut into 36 parts and one class of each is sampled; weights 36 ... 1 (the released code)
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
from linkcontext.data.manifest import Dataset, digest
from linkcontext.errors import InputError
from linkcontext.jsonl import read_jsonl, write_jsonl
from linkcontext.seeds import rng
from linkcontext.storage import replacing

RankingRule = Literal["topk", "linear", "intervals"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Weights = tuple[float, float, float]  # text-text, image-text, image-image
TOP, PARTS = 100, 36
CHUNK = 256  # classes whose similarities to all others are in memory at once
DIGITS = 6  # decimals of a written similarity; classes are ranked before rounding
BITS = 26  # of a factor: products of two of them, summed below sqrt(2), stay below 2**53 and are exact in float64
SHEET_ROWS, EDGE, LABEL = 40, 96, 14  # rows of a sheet; heights of a picture and of a label in pixels


@dataclass(frozen=True, slots=True)
class NeighbourClass:
    """Another class and its similarity."""

    class_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class NeighbourList:
    """One line of the file: a class and its neighbours, the nearest first."""

    class_id: str
    name: str
    neighbours: tuple[NeighbourClass, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a file of neighbours was made. It is written beside the file; `sha256` is the hash of the file."""

    sha256: str
    classes: int
    data: str
    encoder: dict[str, Any]
    weights: Weights
    rule: RankingRule
    images_per_class: int
    split: str | None
    seed: int


def check_weights(weights: Sequence[float]) -> Weights:
    """The three weights. Raises `InputError` unless they are three finite numbers, none negative and not all 0."""
    if len(weights) != 3 or not all(0 <= weight < np.inf for weight in weights) or not any(weights):
        given = " ".join(f"{weight:g}" for weight in weights)
        raise InputError(
            f"--weights {given}: give three numbers, none below 0 and not all 0, for text-text, image-text and "
            "image-image, like 0.5 0.8 0.5."
        )
    return weights[0], weights[1], weights[2]


def rank(image: Floats, text: Floats, weights: Weights, keep: int, chunk: int = CHUNK) -> Iterator[tuple[Ints, Floats]]:
    """Yield for each class the rows of the `keep` most similar others, nearest first, and their rounded similarities.

    `image` and `text` are float64[C, D] with rows of length 1. Ties keep the order of the rows.
    """
    tt, it, ii = weights
    total = tt + 2 * it + ii  # the longest possible row of `right`; one of `left` is at most sqrt(2) long
    left = np.hstack([image, text])
    right = np.hstack([ii * image + it * text, it * image + tt * text]) / total
    # Integers in float64: their sums are exact, whatever the chunk size, the threads and the order of summation.
    left, right = (np.rint(np.ldexp(side, BITS)) for side in (left, right))
    for start in range(0, len(left), chunk):
        similarities = left[start : start + chunk] @ right.T
        for own, row in enumerate(similarities, start):
            row[own] = -np.inf
            order = _highest(row, min(keep, len(row) - 1))
            yield order, np.round(np.ldexp(row[order], -2 * BITS) * total, DIGITS)


def _highest(row: Floats, count: int) -> Ints:
    """The indices of the `count` highest values, in descending order; ties keep the order of the row."""
    edge = np.partition(row, -count)[-count]
    places = np.flatnonzero(row >= edge)
    order = np.argsort(-row[places])
    if (np.diff(row[places][order]) == 0).any():
        order = np.argsort(-row[places], kind="stable")  # keeps the order of ties and takes four times as long
    return places[order][:count]


def neighbour_lists(
    names: Mapping[str, str], image: Floats, text: Floats, weights: Weights, rule: RankingRule, seed: int
) -> Iterator[NeighbourList]:
    """The lines of the file. `names` maps class ids to names, in the order of the rows of `image` and `text`."""
    ids = list(names)
    ranked = rank(image, text, weights, TOP if rule != "intervals" else len(ids))
    for (class_id, name), (order, similar) in zip(names.items(), ranked, strict=True):
        places = list(range(len(order)))
        if rule == "intervals":
            parts, stream = min(PARTS, len(order)), rng("mining", seed, "intervals", class_id)
            cuts = [len(order) * part // parts for part in range(parts + 1)]
            places = [int(stream.integers(low, high)) for low, high in pairwise(cuts)]
        near = (NeighbourClass(ids[order[place]], float(similar[place])) for place in places)
        yield NeighbourList(class_id, name, tuple(near))


def provenance_file(path: Path) -> Path:
    """The path of the provenance of a file of neighbours."""
    return path.with_suffix(".made.json")


def read_provenance(path: Path) -> Provenance:
    """How a file of neighbours was made. Raises `InputError` if one of the two files is missing or incomplete."""
    beside = provenance_file(path)
    for file in (path, beside):
        if not file.is_file():
            raise InputError(f"{file}: no such file. Write {path.name} and {beside.name} with `linkcontext mine`.")
    rows = list(read_jsonl(Provenance, beside))
    if len(rows) != 1 or sha256(path) != rows[0].sha256:
        raise InputError(
            f"{path}: is incomplete, or was changed after it was written. Write it again with `linkcontext mine`."
        )
    return rows[0]


def read_neighbours(path: Path, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Class id to its neighbours' ids, nearest first.

    Raises `InputError` as `read_provenance`, and if the file was made from other pictures than those of `dataset`.
    """
    if read_provenance(path).data != digest(dataset):
        raise InputError(
            f"{path}: was made from other pictures than those of {dataset.root}. Run `linkcontext mine` on "
            "this data set."
        )
    return {row.class_id: tuple(near.class_id for near in row.neighbours) for row in read_jsonl(NeighbourList, path)}


def neighbours_from_file(path: str | None, dataset: Dataset) -> dict[str, tuple[str, ...]] | None:
    """The neighbours in the file of the option --neighbours; None if the option is not given."""
    return None if path is None else read_neighbours(Path(path), dataset)


def write_neighbours(rows: Sequence[NeighbourList], path: Path, **provenance: Any) -> None:
    """Write the file and its provenance, of which `sha256` and `classes` are filled in here."""
    write_jsonl(rows, path)
    write_jsonl([Provenance(sha256(path), len(rows), **provenance)], provenance_file(path))


def draw_sheet(dataset: Dataset, rows: Sequence[NeighbourList], path: Path) -> None:
    """Draw a sheet: a class a row, with two pictures of it and of the nearest, middle and farthest of its list."""
    classes, names = dataset.by_class(), dataset.names()
    rows = rows[:SHEET_ROWS]
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
