"""Which pictures to show, where there are more than are to be shown."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from linkcontext.inference.image_features import ImageFeatures


def vector(seen: ImageFeatures) -> Tensor:
    """float32[width] of length 1: the tower's own summary of a picture, or the mean of its tokens."""
    return F.normalize((seen.mean if seen.pooled is None else seen.pooled).float(), dim=-1)


def medoids(vectors: Tensor, count: int) -> list[int]:
    """The places of `count` vectors float[n, width] of length 1 that stand for all of them best.

    The first is the medoid, the one most like the others; each further one is that which, beside those before,
    leaves the fewest without one like them (greedy facility location, by cosine). So fewer are the beginning of more.
    """
    alike = vectors @ vectors.T
    covered = torch.full((len(vectors),), -1.0, device=vectors.device)
    chosen: list[int] = []
    while len(chosen) < min(count, len(vectors)):
        gain = torch.maximum(alike, covered).sum(1)  # row i: how well all are stood for if i is taken too
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        covered = torch.maximum(covered, alike[chosen[-1]])
    return chosen


def rices(query: Tensor, vectors: Tensor, count: int) -> list[int]:
    """The places of the `count` of `vectors` float[n, width] most like `query` float[width], the likest last.

    Retrieval of in-context examples by similarity (arXiv 2109.05014), whatever their classes.
    """
    order = (vectors @ query).argsort(descending=True, stable=True)[:count].tolist()
    return order[::-1]


def majority(classes: Sequence[str]) -> str | None:
    """The class of most of the chosen pictures; among equals the one that comes last, where the likest stand."""
    last = {name: place for place, name in enumerate(classes)}
    return max(last, key=lambda name: (classes.count(name), last[name]), default=None)
