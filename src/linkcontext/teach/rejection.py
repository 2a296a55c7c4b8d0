""" "None of these": when a picture is so unlike everything taught that it gets no name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from linkcontext.errors import InputError, first_few
from linkcontext.evaluation.picture_vectors import PictureVectors, rows_of_kind
from linkcontext.teach.answer import SimilarPicture
from linkcontext.teach.similarity import MOST, left_out_similarities, most_similar_rows
from linkcontext.teach.taught_pictures import TaughtPictures

ACCEPT = 0.95  # share of pictures of taught names that must be accepted, unless the user chooses another
CHOICES = (0.8, 0.9, 0.95, 0.99)  # of it, that users are told about
MIN_PICTURES = 20  # with fewer, one rejected picture is more than 5 %
NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class RejectionThreshold:
    """The similarity below which a picture is "none of these", and how well it does on the taught pictures.

    Each picture was left out once. `recall` is the share of the `pictures` at or above the threshold when only the
    picture itself was left out; `rejection_rate` is the share below it when its whole class was left out, as if the
    class had never been taught.
    """

    similarity: float
    recall: float
    rejection_rate: float
    pictures: int

    def accepts(self, similarity: float) -> bool:
        """Whether a picture of this similarity gets a name."""
        return similarity >= self.similarity


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a threshold is chosen for: to accept a share of pictures of taught names, or to reject a share of others.

    `accept` is used unless `reject` is given. Raises `InputError` for shares that are not between 0 and 1.
    """

    accept: float = ACCEPT
    reject: float | None = None

    def __post_init__(self) -> None:
        for name, share in (("accept", self.accept), ("reject", self.reject)):
            if share is not None and not 0 < share <= 1:
                raise InputError(f"{name} {share:g} (--{name}): must be a share between 0 and 1, for example 0.95.")

    def choose(self, curve: Sequence[RejectionThreshold]) -> RejectionThreshold:
        """The threshold of a curve that serves this best.

        With `reject`, the lowest that rejects at least this share; else the highest that accepts at least that share.
        """
        if self.reject is not None:
            return next(point for point in curve if point.rejection_rate >= self.reject)
        return [point for point in curve if point.recall >= self.accept][-1]


def describe_rejection(threshold: RejectionThreshold | None, taught: Mapping[str, Sequence[str]]) -> str:
    """The sentence that tells users when "none of these" is answered, and how often that is right.

    `taught` are the taught pictures by name, which say what is missing where there is no threshold.
    """
    if threshold is None:
        return f'Never answers "none of these": {_what_is_missing(taught)}.'
    count = threshold.pictures
    pictures = f"each of the {count}" if count <= MOST else f"{MOST:,} of the {count:,}"
    return (
        f'Answers "none of these" below similarity {threshold.similarity:.4f}. With {pictures} '
        f"pictures left out in turn, this accepts {threshold.recall:.0%} of pictures of taught classes and rejects "
        f"{threshold.rejection_rate:.0%} of pictures of other classes."
    )


def _what_is_missing(taught: Mapping[str, Sequence[str]]) -> str:
    single, count = [name for name, own in taught.items() if len(own) == 1], sum(map(len, taught.values()))
    if single:
        return f"that needs two pictures of each name, and there is one of {first_few(single)}. Teach it another one"
    if count < MIN_PICTURES:
        return f"that needs at least {MIN_PICTURES} pictures, and {count} are taught"
    return "that needs two names, and a model whose image features are available"


def describe_choices(curve: Sequence[RejectionThreshold]) -> str:
    """A sentence with what other choices of --accept would reject; "" without a curve."""
    if not curve:
        return ""
    rejected = ", ".join(
        f"--accept {a:g} rejects {OperatingPoint(a).choose(curve).rejection_rate:.0%}" for a in CHOICES
    )
    return f"Another choice changes how many pictures of other classes are rejected: {rejected}."


def nearest_pictures(pictures: TaughtPictures, query: PictureVectors) -> tuple[float, tuple[SimilarPicture, ...]]:
    """The cosine between a query's vectors and the most similar taught picture, and the most similar pictures."""
    kind, ids = pictures.similarity_kind, pictures.ids
    similarities = most_similar_rows(pictures.rows(kind), rows_of_kind(query, kind)[0])
    most = similarities.topk(min(NEIGHBOURS, len(ids)))
    names = [name for name, own in pictures.by_name.items() for _ in own]
    places = zip(most.indices.tolist(), most.values.tolist(), strict=True)
    files = {picture: path for picture, path in pictures.paths.items() if isinstance(path, Path)}
    small = pictures.thumbnails
    nearest = tuple(
        SimilarPicture(names[place], ids[place], value, files.get(ids[place]), small.get(ids[place], b""))
        for place, value in places
    )
    return nearest[0].similarity, nearest


def rejection_curve(pictures: TaughtPictures) -> list[RejectionThreshold]:
    """Every threshold that makes a difference on the taught pictures, each left out in turn; ascending.

    Empty with fewer than 20 pictures, a single name, a name with a single picture, or without vectors.
    """
    counts = [len(own) for own in pictures.by_name.values()]
    if not pictures.kinds or len(counts) < 2 or sum(counts) < MIN_PICTURES or min(counts) < 2:
        return []
    return curve_of(*left_out_similarities(pictures.rows(pictures.similarity_kind), pictures.labels), sum(counts))


def curve_of(own: Tensor, others: Tensor, pictures: int) -> list[RejectionThreshold]:
    """The thresholds between the similarities of pictures of taught names and of others, float64[n] each."""
    levels = torch.unique(torch.cat([own, others]))
    beyond = levels[-1:] + 1e-6  # nothing that was left out reaches it
    thresholds = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2, beyond])  # halfway, so that none is at one
    recalls = 1 - torch.searchsorted(own.sort().values, thresholds).double() / len(own)
    rejected = torch.searchsorted(others.sort().values, thresholds).double() / len(others)
    values = zip(thresholds.tolist(), recalls.tolist(), rejected.tolist(), strict=True)
    return [RejectionThreshold(*value, pictures) for value in values]
