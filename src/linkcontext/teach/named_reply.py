"""Answers without likelihoods: the name that a model's reply has, where a server gives no log-probabilities."""

from collections.abc import Sequence

from linkcontext.episodes.scaffold import Scaffold, build_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.answers import match
from linkcontext.records import Candidate, Turn
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.answer import certain
from linkcontext.teach.support import Support


def named_reply(
    model: ScoringModel, scaffold: Scaffold, query: Turn, support: Support, names: Sequence[str]
) -> dict[str, float]:
    """Probability 1 for the one of `names` that the model's reply about a query has, after the support.

    Raises `InputError` for a reply that has none of the names, or several.
    """
    messages = build_messages(support.turns, scaffold, query)
    (reply,) = model.generate([messages], model.card.prompting.reply_tokens, support.prefix)
    name = match(reply, [Candidate(name, name, name) for name in names])
    if name is None:
        path = model.sources[query.item][1]
        raise InputError(f"{path}: {model.card.name} replies {reply!r}, which has none of the names, or several.")
    return certain(name, names)
