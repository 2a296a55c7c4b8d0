"""The baseline without language: the class nearest to the query in the model's own vision features."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest(query: Tensor, supports: list[Tensor], classes: list[str]) -> tuple[str | None, str | None]:
    """The class of the nearest centroid and that of the nearest support picture, by cosine; None without a support.

    `query` and each of `supports` are float[width]; `classes` has the class id of each support picture.
    """
    if not supports:
        return None, None
    query, known = F.normalize(query, dim=-1), F.normalize(torch.stack(supports), dim=-1)
    names = sorted(set(classes))
    centroids = torch.stack([known[[c == name for c in classes]].mean(0) for name in names])
    centroid = names[int((F.normalize(centroids, dim=-1) @ query).argmax())]
    return centroid, classes[int((known @ query).argmax())]
