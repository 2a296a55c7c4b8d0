""" "None of these": when a picture is so unlike everything taught that it gets no name."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from linkcontext.teach.answer import SimilarPicture
from linkcontext.teach.taught_pictures import TaughtPictures

RECALL = 0.95  # share of pictures of taught names that must be accepted
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


def describe_rejection(threshold: RejectionThreshold | None) -> str:
    """The sentence that tells users when "none of these" is answered, and how often that is right."""
    if threshold is None:
        return (
            'Never answers "none of these": that needs at least 20 pictures, at least two per name, and a model whose '
            "image features are available."
        )
    return (
        f'Answers "none of these" below similarity {threshold.similarity:.3f}. With each of the {threshold.pictures} '
        f"pictures left out in turn, this accepts {threshold.recall:.0%} of pictures of taught classes and rejects "
        f"{threshold.rejection_rate:.0%} of pictures of other classes."
    )


def nearest_pictures(pictures: TaughtPictures, query: Tensor) -> tuple[float, tuple[SimilarPicture, ...]]:
    """The cosine between a query float32[width] and the nearest class mean, and the most similar pictures."""
    pairs = [(name, picture) for name, own in pictures.by_name.items() for picture in own]
    vectors = pictures.vectors([picture for _, picture in pairs])
    names = [name for name, _ in pairs]
    means = [vectors[[other == name for other in names]].mean(0) for name in pictures.by_name]
    similarity = float((F.normalize(torch.stack(means), dim=-1) @ query).max())
    most = (vectors @ query).topk(min(NEIGHBOURS, len(pairs)))
    places = zip(most.indices.tolist(), most.values.tolist(), strict=True)
    return similarity, tuple(SimilarPicture(names[place], pairs[place][1], value) for place, value in places)


def leave_one_out_threshold(pictures: TaughtPictures) -> RejectionThreshold | None:
    """The highest threshold that accepts 95 % of the taught pictures, each left out in turn.

    None with fewer than 20 pictures, a single name, a name with a single picture, or without features.
    """
    by_name = pictures.by_name
    counts = [len(own) for own in by_name.values()]
    if not pictures.features or len(counts) < 2 or sum(counts) < MIN_PICTURES or min(counts) < 2:
        return None
    own, others = _left_out_similarities(pictures)
    levels = torch.unique(torch.cat([own, others]))
    thresholds = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2])  # halfway, so that no picture is at one
    recalls = (own[None] >= thresholds[:, None]).double().mean(1)
    best = int((recalls >= RECALL).nonzero().max())
    rejection_rate = float((others < thresholds[best]).double().mean())
    return RejectionThreshold(float(thresholds[best]), float(recalls[best]), rejection_rate, sum(counts))


def _left_out_similarities(pictures: TaughtPictures) -> tuple[Tensor, Tensor]:
    """float64[n] twice: the similarity of each picture, left out itself, and left out with its whole class."""
    sums = {name: pictures.vectors(own).sum(0) for name, own in pictures.by_name.items()}
    means = {name: F.normalize(total, dim=-1) for name, total in sums.items()}
    own, others = [], []
    for name, ids in pictures.by_name.items():
        for vector in pictures.vectors(ids):
            remaining = F.normalize(sums[name] - vector, dim=-1)
            other = max(float(mean @ vector) for its, mean in means.items() if its != name)
            own.append(max(float(remaining @ vector), other))
            others.append(other)
    return torch.tensor(own, dtype=torch.double), torch.tensor(others, dtype=torch.double)
