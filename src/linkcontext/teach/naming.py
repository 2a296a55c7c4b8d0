"""Probabilities of the taught names for a picture: by the language model, by a head on image features, or by both."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from linkcontext.config import HeadName
from linkcontext.errors import InputError
from linkcontext.evaluation.head_choice import HeadChoice, choose_head
from linkcontext.evaluation.heads import (
    HEADS,
    LEFT_OUT,
    Fitted,
    Labels,
    Scores,
    Views,
    evenly_spaced,
    fit_to_views,
    left_out_parts,
)
from linkcontext.evaluation.name_scores import (
    is_balanced,
    left_out_log_probabilities,
    name_log_probabilities,
    without_name_bias,
)
from linkcontext.evaluation.pairs import left_out_pair_scores, pair_scores
from linkcontext.evaluation.picture_vectors import PictureVectors, rows_of_kind
from linkcontext.progress import progress
from linkcontext.records import Turn
from linkcontext.teach.support import Support, retrieves, shown_pictures
from linkcontext.teach.taught_pictures import TaughtPictures

MOST_ASKED = 200  # taught pictures that the language model names by a support of their own, to judge its head
UNSHOWN = 0.01  # probability of all names together of which no picture is shown

if TYPE_CHECKING:
    from linkcontext.teach.learner import Learner


def views_by_kind(pictures: TaughtPictures) -> dict[str, Views]:
    """The vectors of taught pictures that heads are fitted to, by kind.

    Raises `InputError` if some hold NaN or infinity.
    """
    kinds: dict[str, Views] = {kind: pictures.rows(kind).numpy() for kind in pictures.kinds}
    if not all(np.isfinite(rows).all() for rows in kinds.values()):
        raise InputError(
            "the model's image features of a picture are not finite numbers, so that no classifier can read them. "
            "Load the model in float32 (--dtype float32), or use the head lm (--head lm)."
        )
    return kinds


def labels_of(pictures: TaughtPictures) -> Labels:
    """For each taught picture the place of its name."""
    return np.array(pictures.labels)


def chosen_head(learner: "Learner") -> HeadChoice:
    """The head of a learner, chosen by its taught pictures. Raises `InputError` for one that its model cannot have."""
    pictures, labels = learner.pictures, labels_of(learner.pictures)

    def language_model() -> Scores:
        if learner.head == "pairs":
            pictures.register(learner.model)
            with progress("Comparing pictures", min(LEFT_OUT, len(labels))) as advance:
                return left_out_pair_scores(learner.model, pictures.ids, labels, len(pictures.names), advance)
        return left_out_by_model(learner)

    can_score = not learner.model.lacks("log-probabilities")
    views = views_by_kind(pictures) if learner.head != "pairs" else {}
    return choose_head(learner.head, views, labels, len(pictures.names), language_model if can_score else None)


def probabilities_of_names(
    learner: "Learner", queries: Sequence[Turn], vectors: Sequence[PictureVectors]
) -> list[list[float]]:
    """The probability of each taught name for each picture, by the learner's head.

    `vectors` are those of the pictures; none are needed where the head reads none.
    """
    choice, pictures = learner.choose_head(), learner.pictures
    labels, names, items = labels_of(pictures), len(pictures.names), [query.item for query in queries]
    scores: dict[HeadName, Scores] = {}
    if on_features := [part for part in choice.parts if part in HEADS]:
        rows = np.concatenate([rows_of_kind(own, choice.features).numpy() for own in vectors])
        scores = {part: _fitted(learner, part, choice.features)(rows) for part in on_features}
    if "pairs" in choice.parts:
        pictures.register(learner.model)
        pairs = [pair_scores(learner.model, item, pictures.ids, labels, names) for item in items]
        scores["pairs"] = np.stack(pairs)
    if "lm" in choice.parts:
        groups = [[query] for query in queries] if retrieves(learner) else [queries]
        by_model = [_log_probabilities(learner, group, learner.support_for(group[0])) for group in groups]
        scores["lm"] = np.concatenate(by_model) - learner.estimate_name_bias()
    probabilities: list[list[float]] = np.exp(choice.log_probabilities(scores)).tolist()
    return probabilities


def _fitted(learner: "Learner", head: HeadName, kind: str) -> Fitted:
    """A head on image features, fitted to the taught pictures once."""
    pictures = learner.pictures

    def fit() -> Fitted:
        return fit_to_views(HEADS[head], views_by_kind(pictures)[kind], labels_of(pictures), len(pictures.names))

    return learner.computed.once(pictures.key, f"fitted {head} {kind}", fit)


def mean_log_probabilities(learner: "Learner") -> list[float]:
    """The mean log-probability of each name over the pictures of the support; see `Learner.estimate_name_bias`."""
    turns, names = learner.choose_support(), learner.pictures.names
    if shown_pictures(learner).among_shown or learner.model.lacks("shared prefixes") or not is_balanced(turns, names):
        return [0.0] * len(names)
    queries = [Turn(item, "", "") for item in dict.fromkeys(turn.item for turn in turns)]
    if retrieves(learner):
        supports = [([query], Support(learner.similar_support(query.item, without_itself=True))) for query in queries]
    else:
        supports = [(queries, Support(turns, learner.prefill_support()))]
    rows = np.concatenate([_log_probabilities(learner, *each) for each in supports])
    of_item = dict(zip((query.item for query in queries), rows, strict=True))
    mean: list[float] = np.mean([of_item[turn.item] for turn in turns], axis=0).tolist()
    return mean


def left_out_by_model(learner: "Learner") -> Scores:
    """float64[pictures, names]: the language model's scores of each picture, after a support in which it is not.

    They are log-probabilities less the mean of each name over all pictures, where `Learner.estimate_name_bias` is one.
    Pictures that the support does not show, and the only picture of a name, have NaN.
    """
    pictures, support = learner.pictures, learner.choose_support()
    names = pictures.names
    places = {picture: place for place, picture in enumerate(pictures.ids)}
    if shown_pictures(learner).among_shown:  # every taught picture may be shown: a sample of all is left out
        named = [Turn(item, name, name) for name, own in pictures.by_name.items() for item in own]
        shown = [named[place] for place in evenly_spaced(len(named), MOST_ASKED)]
    else:
        shown = [*{turn.item: turn for turn in support}.values()]  # a picture may be shown more than once
    if retrieves(learner):
        rows = _left_out_of_similar(learner, shown)
    else:
        parts = left_out_parts(np.array([names.index(turn.answer) for turn in shown]))
        with progress("Leaving pictures out", len(parts)) as advance:
            rows = left_out_log_probabilities(learner.model, learner.scaffold, support, names, advance)
    scores = np.full((len(places), len(names)), np.nan)
    corrected = rows if shown_pictures(learner).among_shown else without_name_bias(rows, shown, names)
    scores[[places[turn.item] for turn in shown]] = corrected
    return scores


def _left_out_of_similar(learner: "Learner", support: Sequence[Turn]) -> Scores:
    """The same of pictures whose supports are the pictures most similar to them."""
    by_name = learner.pictures.by_name
    scores = np.full((len(support), len(by_name)), np.nan)
    places = [place for place, turn in enumerate(support) if len(by_name[turn.answer]) > 1]
    with progress("Leaving pictures out", len(places)) as advance:
        for place in places:
            item = support[place].item
            rest = Support(learner.similar_support(item, without_itself=True))
            scores[place] = _log_probabilities(learner, [Turn(item, "", "")], rest)
            advance()
    return scores


def _log_probabilities(learner: "Learner", queries: Sequence[Turn], support: Support) -> Scores:
    """float64[queries, names]: the log-probability (nats) of each name among the names.

    Where the model chooses among the names of similar pictures, these share all but `UNSHOWN` of the probability.
    """
    model, scaffold, names = learner.model, learner.scaffold, learner.pictures.names
    if not shown_pictures(learner).among_shown:
        return name_log_probabilities(model, scaffold, queries, support.turns, names, support.prefix)
    shown = [*dict.fromkeys(turn.answer for turn in support.turns)]
    scores = np.full((len(queries), len(names)), np.log(UNSHOWN / max(1, len(names) - len(shown))))
    of_shown = name_log_probabilities(model, scaffold, queries, support.turns, shown)
    scores[:, [names.index(name) for name in shown]] = of_shown + np.log1p(-UNSHOWN)
    return scores
