"""Probabilities of names, corrected for how much the model prefers each name whatever the picture shows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from linkcontext.episodes.scaffold import Scaffold, build_messages, with_answer
from linkcontext.inference.vision import chunks
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.teach.support import Support

QUERIES_PER_TREE = 16


def name_log_probabilities(
    model: ScoringModel, scaffold: Scaffold, queries: Sequence[Turn], support: Support, names: Sequence[str]
) -> Tensor:
    """float64[queries, names]: the log-probability (nats) of each name among `names`, after the support."""
    scores = []
    for chunk in chunks(queries, QUERIES_PER_TREE):
        asks = []
        for query in chunk:
            messages = build_messages(support.turns, scaffold, query)
            asks.append(ScoringRequest(messages, tuple(with_answer(messages, scaffold, name) for name in names)))
        scores += [[value for value, _ in row] for row in model.score(asks, support.prefix)]
    return torch.tensor(scores, dtype=torch.double).log_softmax(-1)


def is_balanced(support: Sequence[Turn], names: Sequence[str]) -> bool:
    """Whether a support shows every name equally often."""
    return len({sum(turn.answer == name for turn in support) for name in names}) == 1


def calibrated(log_probabilities: Tensor, name_bias: Sequence[float]) -> list[float]:
    """Probabilities from log-probabilities float64[names], less the bias of each name (nats).

    Batch calibration (arXiv 2309.17249): the bias is the mean log-probability of a name over pictures of all names.
    """
    corrected = log_probabilities - torch.tensor(name_bias, dtype=torch.double)
    probabilities: list[float] = corrected.softmax(0).tolist()
    return probabilities
