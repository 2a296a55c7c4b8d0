"""Heads: small classifiers that name a picture by its image features. scikit-learn fits them in milliseconds.

A head gives every class a score; `temperature` makes probabilities of scores. Both are judged on pictures that are left
out in turn, so that no head is praised for pictures that it was fitted to.
"""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from linkcontext.config import HeadName
from linkcontext.errors import InputError

Features = NDArray[np.float32]  # [pictures, width], of unit length or zeros
Views = NDArray[np.float32]  # [pictures, 1 + views, width]: each picture, and its changed copies
Labels = NDArray[np.int64]  # [pictures]: the place of each picture's name among the names
Scores = NDArray[np.float64]  # [pictures, names]: higher is likelier
Fitted = Callable[[Features], Scores]  # the scores of pictures by a head that was fitted
Head = Callable[[Features, Labels, int], Fitted]  # fits a head to pictures, their labels, and how many names there are

HEAD_NAMES: tuple[HeadName, ...] = get_args(HeadName)

NEIGHBOURS = 3
STRENGTH = 100.0  # of the linear head's weights; features of unit length need large ones
LEAST = 1e-3  # added to shares of neighbours, of which most are 0
LEFT_OUT = 10  # parts that are left out in turn, at most
TEMPERATURES = np.geomspace(1e-5, 1e2, 300)  # features of some encoders have cosines that differ by 1e-4


def centroid(features: Features, labels: Labels, names: int) -> Fitted:
    """The cosine between a picture and the mean of each name's pictures."""
    sums = np.zeros((names, features.shape[1]), np.float32)
    np.add.at(sums, labels, features)
    means = normalize(sums / np.bincount(labels, minlength=names)[:, None])

    def score(queries: Features) -> Scores:
        scores: Scores = (queries @ means.T).astype(np.float64)
        return scores

    return score


def knn(features: Features, labels: Labels, names: int) -> Fitted:
    """The logarithm of each name's share of the three nearest pictures, nearer ones counting more.

    Pictures of a name that has fewer than three count more than once.
    """
    places = _shown_again(labels)
    features, labels = features[places], labels[places]
    count = min(NEIGHBOURS, len(features))
    model = KNeighborsClassifier(count, weights="distance", metric="cosine").fit(features, labels)
    return lambda queries: np.log(_of_all_names(model, model.predict_proba(queries), names) + LEAST)


def linear(features: Features, labels: Labels, names: int) -> Fitted:
    """Log-probabilities of a logistic regression, in which every name counts equally, however many pictures it has."""
    model = LogisticRegression(C=STRENGTH, max_iter=1000, class_weight="balanced").fit(features, labels)
    return lambda queries: _of_all_names(model, model.predict_log_proba(queries), names, np.log(LEAST))


def tabicl(features: Features, labels: Labels, names: int) -> Fitted:
    """Log-probabilities of TabICL (arXiv 2502.05564), a transformer that reads the support as a table.

    Raises `InputError` if the package is missing or its weights cannot be had.
    """
    try:
        from tabicl import TabICLClassifier  # noqa: PLC0415 - optional
    except ImportError as error:
        raise InputError("the head tabicl (--head) needs the tabicl package: pip install tabicl.") from error
    try:
        model = TabICLClassifier().fit(features, labels)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"head tabicl (--head): its weights cannot be loaded from the hub ({error}).") from error
    return lambda queries: np.log(_of_all_names(model, model.predict_proba(queries), names) + LEAST)


HEADS: dict[HeadName, Head] = {"centroid": centroid, "knn": knn, "linear": linear, "tabicl": tabicl}
SIMPLEST_FIRST: tuple[HeadName, ...] = ("centroid", "knn", "linear")


def _of_all_names(model: Any, values: NDArray[Any], names: int, missing: float = 0.0) -> Scores:
    """The columns of the names that a classifier has seen, and `missing` for the others."""
    scores = np.full((len(values), names), missing)
    scores[:, model.classes_] = values
    return scores


def left_out_parts(labels: Labels) -> list[NDArray[np.int64]]:
    """The places of the pictures that are left out together: the first of each name, the second of each, and so on.

    A picture of every name is left out at once, so that what remains is as balanced as the whole. A name with a single
    picture keeps it. Where names have more than `LEFT_OUT` pictures, a part has several of each.
    """
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    ranks = np.empty_like(labels)
    ranks[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    counts = sizes[labels]
    parts = min(LEFT_OUT, int(counts.max(initial=0)))
    split = [np.flatnonzero((ranks % parts == part) & (counts > 1)) for part in range(parts)]
    return [places for places in split if len(places)]


def _shown_again(labels: Labels) -> NDArray[np.int64]:
    """All places, and those of names with fewer pictures than `NEIGHBOURS` again until they are as many: among so many
    neighbours a single picture could never win. No name comes more often than the most frequent one."""
    counts = np.bincount(labels)
    wanted = min(NEIGHBOURS, int(counts.max(initial=0)))
    rare = [np.flatnonzero(labels == label) for label in np.flatnonzero((counts > 0) & (counts < wanted))]
    return np.concatenate([np.arange(len(labels)), *(np.resize(own, wanted)[len(own) :] for own in rare)])


def fit_to_views(head: Head, support: Views, labels: Labels, names: int) -> Fitted:
    """A head that is fitted to pictures and their changed copies."""
    return head(support.reshape(-1, support.shape[-1]), np.repeat(labels, support.shape[1]), names)


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """The places of `count` things or, of more than `most`, of so many at equal distances."""
    places: NDArray[np.int64] = np.linspace(0, max(0, count - 1), min(count, most)).round().astype(np.int64)
    return places


def left_out_scores(
    head: Head, pictures: Views, labels: Labels, names: int, wanted: NDArray[np.int64] | None = None
) -> Scores:
    """The scores of each picture by a head that was fitted without it and its changed copies.

    The only picture of a name has NaN, and so have those whose places are not `wanted` (default: all).
    """
    scores = np.full((len(pictures), names), np.nan)
    for part in left_out_parts(labels):
        places = part if wanted is None else np.intersect1d(part, wanted)
        if len(places):
            rest = np.setdiff1d(np.arange(len(labels)), part)
            scores[places] = fit_to_views(head, pictures[rest], labels[rest], names)(pictures[places, 0])
    return scores


def log_softmax(scores: Scores) -> Scores:
    """Log-probabilities of names, float64[pictures, names]."""
    values: Scores = torch.from_numpy(np.ascontiguousarray(scores)).log_softmax(1).numpy()
    return values


def smoothed_losses(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """float64[temperatures, pictures]: the cross-entropy (nats) against smoothed labels, at each of `TEMPERATURES`.

    Of n right answers the next one is wrong with probability 1 / (n + 2) (Laplace's rule of succession), so that no
    support makes a head certain.
    """
    count, names = scores.shape
    doubt = 1 / (count + 2)
    targets = np.full((count, names), doubt / names)
    targets[np.arange(count), labels] += 1 - doubt
    rows = zip(scores, targets, strict=True)
    return np.stack([-log_softmax(row / TEMPERATURES[:, None]) @ target for row, target in rows], 1)


def best_temperature(losses: NDArray[np.float64]) -> float:
    """The one of `TEMPERATURES` with the least loss, from float64[temperatures, pictures].

    It is what scores have to be divided by, so that their softmax fits how often left-out pictures are named right.
    """
    return float(TEMPERATURES[int(np.argmin(losses.sum(1)))])
