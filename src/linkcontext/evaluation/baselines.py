"""What policies without a language model would answer, to stand beside a model's accuracy."""

from linkcontext.episodes.ids import RICES
from linkcontext.episodes.link import copy_first, copy_last
from linkcontext.evaluation.medoids import majority
from linkcontext.evaluation.nearest import nearest
from linkcontext.records import Episode, Turn
from linkcontext.scoring.protocol import ScoringModel


def baselines(scorer: ScoringModel, episode: Episode, shots_per_class: int, query: Turn) -> dict[str, str | None]:
    """What policies without a language model would answer: the class id, or None where there is no support.

    The majority of the support answers where it was chosen for the query; elsewhere it is balanced.
    """
    shown = episode.shown(shots_per_class)
    found: dict[str, str | None] = {"copy_first": copy_first(shown), "copy_last": copy_last(shown)}
    if episode.task.endswith(RICES):
        found["majority"] = majority([turn.class_id for turn in shown])
    if scorer.lacks("image features"):
        return found
    sources = scorer.sources
    if any(turn.item not in sources for turn in shown):  # a blank is near nothing
        return found
    if any(turn.others for turn in (*shown, query)):  # several pictures are no one point to be near to
        return found
    seen = scorer.pictures.features([turn.item for turn in (*shown, query)], alone=not shown)
    pooled = [s.pooled for s in seen if s.pooled is not None]
    for kind, vectors in (("tokens", [s.mean for s in seen]), ("pooled", pooled)):
        if not vectors:  # a tower without a summary
            continue
        *supports, asked = vectors
        centroid, support = nearest(asked, supports, [turn.class_id for turn in shown])
        found |= {f"nearest_centroid_{kind}": centroid, f"nearest_support_{kind}": support}
    return found
