"""`--scoring lcl-legacy`: the metric of the released code of Link-Context Learning, for comparison with its figures.

The lower-case name is searched in the raw reply and removed, and no other name may be in the rest. So the reply
"kit fox" is right for the target "fox" with the other name "kit fox", "Fox" is wrong for "fox", and an empty reply
scores 0, not 1/ways. The strict `generate` row is always reported beside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from linkcontext.episodes.ids import drawn_as
from linkcontext.evaluation import metrics
from linkcontext.evaluation.intervals import clustered_wilson, for_new_classes
from linkcontext.evaluation.metrics import Row
from linkcontext.records import Candidate, Episode, Prediction

SCORING = "lcl_legacy"
# Removed from the target but not from the reply, so that a name with one of these characters is never right.
REMOVED = str.maketrans("", "", "\"'.")


def lcl_correct(reply: str, target: str, others: Sequence[str]) -> bool:
    """Whether the released code counts a reply as right for `target`; `others` are the episode's other names."""
    wanted = target.translate(REMOVED).strip().lower()
    rest = reply.replace(wanted, "")
    return wanted in reply and not any(other.lower() in rest for other in others)


def lcl_matches(reply: str, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The class ids for which the reply counts as right: none, one or several."""
    names = {candidate.class_id: candidate.name for candidate in candidates}
    return tuple(
        class_id
        for class_id, name in names.items()
        if lcl_correct(reply, name, [other for other_id, other in names.items() if other_id != class_id])
    )


def lcl_rows(episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> list[Row]:
    """A row for each `generate` row of `metric_rows`, from the same replies.

    `answered` is the share of replies that are right for some class, and `chance` is 0. Raises like `metric_rows`.
    """
    known = tuple(predictions)
    strict = {tuple(row[name] for name in metrics.Key._fields): row for row in metrics.metric_rows(episodes, known)}
    rows = []
    for key, pairs in metrics.grouped(episodes, known).items():
        if key.scoring != "generate":
            continue
        matches = [lcl_matches(prediction.reply or "", episode.candidates) for episode, prediction in pairs]
        gold = [prediction.gold for _, prediction in pairs]
        values = [float(g in matched) for g, matched in zip(gold, matches, strict=True)]
        pictures = [metrics.query_picture(episode, prediction) for episode, prediction in pairs]
        ci95 = clustered_wilson(values, [drawn_as(episode.id) for episode, _ in pairs], pictures)
        taking_part = [{candidate.class_id for candidate in episode.candidates} for episode, _ in pairs]
        ci95_classes = for_new_classes(values, gold, taking_part, ci95)
        legacy = {
            "scoring": SCORING,
            "accuracy": math.fsum(values) / len(values),
            "ci95": list(ci95),
            "ci95_classes": None if ci95_classes is None else list(ci95_classes),
            "answered": sum(map(bool, matches)) / len(matches),
            "chance": 0.0,
            "truth": None,
            "shorter": None,
        }
        rows.append(strict[key] | legacy)
    return rows
