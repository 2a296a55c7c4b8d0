"""ISEKAI from the procedural world, in the layout of the published benchmark, with things that nobody has seen.

`10`    pairs of a new thing and a similar one that mini-base was taught, under its taught name
`pair`  pairs of similar new things
Similar things differ by `ROUNDS` rounds of `concepts.neighbours`, each of which changes one or two attributes, as an
invented animal differs from a real one. After one round, the nearest centroid in the bundled vision features is right
in only 7 of 10 cases.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from linkcontext.data.manifest import Dataset
from linkcontext.data.readers.isekai import IsekaiRecord
from linkcontext.errors import InputError
from linkcontext.jsonl import write_jsonl
from linkcontext.seeds import Name, rng
from linkcontext.worlds import concepts
from linkcontext.worlds.folder import EDGE, TAUGHT, TAUGHT_STREAM, taught_names, write_world
from linkcontext.worlds.pseudo_words import pseudo_words

Kind = Literal["10", "pair"]
ROUNDS = 3


def write_isekai(out: Path, kind: Kind, seed: int, groups: int = 10, images: int = 32, size: int = EDGE) -> Dataset:
    """Write `groups` pairs of concepts with `images` pictures of `size` pixels each, and ISEKAI-`kind`.json.

    The first half of a concept's pictures are supports; each picture of the second half is the query of a record. Both
    concepts of a pair are queried equally often, so a policy that ignores the picture is right half of the time. Raises
    `InputError` for a folder that is not empty, and for numbers that are too small or too large.
    """
    if not 1 <= groups <= TAUGHT or images < 2:
        raise InputError(
            f"{groups} pairs with {images} pictures of each thing: give 1 to {TAUGHT} pairs and at least 2 pictures."
        )
    stream: tuple[Name, ...] = ("world", "isekai", kind, seed)
    if kind == "10":
        chosen = sorted(int(place) for place in rng(*stream, "taught").permutation(TAUGHT)[:groups])
        known = concepts.draw_concepts(TAUGHT, *TAUGHT_STREAM)[chosen]
        novel = _alike(known, *stream)
        taught = taught_names()
        names = pseudo_words(groups, *stream, avoid=taught)
        pairs = list(zip(names, (taught[place] for place in chosen), strict=True))
    else:
        novel = concepts.draw_concepts(groups, *stream)
        known = _alike(novel, *stream)
        names = pseudo_words(2 * groups, *stream, avoid=taught_names())
        pairs = list(zip(names[:groups], names[groups:], strict=True))
    vectors = torch.stack([novel, known], 1).flatten(0, 1)
    flat = [name for pair in pairs for name in pair]
    near = [[other] for first, second in pairs for other in (second, first)]
    dataset = write_world(out, vectors, flat, near, images, stream, size)
    write_jsonl(_records(pairs, images), out / f"ISEKAI-{kind}.json")  # last, because it completes the benchmark
    return dataset


def _alike(things: torch.Tensor, *stream: Name) -> torch.Tensor:
    """A similar concept for each concept."""
    for turn in range(ROUNDS):
        things = concepts.neighbours(things, concepts.draw_changes(len(things), *stream, turn))
    return things


def _records(pairs: Sequence[tuple[str, str]], images: int) -> list[IsekaiRecord]:
    """One record per query. The queries of a pair's two concepts alternate."""
    half = images // 2
    return [
        IsekaiRecord(
            image_name=f"{label}/{number:04d}.png",
            positive_list=tuple(f"{positive}/{shown:04d}.png" for shown in range(half)),
            negative_list=tuple(f"{negative}/{shown:04d}.png" for shown in range(half)),
            positive_promt=positive,
            negative_promt=negative,
            label_name=label,
        )
        for positive, negative in pairs
        for number in range(half, images)
        for label in (positive, negative)
    ]
