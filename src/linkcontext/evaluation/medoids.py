"""Choose the support pictures to show from a larger pool: medoids of a class, or neighbours of the query (RICES)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from linkcontext.inference.image_features import ImageFeatures


def vector(seen: ImageFeatures) -> Tensor:
    """The unit feature vector of a picture, float32[width]: its pooled feature, or else the mean of its tokens."""
    return F.normalize((seen.mean if seen.pooled is None else seen.pooled).float(), dim=-1)


def medoids(vectors: Tensor, count: int) -> list[int]:
    """The indices of the `count` most representative rows of `vectors`, float[n, width] of unit length.

    Greedy facility location by cosine similarity: the first is the medoid, which is most similar to all others, and
    each further one adds most to the summed similarity between the rows and their nearest chosen row. A smaller count
    gives a prefix of a larger one.
    """
    alike = vectors @ vectors.T
    covered = torch.full((len(vectors),), -1.0, device=vectors.device)
    chosen: list[int] = []
    while len(chosen) < min(count, len(vectors)):
        gain = torch.maximum(alike, covered).sum(1)  # entry i: the summed similarity if row i is chosen too
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        covered = torch.maximum(covered, alike[chosen[-1]])
    return chosen


def rices(query: Tensor, vectors: Tensor, count: int) -> list[int]:
    """The indices of the `count` rows of `vectors` float[n, width] most similar to `query` float[width], ascending.

    RICES (arXiv 2109.05014) retrieves in-context examples by similarity, whatever their classes.
    """
    order = (vectors @ query).argsort(descending=True, stable=True)[:count].tolist()
    return order[::-1]


def majority(classes: Sequence[str]) -> str | None:
    """The most frequent class; a tie goes to the class that comes last, where the most similar pictures are."""
    last = {name: place for place, name in enumerate(classes)}
    return max(last, key=lambda name: (classes.count(name), last[name]), default=None)
