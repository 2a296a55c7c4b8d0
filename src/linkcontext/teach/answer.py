"""What a learner answers about a picture."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data.images import Upload
from linkcontext.teach.notebook import answer_html

NAMES_IN_LINE = 3

NONE_OF_THESE = "none of these"  # in place of a name, for a picture unlike everything taught


@dataclass(frozen=True, slots=True, repr=False)
class SimilarPicture:
    """A taught picture that resembles the query picture: its name, its sha256, and their cosine similarity.

    `path` is where its file was when it was taught; None if it was taught without one.
    """

    name: str
    picture: str
    similarity: float
    path: Path | None = field(default=None, compare=False)
    thumbnail: bytes = field(default=b"", repr=False, compare=False)  # PNG

    def __repr__(self) -> str:
        """Without the hash, where there is a path."""
        return f"SimilarPicture({self.name!r}, {str(self.path or self.picture)!r}, {self.similarity:.3f})"


@dataclass(frozen=True, slots=True, repr=False)
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

    def ranked(self, count: int | None = None) -> list[tuple[str, float]]:
        """The most likely names and their probabilities, the likeliest first; all of them by default."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]

    def __repr__(self) -> str:
        """The name, the three most likely names, and the similarity."""
        listed = ", ".join(f"{name!r}: {probability:.3f}" for name, probability in self.ranked(NAMES_IN_LINE))
        more = f", {len(self.probabilities) - NAMES_IN_LINE} more" if len(self.probabilities) > NAMES_IN_LINE else ""
        similarity = "" if self.similarity is None else f", similarity={self.similarity:.3f}"
        taught = ", taught=True" if self.taught else ""
        return f"Answer(name={self.name!r}, probabilities={{{listed}{more}}}{similarity}{taught})"

    def _repr_html_(self) -> str:
        """The picture, the most likely names and the most similar taught pictures, for a notebook."""
        return answer_html(self)

    @property
    def fit(self) -> float | None:
        """The old name of `similarity`, until 0.3."""
        warnings.warn(
            "Answer.fit is now Answer.similarity. The old name will be removed in linkcontext 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.similarity


def answer_line(answer: Answer) -> str:
    """An answer as one line of text: the name, and the probabilities of the three most likely names."""
    if answer.taught:
        return f"{answer.name} (this picture was taught)"
    listed = ", ".join(f"{name} {probability:.0%}" for name, probability in answer.ranked(NAMES_IN_LINE))
    return f"{answer.name} ({listed})" if answer.name else f"{NONE_OF_THESE} ({listed}, if it has to be one)"


def certain(name: str, names: Iterable[str]) -> dict[str, float]:
    """Probability 1 for one of the names."""
    return {other: float(other == name) for other in names}
