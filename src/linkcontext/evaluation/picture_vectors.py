"""Vectors of pictures, which heads and similarities compare.

They are made by the model's own vision tower, by another encoder, or by both.

`KINDS` are "tokens" (the mean of a picture's tokens, as the language model gets them), "pooled" (the vision tower's own
summary), "encoder" (the vector of another encoder), and "tokens+encoder" (both, side by side).
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from linkcontext.inference.image_features import ImageFeatures

KINDS = ("tokens", "pooled", "encoder", "tokens+encoder")
PictureVectors = Mapping[str, Tensor]  # kind -> float32[1 + views, width] on the CPU: a picture, and its changed copies


def unit_rows(rows: Tensor) -> Tensor:
    """Rows float[..., width] of unit length. One of zeros stays as it is: its cosine with anything is 0."""
    lengths = rows.norm(dim=-1, keepdim=True)
    return rows / torch.where(lengths == 0, 1, lengths)


def own_vectors(views: Sequence[ImageFeatures]) -> dict[str, Tensor]:
    """The vectors of a picture and its changed copies, from the model's own features of them."""
    vectors = {"tokens": torch.stack([view.mean.float().cpu() for view in views])}
    pooled = [view.pooled.float().cpu() for view in views if view.pooled is not None]
    if len(pooled) == len(views):
        vectors["pooled"] = torch.stack(pooled)
    return {kind: unit_rows(rows) for kind, rows in vectors.items()}


def kinds_of(vectors: Iterable[PictureVectors]) -> tuple[str, ...]:
    """The kinds that all of some pictures have; none without pictures."""
    every = list(vectors)
    stored = [kind for kind in KINDS if every and all(kind in one for one in every)]
    return tuple(kind for kind in KINDS if set(kind.split("+")) <= set(stored))


def rows_of_kind(vectors: PictureVectors, kind: str) -> Tensor:
    """float32[1 + views, width]: the vectors of one kind, of unit length."""
    parts = [vectors[part] for part in kind.split("+")]
    return parts[0] if len(parts) == 1 else unit_rows(torch.cat(parts, -1))
