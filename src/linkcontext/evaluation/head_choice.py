"""Which head names pictures, chosen by leaving taught pictures out in turn.

Every candidate gives probabilities for the pictures that are left out; the one with the least cross-entropy is taken,
and of equals the simplest. How often that is right is counted with the choice inside: the kind of features, the head
and its temperatures are chosen again without the pictures that are counted.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from linkcontext.config import HeadName
from linkcontext.errors import InputError
from linkcontext.evaluation.heads import (
    HEADS,
    SIMPLEST_FIRST,
    Labels,
    Scores,
    Views,
    best_temperature,
    centroid,
    evenly_spaced,
    left_out_scores,
    log_softmax,
    smoothed_losses,
)

log = logging.getLogger("linkcontext")

MIXED: tuple[HeadName, ...] = ("lm", "centroid", "knn", "linear")  # the parts of `mix`
TIE = 0.01  # nats: heads whose mean cross-entropy differs by less are equals
PARTS = 20  # of the pictures, each counted by the choice of the others
MOST = 1000  # pictures that are left out; of more, evenly spaced ones
MOST_TO_FIT = 200_000  # pictures x names, above which "auto" fits no logistic regression
UNKNOWN_TEMPERATURE = 0.1  # of a feature head where no picture can be left out


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The head that names pictures.

    `features` is the kind of image features that it reads (of `picture_vectors.KINDS`), "" for the language model
    alone. `temperatures` are those of its parts and, for a mixture, of the whole. Of `pictures` that were left out in
    turn, `right` got their name; both are 0 where none could be left out.
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
    "pairs": "the language model, which compares them with each taught picture (pairs)",
    "centroid": "the nearest class mean (centroid)",
    "knn": "the nearest pictures (knn)",
    "linear": "a logistic regression on image features (linear)",
    "tabicl": "TabICL on image features (tabicl)",
    "mix": "the language model and classifiers on image features together (mix)",
}


def choose_head(
    wanted: HeadName,
    kinds: Mapping[str, Views],
    labels: Labels,
    names: int,
    language_model: Callable[[], Scores] | None,
) -> HeadChoice:
    """The head `wanted`, with its temperatures; "auto" is the best on pictures that are left out.

    Args:
        wanted: A head, or "auto".
        kinds: Features of the taught pictures of each kind; empty where a model shows none.
        labels: The place of each picture's name among the names.
        names: How many names there are.
        language_model: Computes the language model's scores of each picture by a support without it, with NaN where a
            picture is not left out; for the head "pairs", its scores by the other pictures. It is called only if they
            are needed. None for a model without log-probabilities.

    Raises:
        InputError: A head on image features is wanted, and there are none.
    """
    if wanted == "lm" or (wanted == "auto" and not kinds):
        return HeadChoice("lm")
    _refuse_impossible(wanted, bool(kinds), language_model is not None)
    if wanted == "pairs" and language_model is not None:
        return _calibrated_choice("pairs", language_model(), labels)
    model_scores = language_model() if wanted in ("auto", "mix") and language_model is not None else None
    left_out = np.bincount(labels, minlength=names)[labels] > 1
    if model_scores is not None:
        by_model = left_out & np.isfinite(model_scores).all(1)
        # A support with one picture of each name has none to leave out: then the heads on features are judged alone.
        left_out, model_scores = (by_model, model_scores) if by_model.any() or wanted == "mix" else (left_out, None)
    places = np.flatnonzero(left_out)
    places = places[evenly_spaced(len(places), MOST)]
    if not len(places):
        temperatures: dict[HeadName, float] = dict.fromkeys(HEADS, UNKNOWN_TEMPERATURE)
        return HeadChoice("lm") if wanted == "auto" else HeadChoice(wanted, next(iter(kinds)), temperatures)
    heads = _compared(wanted, len(labels), names)
    by_kind = {kind: _judge_all(heads, rows, labels, names, model_scores, places) for kind, rows in kinds.items()}

    def chosen_without(part: NDArray[np.int64]) -> HeadChoice:
        kind = _best_kind(kinds, labels, names, np.setdiff1d(np.arange(len(labels)), places[part]), places)
        return _chosen(wanted, kind, by_kind[kind], np.setdiff1d(np.arange(len(places)), part))

    return _counted(chosen_without, by_kind, labels[places])


def _counted(
    chosen_without: Callable[[NDArray[np.int64]], HeadChoice],
    by_kind: Mapping[str, Mapping[HeadName, "_Judged"]],
    labels: Labels,
) -> HeadChoice:
    """The choice by all pictures that were left out, with how many of them the choice of the others names right."""
    choice, count, right = chosen_without(np.arange(0)), len(labels), 0
    parts = min(PARTS, count) if count < MOST else 2  # many are as good as all
    for part in (np.arange(start, count, parts) for start in range(parts)):
        others = chosen_without(part) if count > 1 else choice
        judged = by_kind[others.features]
        answers = others.log_probabilities({head: judged[head].scores[part] for head in others.parts}).argmax(1)
        right += int((answers == labels[part]).sum())
    return replace(choice, right=right, pictures=count)


def _refuse_impossible(wanted: HeadName, has_features: bool, has_log_probabilities: bool) -> None:
    """Raise `InputError` for a head that the model cannot have."""
    if wanted in ("pairs", "mix") and not has_log_probabilities:
        raise InputError(f"head {wanted} (--head): needs a model that gives log-probabilities. Use another head.")
    if wanted != "pairs" and not has_features:
        raise InputError(
            f"head {wanted} (--head): this model shows no image features. Use the head lm, or give an encoder."
        )


def _calibrated_choice(head: HeadName, scores: Scores, labels: Labels) -> HeadChoice:
    """A head without alternatives, with the temperature that fits its scores of the pictures that were left out."""
    places = np.flatnonzero(np.isfinite(scores).all(1))
    if not len(places):
        return HeadChoice(head)
    temperature = _Judged.of(scores[places], labels[places]).temperature(np.arange(len(places)))
    right = int((scores[places].argmax(1) == labels[places]).sum())
    return HeadChoice(head, temperatures={head: temperature}, right=right, pictures=len(places))


@dataclass(frozen=True, slots=True)
class _Judged:
    """A head's scores of the pictures that were left out, and its losses at every temperature of `TEMPERATURES`."""

    scores: Scores
    labels: Labels
    losses: NDArray[np.float64]  # [temperatures, pictures]

    @classmethod
    def of(cls, scores: Scores, labels: Labels) -> "_Judged":
        """From its scores."""
        return cls(scores, labels, smoothed_losses(scores, labels))

    def temperature(self, among: NDArray[np.int64]) -> float:
        """The temperature that fits some of the pictures best."""
        return best_temperature(self.losses[:, among])

    def log_probabilities(self, among: NDArray[np.int64]) -> Scores:
        """Those of some pictures, at the temperature that fits them best."""
        return log_softmax(self.scores[among] / self.temperature(among))


