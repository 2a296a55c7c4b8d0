"""Pictures as the frozen tower sees them, computed once for the training of the language models.

A pool holds float16[pictures, tokens, width], the pictures of a class one after the other, and where each class begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import augment
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tower import EDGE, Source, normalise, world_batch

from linkcontext.seeds import key
from linkcontext.worlds import concepts, render
from linkcontext.worlds.folder import TAUGHT_STREAM

FRESH = ("mini", "fresh")  # concepts met under a new name every time; no user's seed draws from it
TOGETHER = 256  # pictures encoded at once


@dataclass(frozen=True, slots=True)
class Features:
    """One pool."""

    tokens: Tensor  # float16[pictures, tokens, width]
    begins: Tensor  # int64[classes + 1]
    vectors: Tensor  # float32[classes, concepts.LENGTH] of a world's pool, else float32[0, 0]

    def members(self) -> list[int]:
        """How many pictures each class has."""
        return self.begins.diff().tolist()

    def facts(self) -> tuple[concepts.Facts, ...]:
        """What is true of each concept of a world's pool."""
        return tuple(concepts.facts(concepts.decode(self.vectors))) if len(self.vectors) else ()

    def of(self, cls: int, number: int) -> Tensor:
        """One picture, float16[tokens, width]."""
        return self.tokens[int(self.begins[cls]) + number]


def taught(count: int) -> Tensor:
    """The vectors of the taught concepts."""
    return concepts.draw_concepts(count, *TAUGHT_STREAM)


def fresh(count: int) -> Tensor:
    """Concepts and, in the second half, the hard neighbour of each."""
    things = concepts.draw_concepts(count, *FRESH)
    return torch.cat([things, concepts.neighbours(things, concepts.draw_changes(count, *FRESH))])


def world_pictures(vectors: Tensor, each: int, name: str) -> Iterator[Tensor]:
    """Pictures float32[N, 3, H, W] in 0..1 of every concept, in order."""
    for start in range(0, len(vectors), TOGETHER // each):
        rows = range(start, min(start + TOGETHER // each, len(vectors)))
        instances = torch.cat([render.draw_instances(each, "mini", "pool", name, i) for i in rows])
        drawn = render.render(vectors[start : rows.stop].repeat_interleave(each, 0), instances, EDGE)
        yield drawn.movedim(-1, 1).float() / 255


def real_pictures(source: Source, each: int) -> Iterator[Tensor]:
    """Views of the pictures of every class, at most `each` of a class and, of single pictures, four views."""
    scenery, _ = world_batch(256, -2, 0)
    for cls, members in enumerate(source.members):
        generator = torch.Generator().manual_seed(key("mini", "real", source.name, cls) % 2**63)
        rng = np.random.default_rng(key("mini", "real", source.name, cls, "rows"))
        rows = rng.permutation(members)[:each] if len(members) > 4 else np.resize(members, min(each, 8))
        pictures = source.read(rows)
        classes = torch.zeros(len(pictures), dtype=torch.long)
        pictures = augment.identity(pictures, classes, generator)
        yield augment.views(pictures, classes, scenery, generator, strength=0.6)


@torch.inference_mode()
def build(vision: nn.Module, pictures: Iterator[Tensor], sizes: list[int], vectors: Tensor, path: Path) -> Features:
    """Encode a stream of pictures; `path` keeps the result, and is read where it is there."""
    if path.is_file():
        return Features(**load_file(path))
    rows = []
    for batch in _together(pictures):
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(vision(pixel_values=normalise(batch)).last_hidden_state.half())
    begins = torch.tensor([0, *np.cumsum(sizes).tolist()])
    pool = {"tokens": torch.cat(rows), "begins": begins, "vectors": vectors.contiguous()}
    assert int(begins[-1]) == len(pool["tokens"])
    beside = path.with_name(f".{path.name}.part")
    save_file(pool, beside)
    beside.replace(path)
    return Features(**pool)


def _together(pictures: Iterator[Tensor]) -> Iterator[Tensor]:
    held: list[Tensor] = []
    for batch in pictures:
        held.append(batch)
        if sum(map(len, held)) >= TOGETHER:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)
