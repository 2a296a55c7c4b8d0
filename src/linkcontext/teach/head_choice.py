"""Which head names pictures, chosen by leaving taught pictures out in turn.

Every candidate gives probabilities for the pictures that are left out; the one with the least cross-entropy is taken,
and of equals the simplest. How often that is right is counted with the choice inside: for each picture, the head is
chosen by the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from linkcontext.config import HeadName
from linkcontext.errors import InputError
from linkcontext.teach.heads import (
    HEADS,
    SIMPLEST_FIRST,
    Features,
    Labels,
    Scores,
    left_out_scores,
    log_softmax,
    temperature,
)

MIXED: tuple[HeadName, ...] = ("lm", "centroid", "knn", "linear")  # the parts of `mix`
TIE = 0.01  # nats: heads whose mean cross-entropy differs by less are equals
UNKNOWN_TEMPERATURE = 0.1  # of a feature head where no picture can be left out


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The head that names pictures.

    `features` is the kind of image features that it reads ("tokens": the mean of a picture's tokens as the language
    model gets them; "pooled": the vision encoder's own summary), "" for the language model alone. `temperatures` are
    those of its parts and, for a mixture, of the whole. Of `pictures` that were left out in turn, `right` got their
    name; both are 0 where none could be left out.
    """

    head: HeadName
    features: str = ""
    temperatures: Mapping[HeadName, float] = field(default_factory=dict)
    right: int = 0
    pictures: int = 0

    @property
    def parts(self) -> tuple[HeadName, ...]:
        """The heads whose scores it needs."""
        return MIXED if self.head == "mix" else (self.head,)

    def log_probabilities(self, scores: Mapping[HeadName, Scores]) -> Scores:
        """float64[pictures, names]: from the scores of each part."""
        known = self.temperatures
        parts = [log_softmax(scores[part] / known.get(part, 1.0)) for part in self.parts]
        mean: Scores = np.mean(parts, axis=0)
        return mean if len(parts) == 1 else log_softmax(mean / known.get("mix", 1.0))

    def describe(self) -> str:
        """A sentence for users."""
        how = DESCRIPTIONS[self.head]
        if not self.pictures:
            return f"Pictures are named by {how}."
        return (
            f"Pictures are named by {how}: with pictures left out in turn, it names {self.right} of {self.pictures} "
            "right."
        )


DESCRIPTIONS: dict[HeadName, str] = {
    "lm": "the language model, which sees the taught pictures (lm)",
    "centroid": "the nearest class mean (centroid)",
    "knn": "the nearest pictures (knn)",
    "linear": "a logistic regression on image features (linear)",
    "tabicl": "TabICL on image features (tabicl)",
    "mix": "the language model and classifiers on image features together (mix)",
}


def choose_head(
    wanted: HeadName,
    kinds: Mapping[str, Features],
    labels: Labels,
    names: int,
    language_model: Callable[[], Scores],
) -> HeadChoice:
    """The head `wanted`, with its temperatures; "auto" is the best on pictures that are left out.

    Args:
        wanted: A head, or "auto".
        kinds: Features of the taught pictures of each kind; empty where a model shows none.
        labels: The place of each picture's name among the names.
        names: How many names there are.
        language_model: Computes the language model's scores of each picture by a support without it, with NaN where a
            picture is not left out. It is called only if they are needed.

    Raises:
        InputError: A head on image features is wanted, and there are none.
    """
    if wanted == "lm" or (wanted == "auto" and not kinds):
        return HeadChoice("lm")
    if not kinds:
        raise InputError(f"--head {wanted}: this model shows no image features. Use --head lm.")
    scores = language_model() if wanted in ("auto", "mix") else np.zeros((len(labels), names))
    left_out = (np.bincount(labels, minlength=names)[labels] > 1) & np.isfinite(scores).all(1)
    places = np.flatnonzero(left_out)
    if wanted == "auto" and not len(places):
        return HeadChoice("lm")
    if not len(places):
        return HeadChoice(wanted, next(iter(kinds)), dict.fromkeys(HEADS, UNKNOWN_TEMPERATURE))

    def judge(head: HeadName, kind: str) -> _Judged:
        return _Judged.of(left_out_scores(HEADS[head], kinds[kind], labels, names)[places], labels[places])

    kind = min(kinds, key=lambda each: judge("centroid", each).losses.mean())
    judged: dict[HeadName, _Judged] = {}
    if wanted in ("auto", "mix"):
        judged |= {head: judge(head, kind) for head in SIMPLEST_FIRST}
        judged["lm"] = _Judged.of(scores[places], labels[places])
        together = np.mean([judged[part].log_probabilities for part in MIXED], axis=0)
        judged["mix"] = _Judged.of(together, labels[places])
    else:
        judged[wanted] = judge(wanted, kind)
    candidates = judged if wanted == "auto" else {wanted: judged[wanted]}
    losses = np.stack([one.losses for one in candidates.values()])  # [heads, pictures]
    best = [*candidates][int(_simplest_of_best(losses.mean(1)))]
    temperatures = {head: one.temperature for head, one in judged.items()}
    return HeadChoice(best, kind, temperatures, _right(list(candidates.values()), losses), len(places))


@dataclass(frozen=True, slots=True)
class _Judged:
    """A head on the pictures that were left out."""

    temperature: float
    log_probabilities: Scores
    labels: Labels

    @classmethod
    def of(cls, scores: Scores, labels: Labels) -> "_Judged":
        """From its scores."""
        value = temperature(scores, labels)
        return cls(value, log_softmax(scores / value), labels)

    @property
    def losses(self) -> NDArray[np.float64]:
        """float64[pictures]: the cross-entropy of each, in nats."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]


def _simplest_of_best(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first of the heads, which are on the first axis, whose mean loss is the least or as good as it."""
    best: NDArray[np.int64] = (losses <= losses.min(0) + TIE).argmax(0)
    return best


def _right(candidates: Sequence[_Judged], losses: NDArray[np.float64]) -> int:
    """How many pictures are named right by the head that is best on the others."""
    others = max(1, losses.shape[1] - 1)
    chosen = _simplest_of_best((losses.sum(1, keepdims=True) - losses) / others)
    names = np.stack([one.log_probabilities.argmax(1) for one in candidates])
    return int((names[chosen, np.arange(losses.shape[1])] == candidates[0].labels).sum())
