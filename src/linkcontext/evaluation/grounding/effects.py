"""Effects: differences of accuracies, with clustered 95 % intervals and p-values."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from linkcontext.episodes.ids import drawn_as, drawn_query
from linkcontext.evaluation.compare import clustered_p, paired_interval
from linkcontext.evaluation.intervals import Interval, clustered_wilson
from linkcontext.evaluation.metrics import Pair, best_candidates, credit, query_picture
from linkcontext.records import Prediction

SCORING = "likelihood_sum"


class Effect(NamedTuple):
    """A difference of two accuracies, or of an accuracy and chance.

    `full` is the effect of a model that always follows the support. `p` is two-sided, and 1 if the effect has the other
    sign.
    """

    value: float
    ci95: Interval
    p: float
    full: float
    n_queries: int
    n_episodes: int
    n_pictures: int


def above_chance(
    credits: Sequence[float], episodes: Sequence[str], pictures: Sequence[str], chance: float, *stream: str | int
) -> Effect:
    """Accuracy minus chance. `credits` holds the credit of each query, float[n] in [0, 1]."""
    low, high = clustered_wilson(credits, episodes, pictures)
    value = math.fsum(credits) / len(credits) - chance
    p = clustered_p(np.array(credits) - chance, (episodes, pictures), "evidence", *stream) if value > 0 else 1.0
    counts = len(credits), len(set(episodes)), len(set(pictures))
    return Effect(value, (low - chance, high - chance), p, 1 - chance, *counts)


def pairs_above_chance(pairs: Sequence[Pair], *stream: str | int) -> Effect:
    """The accuracy of predictions minus chance."""
    credits = [credit(p, SCORING, e.candidates) for e, p in pairs]
    chance = 1 / len(pairs[0][0].candidates)
    pictures = [query_picture(e, p) for e, p in pairs]
    return above_chance(credits, [drawn_as(e.id) for e, _ in pairs], pictures, chance, *stream)


def paired_difference(pairs: Sequence[Pair], without: Sequence[Pair], full: float, *stream: str | int) -> Effect:
    """The accuracy of `pairs` minus that of `without`, which has the same queries."""
    other = {_drawn_query(p): credit(p, SCORING, e.candidates) for e, p in without}
    differences = np.array([credit(p, SCORING, e.candidates) - other[_drawn_query(p)] for e, p in pairs])
    episodes, pictures = [drawn_as(e.id) for e, _ in pairs], [query_picture(e, p) for e, p in pairs]
    value = float(differences.mean())
    p = clustered_p(differences, (episodes, pictures), "evidence", *stream) if value > 0 else 1.0
    counts = len(pairs), len(set(episodes)), len(set(pictures))
    return Effect(value, paired_interval(differences, episodes, pictures), p, full, *counts)


def weakest(effects: Mapping[str, Effect]) -> tuple[str, Effect]:
    """The effect with the largest p, and its name. If it holds, all do, so they need no adjustment among themselves."""
    return max(effects.items(), key=lambda named: (named[1].p, -named[1].value / named[1].full))


def agreement(orders: Sequence[Sequence[Pair]]) -> tuple[float, Interval]:
    """How often a query gets the same answer in two orders of its support, and the interval of this share."""
    chosen = [{_drawn_query(p): set(best_candidates(p, SCORING, e.candidates)) for e, p in pairs} for pairs in orders]
    pairs = list(combinations(chosen, 2))
    values = [math.fsum(a[query] == b[query] for a, b in pairs) / len(pairs) for query in chosen[0]]
    episodes = [_drawn_query(p).partition("/")[0] for _, p in orders[0]]
    pictures = [query_picture(e, p) for e, p in orders[0]]
    return math.fsum(values) / len(values), clustered_wilson(values, episodes, pictures)


def _drawn_query(prediction: Prediction) -> str:
    """The id of a query without that of its condition: the same query has the same one in all conditions."""
    return drawn_query(prediction.query_id).split("/", 1)[1]
