"""Names by pairs: a model is asked of each support picture whether it shows the same kind of thing as the query.

The query comes first in every prompt, so that on the prefix tree it is read once, and each support picture once.
"""

from collections.abc import Callable, Sequence

import numpy as np

from linkcontext.episodes.scaffold import PAIRS, build_messages, with_answer
from linkcontext.evaluation.heads import LEFT_OUT, Labels, Scores, left_out_parts
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest

YES, NO = "yes", "no"


def pair_log_odds(model: ScoringModel, query: str, support: Sequence[str]) -> Scores:
    """float64[support]: the log-odds (nats) of "yes" against "no" for a query picture and each support picture."""
    requests = []
    for item in support:
        messages = build_messages([], PAIRS, Turn(query, "", "", others=(item,)))
        requests.append(ScoringRequest(messages, (with_answer(messages, PAIRS, YES), with_answer(messages, PAIRS, NO))))
    rows = model.score(requests)
    odds: Scores = np.array([yes[0] - no[0] for yes, no in rows])
    return odds


def pair_scores(model: ScoringModel, query: str, support: Sequence[str], labels: Labels, names: int) -> Scores:
    """float64[names]: the mean log-odds (nats) over each name's pictures."""
    odds = pair_log_odds(model, query, support)
    scores: Scores = np.array([odds[labels == name].mean() for name in range(names)])
    return scores


def left_out_pair_scores(
    model: ScoringModel,
    support: Sequence[str],
    labels: Labels,
    names: int,
    advance: Callable[[], object] = lambda: None,
) -> Scores:
    """float64[support, names]: the scores of support pictures by the others.

    At most `LEFT_OUT` of them are left out, because each takes a prompt for every other picture; the others have NaN,
    and so has the only picture of a name. `advance` is called after each picture.
    """
    scores = np.full((len(support), names), np.nan)
    places = [int(place) for part in left_out_parts(labels) for place in part][:LEFT_OUT]
    for place in places:
        rest = [other for other in range(len(support)) if other != place]
        scores[place] = pair_scores(model, support[place], [support[i] for i in rest], labels[rest], names)
        advance()
    return scores
