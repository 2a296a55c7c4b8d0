"""`--scoring lcl-legacy`: the metric of Link-Context Learning as its code was released, for parity and nothing else.

The name in lower case is looked for in the raw reply and taken out; no other name may be in what is left. So
"kit fox" is right for the target "fox" against "kit fox", "Fox" is wrong for "fox", and who says nothing gets 0,
not 1/ways. The strict `generate` row, which knows none of this, always stands beside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from linkcontext.episodes.ids import drawn_as
from linkcontext.evaluation import metrics
from linkcontext.evaluation.intervals import clustered_wilson, for_new_classes
from linkcontext.evaluation.metrics import Row
from linkcontext.records import Candidate, Episode, Prediction

SCORING = "lcl_legacy"
MARKS = str.maketrans("", "", "\"'.")  # left out of the target, never of the reply: a name with one can't be right


def lcl_correct(reply: str, target: str, others: Sequence[str]) -> bool:
    """Does the released code count a reply as right for a target, the others being the episode's other names?"""
    wanted = target.translate(MARKS).strip().lower()
    rest = reply.replace(wanted, "")
    return wanted in reply and not any(other.lower() in rest for other in others)


def lcl_matches(reply: str, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The class ids for which the reply would have counted as right: none, one or several."""
    names = {candidate.class_id: candidate.name for candidate in candidates}
    return tuple(
        class_id
        for class_id, name in names.items()
        if lcl_correct(reply, name, [other for other_id, other in names.items() if other_id != class_id])
    )


def lcl_rows(episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> list[Row]:
    """A row like those of `metrics.rows` for each of its `generate` rows, made from the same replies.

    `answered` is the share of replies that would be right for some class, `chance` is 0. Raises like `metrics.rows`.
    """
    known = tuple(predictions)
    strict = {tuple(row[name] for name in metrics.Key._fields): row for row in metrics.metric_rows(episodes, known)}
    found = []
    for key, pairs in metrics.grouped(episodes, known).items():
        if key.scoring != "generate":
            continue
        said = [lcl_matches(prediction.reply or "", episode.candidates) for episode, prediction in pairs]
        gold = [prediction.gold for _, prediction in pairs]
        values = [float(g in s) for g, s in zip(gold, said, strict=True)]
        pictures = [metrics.query_picture(episode, prediction) for episode, prediction in pairs]
        ci95 = clustered_wilson(values, [drawn_as(episode.id) for episode, _ in pairs], pictures)
        taking_part = [{candidate.class_id for candidate in episode.candidates} for episode, _ in pairs]
        ci95_classes = for_new_classes(values, gold, taking_part, ci95)
        legacy = {
            "scoring": SCORING,
            "accuracy": math.fsum(values) / len(values),
            "ci95": list(ci95),
            "ci95_classes": None if ci95_classes is None else list(ci95_classes),
            "answered": sum(map(bool, said)) / len(said),
            "chance": 0.0,
            "truth": None,
            "shorter": None,
        }
        found.append(strict[key] | legacy)
    return found
