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
    """float64[pictures, names]: the log-probabilities of the names for each picture, after a support without it.

    Pictures are in the order in which they are first shown. The only one of a name has NaN. `advance` is called after
    each part of the pictures.
    """
    shown = [*{turn.item: turn for turn in support}.values()]
    scores = np.full((len(shown), len(names)), np.nan)
    for part in left_out_parts(np.array([names.index(turn.answer) for turn in shown])):
        items = [shown[place].item for place in part]
        rest = [turn for turn in support if turn.item not in items]
        scores[part] = name_log_probabilities(model, scaffold, [Turn(item, "", "") for item in items], rest, names)
        advance()
    return scores


def without_name_bias(scores: Scores, shown: Sequence[Turn], names: Sequence[str]) -> Scores:
    """Scores of pictures, less the mean of each name over all of them, if every name has equally many.

    This is batch calibration (arXiv 2309.17249). Pictures with NaN do not count. `shown` are the pictures with their
    names.
    """
    counted: list[int] = np.flatnonzero(np.isfinite(scores).all(1)).tolist()
    if not counted or not is_balanced([shown[place] for place in counted], names):
        return scores
    corrected: Scores = scores - scores[counted].mean(0)
    return corrected
