"""ISEKAI out of the procedural world, in the layout of the published benchmark: nobody has ever seen these things.

`10`    things that do not exist beside the look-alikes that mini-base was taught, under their taught names
`pair`  things that do not exist beside others that do not exist either
Look-alikes differ in one or two attributes, `ROUNDS` times over (`concepts.neighbours`): in a few, as a made-up animal
differs from the real one. After one round a nearest centroid in the bundled eyes is right in 7 of 10 cases only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from linkcontext.data.manifest import Dataset
from linkcontext.errors import InputError
from linkcontext.records import write_jsonl
from linkcontext.seeds import Name, rng
from linkcontext.worlds import concepts
from linkcontext.worlds.folder import EDGE, TAUGHT, TAUGHT_STREAM, taught_names, write
from linkcontext.worlds.pseudo_words import pseudo_words

Kind = Literal["10", "pair"]
ROUNDS = 3


def write_isekai(out: Path, kind: Kind, seed: int, groups: int = 10, images: int = 32, size: int = EDGE) -> Dataset:
    """Write `groups` pairs of concepts with `images` pictures of `size` pixels each, and ISEKAI-`kind`.json.

    The first half of a concept's pictures are supports, each of the others is asked about in a record of its own:
    both concepts of a pair equally often, so that no answer which ignores the picture is right more than half the time.
    Raises `InputError` for a folder that is not empty, and for numbers that make no benchmark.
    """
    if not 1 <= groups <= TAUGHT or images < 2:
        raise InputError(
            f"{groups} pairs with {images} pictures of each thing: give 1 to {TAUGHT} pairs and at least 2 pictures."
        )
    stream: tuple[Name, ...] = ("world", "isekai", kind, seed)
    if kind == "10":
        chosen = sorted(int(place) for place in rng(*stream, "taught").permutation(TAUGHT)[:groups])
        known = concepts.draw(TAUGHT, *TAUGHT_STREAM)[chosen]
        novel = _alike(known, *stream)
        taught = taught_names()
        names = pseudo_words(groups, *stream, avoid=taught)
        pairs = list(zip(names, (taught[place] for place in chosen), strict=True))
    else:
        novel = concepts.draw(groups, *stream)
        known = _alike(novel, *stream)
        names = pseudo_words(2 * groups, *stream, avoid=taught_names())
        pairs = list(zip(names[:groups], names[groups:], strict=True))
    vectors = torch.stack([novel, known], 1).flatten(0, 1)
    flat = [name for pair in pairs for name in pair]
    near = [[other] for first, second in pairs for other in (second, first)]
    dataset = write(out, vectors, flat, near, images, stream, size)
    write_jsonl(_records(pairs, images), out / f"ISEKAI-{kind}.json")  # last: with it the benchmark is complete
    return dataset


def _alike(things: torch.Tensor, *stream: Name) -> torch.Tensor:
    """A look-alike of each concept."""
    for turn in range(ROUNDS):
        things = concepts.neighbours(things, concepts.draw_changes(len(things), *stream, turn))
    return things


def _records(pairs: Sequence[tuple[str, str]], images: int) -> list[dict[str, object]]:
    """One record for each query, fields spelt as published. The queries of a pair's two concepts take turns."""
    return [
        {
            "image_name": f"{label}/{number:04d}.png",
            "positive_list": [f"{positive}/{shown:04d}.png" for shown in range(images // 2)],
            "negative_list": [f"{negative}/{shown:04d}.png" for shown in range(images // 2)],
            "positive_promt": positive,
            "negative_promt": negative,
            "label_name": label,
        }
        for positive, negative in pairs
        for number in range(images // 2, images)
        for label in (positive, negative)
    ]
