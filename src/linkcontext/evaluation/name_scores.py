"""Log-probabilities of names after a support, and of its own pictures when they are left out of it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from linkcontext.episodes.scaffold import Scaffold, build_messages, with_answer
from linkcontext.evaluation.heads import Scores, left_out_parts
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.vision import chunks
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest

QUERIES_PER_TREE = 16


def name_log_probabilities(
    model: ScoringModel,
    scaffold: Scaffold,
    queries: Sequence[Turn],
    support: Sequence[Turn],
    names: Sequence[str],
    prefix: PrefixCache | None = None,
) -> Scores:
    """float64[queries, names]: the log-probability (nats) of each name among `names`, after the support.

    `prefix` is the key-value cache of the support, if there is one.
    """
    scores = []
    for chunk in chunks(queries, QUERIES_PER_TREE):
        asks = []
        for query in chunk:
            messages = build_messages(support, scaffold, query)
            asks.append(ScoringRequest(messages, tuple(with_answer(messages, scaffold, name) for name in names)))
        scores += [[value for value, _ in row] for row in model.score(asks, prefix)]
    values: Scores = torch.tensor(scores, dtype=torch.double).log_softmax(-1).numpy()
    return values


def is_balanced(support: Sequence[Turn], names: Sequence[str]) -> bool:
    """Whether a support shows every name equally often."""
    return len({sum(turn.answer == name for turn in support) for name in names}) == 1


def left_out_log_probabilities(
    model: ScoringModel,
    scaffold: Scaffold,
    support: Sequence[Turn],
    names: Sequence[str],
    advance: Callable[[], object] = lambda: None,
) -> Scores:
    """float64[support, names]: the log-probabilities of the names for each picture, after a support without it.

    The only picture of a name has NaN. `advance` is called after each part of the pictures.
    """
    scores = np.full((len(support), len(names)), np.nan)
    for part in left_out_parts(np.array([names.index(turn.answer) for turn in support])):
        rest = [turn for place, turn in enumerate(support) if place not in part]
        queries = [Turn(support[place].item, "", "") for place in part]
        scores[part] = name_log_probabilities(model, scaffold, queries, rest, names)
        advance()
    return scores


def without_name_bias(scores: Scores, support: Sequence[Turn], names: Sequence[str]) -> Scores:
    """Scores less the mean of each name over all pictures, if the support shows every name equally often.

    This is batch calibration (arXiv 2309.17249). Pictures with NaN do not count.
    """
    if not np.isfinite(scores).all(1).any() or not is_balanced(support, names):
        return scores
    corrected: Scores = scores - np.nanmean(scores, axis=0)
    return corrected
