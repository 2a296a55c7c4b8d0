"""Answers without likelihoods: the name that a model's reply has, where a server gives no log-probabilities."""

from collections.abc import Sequence

from linkcontext.episodes.scaffold import Scaffold, build_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.answers import match
from linkcontext.records import Candidate, Turn
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.answer import certain
from linkcontext.teach.support import Support


def named_replies(
    model: ScoringModel, scaffold: Scaffold, queries: Sequence[Turn], support: Support, names: Sequence[str]
) -> list[dict[str, float]]:
    """For each query, probability 1 for the one of `names` that the model's reply has, after the support.

    Raises `InputError` for a reply that has none of the names, or several.
    """
    candidates = [Candidate(name, name, name) for name in names]
    prompts = [build_messages(support.turns, scaffold, query) for query in queries]
    rows = []
    for query, reply in zip(
        queries, model.generate(prompts, model.card.prompting.reply_tokens, support.prefix), strict=True
    ):
        name = match(reply, candidates)
        if name is None:
            path = model.sources[query.item][1]
            raise InputError(f"{path}: {model.card.name} replies {reply!r}, which has none of the names, or several.")
        rows.append(certain(name, names))
    return rows