def _compared(wanted: HeadName, pictures: int, names: int) -> tuple[HeadName, ...]:
    """The heads on image features that are judged for what is wanted."""
    if wanted not in ("auto", "mix"):
        return (wanted,)
    if wanted == "mix" or pictures * names <= MOST_TO_FIT:
        return SIMPLEST_FIRST
    log.warning(
        "The heads linear and mix are not tried: a logistic regression on %s pictures of %s names takes too long. "
        "--head linear fits one all the same.",
        f"{pictures:,}",
        f"{names:,}",
    )
    return tuple(head for head in SIMPLEST_FIRST if head != "linear")


def _judge_all(
    heads: Sequence[HeadName],
    rows: Views,
    labels: Labels,
    names: int,
    model_scores: Scores | None,
    places: NDArray[np.int64],
) -> dict[HeadName, _Judged]:
    """The heads that a choice compares, on the pictures at `places`, by features of one kind."""
    scores = {head: left_out_scores(HEADS[head], rows, labels, names, places) for head in heads}
    if model_scores is not None:
        scores["lm"] = model_scores
    return {head: _Judged.of(values[places], labels[places]) for head, values in scores.items()}


def _best_kind(
    kinds: Mapping[str, Views], labels: Labels, names: int, among: NDArray[np.int64], places: NDArray[np.int64]
) -> str:
    """The kind of features whose class means name the pictures at `places` best, of those `among` which they are."""

    def loss(kind: str) -> float:
        scores = left_out_scores(
            centroid, kinds[kind][among], labels[among], names, np.flatnonzero(np.isin(among, places))
        )
        counted = np.flatnonzero(np.isfinite(scores).all(1))
        if not len(counted):
            return 0.0
        judged = _Judged.of(scores[counted], labels[among[counted]])
        return float(_losses(judged, np.arange(len(counted))).mean())

    return min(kinds, key=loss) if len(kinds) > 1 else next(iter(kinds))


def _chosen(wanted: HeadName, kind: str, judged: Mapping[HeadName, _Judged], among: NDArray[np.int64]) -> HeadChoice:
    """The head and its temperatures that fit some of the pictures best."""
    known = dict(judged)
    if known.keys() >= set(MIXED):
        together = np.zeros_like(known["lm"].scores)
        together[among] = np.mean([known[part].log_probabilities(among) for part in MIXED], axis=0)
        known["mix"] = _Judged.of(together, known["lm"].labels)
    candidates = {head: known[head] for head in (known if wanted == "auto" else [wanted])}
    best = [*candidates][_simplest_of_best([float(_losses(one, among).mean()) for one in candidates.values()])]
    return HeadChoice(best, kind, {head: one.temperature(among) for head, one in known.items()})


def _losses(judged: _Judged, among: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[pictures]: the cross-entropy of each, in nats."""
    return -judged.log_probabilities(among)[np.arange(len(among)), judged.labels[among]]


def _simplest_of_best(losses: Sequence[float]) -> int:
    """The first of the heads whose mean loss is the least or as good as it."""
    return next(place for place, loss in enumerate(losses) if loss <= min(losses) + TIE)
