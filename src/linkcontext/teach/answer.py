"""What a learner answers about a picture."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data.images import Upload

NAMES_IN_LINE = 3

NONE_OF_THESE = "none of these"  # in place of a name, for a picture unlike everything taught


@dataclass(frozen=True, slots=True)
class SimilarPicture:
    """A taught picture that resembles the query picture: its name, its sha256, and their cosine similarity."""

    name: str
    picture: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The most likely name of a picture, and the probability of every taught name.

    `similarity` is the cosine between the picture and the nearest class mean, in the vision encoder's features. `name`
    is None ("none of these") if it is below the learner's `RejectionThreshold`. `similarity` is None and `nearest` is
    empty for models on the reference engine, which computes no features. `taught` is True if the picture itself was
    taught: it then gets the name it was taught under with probability 1, and the model is not run. `picture` is the
    path of the picture, or a thumbnail of one that was given without a file.
    """

    name: str | None
    probabilities: dict[str, float]
    similarity: float | None = None
    nearest: tuple[SimilarPicture, ...] = ()
    taught: bool = False
    picture: Path | Upload | None = field(default=None, repr=False, compare=False)

    @property
    def fit(self) -> float | None:
        """The old name of `similarity`, until 0.3."""
        warnings.warn(
            "Answer.fit is now Answer.similarity. The old name leaves in linkcontext 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.similarity


def answer_line(answer: Answer) -> str:
    """An answer as one line of text: the name, and the probabilities of the three most likely names."""
    if answer.taught:
        return f"{answer.name} (this picture was taught)"
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:NAMES_IN_LINE]
    listed = ", ".join(f"{name} {probability:.0%}" for name, probability in ranked)
    return f"{answer.name} ({listed})" if answer.name else f"{NONE_OF_THESE} ({listed}, if it has to be one)"


def certain(name: str, names: Iterable[str]) -> dict[str, float]:
    """Probability 1 for one of the names."""
    return {other: float(other == name) for other in names}
