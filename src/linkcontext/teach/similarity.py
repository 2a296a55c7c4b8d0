"""How similar a picture is to what was taught: the cosine with the most similar taught picture.

Deciding by the nearest known example whether something is new follows arXiv 2204.06507. Each taught picture is left
out once, which tells how similar pictures of taught names and of other things are, and by which kind of vectors the two
are told apart best.
"""

from collections.abc import Mapping, Sequence

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from linkcontext.evaluation.heads import evenly_spaced

MARGIN = 0.05  # by which the AUROC of another kind of vectors must be better
MOST = 2000  # taught pictures that are left out; of more, evenly spaced ones


def most_similar_rows(rows: Tensor, query: Tensor) -> Tensor:
    """float32[n]: the cosine of a query float32[width] with each picture float32[n, 1 + views, width].

    Of a picture and its changed copies the most similar one counts.
    """
    return (rows @ query).amax(1)


def left_out_similarities(rows: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """float64[pictures] twice: the greatest similarity of each picture to the others, and to those of other names.

    The second is the similarity of a picture whose whole class was left out, as if it had never been taught. `rows` is
    float32[n, 1 + views, width]; of more than `MOST` pictures, evenly spaced ones are left out.
    """
    names = torch.tensor(labels)
    own, others = [], []
    for place in evenly_spaced(len(rows), MOST).tolist():
        similarities = most_similar_rows(rows, rows[place, 0])
        similarities[place] = -1
        own.append(float(similarities.max()))
        others.append(float(similarities[names != names[place]].max()))
    return torch.tensor(own, dtype=torch.double), torch.tensor(others, dtype=torch.double)


def best_similarity_kind(rows_by_kind: Mapping[str, Tensor], labels: Sequence[int]) -> str:
    """The kind of vectors that tells pictures of taught names from those of other classes best, by AUROC.

    The first kind is taken unless another is better by `MARGIN`, since few pictures say little; and with fewer than two
    names, or where a name has a single picture, because then nothing can be left out. Kinds with numbers that are not
    finite are passed over.
    """
    finite = {kind: rows for kind, rows in rows_by_kind.items() if bool(torch.isfinite(rows).all())}
    counts = torch.bincount(torch.tensor(labels)).tolist()
    if len(finite) < 2 or len(counts) < 2 or min(counts) < 2:
        return next(iter(finite or rows_by_kind))

    def auroc(kind: str) -> float:
        own, others = left_out_similarities(finite[kind], labels)
        return float(roc_auc_score([1] * len(own) + [0] * len(others), torch.cat([own, others]).numpy()))

    first, *others = finite
    return max(finite, key=lambda kind: auroc(kind) + (MARGIN if kind == first else 0.0)) if others else first
