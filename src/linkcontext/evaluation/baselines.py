"""Baselines: the answers of policies without a language model, reported beside a model's accuracy."""

from linkcontext.episodes.ids import RICES
from linkcontext.episodes.link import copy_first, copy_last
from linkcontext.evaluation.medoids import majority
from linkcontext.evaluation.nearest import nearest
from linkcontext.records import Episode, Turn
from linkcontext.scoring.protocol import ScoringModel


def baselines(scorer: ScoringModel, episode: Episode, shots_per_class: int, query: Turn) -> dict[str, str | None]:
    """Policy -> the class id that it answers, or None without a support.

    The policy `majority` is there only for supports that were chosen for the query; other supports are balanced.
    """
    shown = episode.shown(shots_per_class)
    answers: dict[str, str | None] = {"copy_first": copy_first(shown), "copy_last": copy_last(shown)}
    if episode.task.endswith(RICES):
        answers["majority"] = majority([turn.class_id for turn in shown])
    if scorer.lacks("image features"):
        return answers
    sources = scorer.sources
    if any(turn.item not in sources for turn in shown):  # a blank picture is similar to no class
        return answers
    if any(turn.others for turn in (*shown, query)):  # several pictures have no single feature vector
        return answers
    features = scorer.pictures.features([turn.item for turn in (*shown, query)], alone=not shown)
    pooled = [s.pooled for s in features if s.pooled is not None]
    for kind, vectors in (("tokens", [s.mean for s in features]), ("pooled", pooled)):
        if not vectors:  # a vision tower without pooled features
            continue
        *supports, query_vector = vectors
        centroid, support = nearest(query_vector, supports, [turn.class_id for turn in shown])
        answers |= {f"nearest_centroid_{kind}": centroid, f"nearest_support_{kind}": support}
    return answers
