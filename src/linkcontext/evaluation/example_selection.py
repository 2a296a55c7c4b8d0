"""Which of a run's episodes are opened and explained: chosen by their names, so that every page shows the same ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linkcontext.evaluation import metrics
from linkcontext.evaluation.metrics import Key, Pair
from linkcontext.seeds import key as stream_key

SHOTS_PER_CLASS = 4  # more would fill a page with support, and make a probe long


@dataclass(frozen=True, slots=True)
class SelectedExamples:
    """The episodes at one shot count, judged by one scoring. `wrong` ones have a query that is not right."""

    shots_per_class: int
    scoring: str
    episodes: dict[str, list[Pair]]  # episode id -> its queries
    credits: dict[str, float]  # episode id -> how many of them are right
    wrong: tuple[str, ...]  # ids in the order in which they are drawn
    right: tuple[str, ...]

    def first(self, limit: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Up to `limit` episodes, half wrong and half right as far as there are any; a larger limit adds to them."""
        n_wrong = min(len(self.wrong), max((limit + 1) // 2, limit - len(self.right)))
        return self.wrong[:n_wrong], self.right[: limit - n_wrong]


def select_examples(groups: Mapping[Key, list[Pair]]) -> SelectedExamples:
    """The episodes at the largest shots per class up to 4 (the smallest if all are more), by the summed likelihood,
    or by the replies where only they were scored. They are drawn by a hash of their ids: not simply the first."""
    scoring = main_scoring([key.scoring for key in groups])
    shots = main_shots([key.shots_per_class for key in groups])
    episodes: dict[str, list[Pair]] = {}
    for key, pairs in groups.items():
        if (key.shots_per_class, key.scoring) == (shots, scoring):
            for episode, prediction in pairs:
                episodes.setdefault(episode.id, []).append((episode, prediction))
    credits = {
        name: math.fsum(metrics.credit(p, scoring, e.candidates) for e, p in pairs) for name, pairs in episodes.items()
    }
    ordered = sorted(episodes, key=lambda name: stream_key("gallery", name))
    wrong = tuple(name for name in ordered if credits[name] < len(episodes[name]))
    right = tuple(name for name in ordered if credits[name] == len(episodes[name]))
    return SelectedExamples(shots, scoring, episodes, credits, wrong, right)


def main_scoring(scorings: Sequence[str]) -> str:
    """The scoring a page speaks of where it speaks of one: the first of `SCORINGS` that is there."""
    return next(scoring for scoring in metrics.SCORINGS if scoring in scorings)


def main_shots(shots_per_class: Sequence[int]) -> int:
    """The largest shots per class up to 4, else the smallest there is."""
    few = [shots for shots in shots_per_class if shots <= SHOTS_PER_CLASS]
    return max(few) if few else min(shots_per_class)
