"""Probabilities of the taught names for a picture: by the language model, by a head on image features, or by both."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from linkcontext.errors import InputError
from linkcontext.progress import progress
from linkcontext.records import Turn
from linkcontext.teach.calibration import is_balanced, name_log_probabilities
from linkcontext.teach.head_choice import HeadChoice, choose_head
from linkcontext.teach.heads import HEADS, Labels, Scores, Views, head_scores, left_out_parts
from linkcontext.teach.picture_vectors import rows_of_kind
from linkcontext.teach.support import Support
from linkcontext.teach.taught_pictures import TaughtPictures

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
    pictures = learner.pictures
    return choose_head(
        learner.head,
        views_by_kind(pictures),
        labels_of(pictures),
        len(pictures.names),
        None if learner.model.lacks("log-probabilities") else lambda: left_out_by_model(learner),
    )


def probabilities_of_names(learner: "Learner", query: Turn) -> list[float]:
    """The probability of each taught name for a picture, by the learner's head."""
    choice, pictures, scores = learner.choose_head(), learner.pictures, {}
    if on_features := [part for part in choice.parts if part in HEADS]:
        views = views_by_kind(pictures)[choice.features]
        row = rows_of_kind(learner.query_vectors(query.item), choice.features).numpy()
        labels, names = labels_of(pictures), len(pictures.names)
        scores = {part: head_scores(HEADS[part], views, labels, row, names) for part in on_features}
    if "lm" in choice.parts:
        rows = _log_probabilities(learner, [query], learner.support_for(query))
        scores["lm"] = rows - learner.estimate_name_bias()
    probabilities: list[float] = np.exp(choice.log_probabilities(scores)[0]).tolist()
    return probabilities


def mean_log_probabilities(learner: "Learner") -> list[float]:
    """The mean log-probability of each name over the pictures of the support; see `Learner.estimate_name_bias`."""
    turns, names = learner.choose_support(), learner.pictures.names
    if learner.model.lacks("shared prefixes") or not is_balanced(turns, names):
        return [0.0] * len(names)
    queries = [Turn(turn.item, "", "") for turn in turns]
    if learner.select == "rices":
        supports = [([query], Support(learner.similar_support(query.item, without_itself=True))) for query in queries]
    else:
        supports = [(queries, Support(turns, learner.prefill_support()))]
    mean: list[float] = np.concatenate([_log_probabilities(learner, *each) for each in supports]).mean(0).tolist()
    return mean


def left_out_by_model(learner: "Learner") -> Scores:
    """float64[pictures, names]: the language model's scores of each picture, after a support in which it is not.

    They are log-probabilities less the mean of each name over all pictures, as in `Learner.estimate_name_bias`.
    Pictures that the support does not show, and the only picture of a name, have NaN.
    """
    pictures, support = learner.pictures, learner.choose_support()
    names, places = pictures.names, {picture: place for place, picture in enumerate(pictures.ids)}
    scores = np.full((len(places), len(names)), np.nan)
    parts = left_out_parts(np.array([names.index(turn.answer) for turn in support]))
    if learner.select == "rices":
        parts = [np.array([place]) for part in parts for place in part]
    with progress("Leaving pictures out", len(parts)) as advance:
        for part in parts:
            left_out = [support[place].item for place in part]
            rest = [turn for turn in support if turn.item not in left_out]
            if learner.select == "rices":
                rest = learner.similar_support(left_out[0], without_itself=True)
            queries = [Turn(picture, "", "") for picture in left_out]
            scores[[places[picture] for picture in left_out]] = _log_probabilities(learner, queries, Support(rest))
            advance()
    if parts and is_balanced(support, names):
        scores -= np.nanmean(scores, axis=0)
    return scores


def _log_probabilities(learner: "Learner", queries: Sequence[Turn], support: Support) -> Scores:
    """float64[queries, names]: the log-probability (nats) of each name among the names."""
    rows = name_log_probabilities(learner.model, learner.scaffold, queries, support, learner.pictures.names)
    values: Scores = rows.numpy()
    return values
