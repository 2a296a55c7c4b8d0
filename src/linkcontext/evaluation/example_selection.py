"""Select the episodes of a run that its report shows and explains. They depend on ids only, so pages agree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linkcontext.evaluation import metrics
from linkcontext.evaluation.metrics import Key, Pair
from linkcontext.seeds import key as stream_key

SHOTS_PER_CLASS = 4  # the maximum: larger supports would fill the page, and make a probe slow


@dataclass(frozen=True, slots=True)
class SelectedExamples:
    """The episodes at one shot count, judged by one scoring. Episodes in `wrong` have a query that is not right."""

    shots_per_class: int
    scoring: str
    episodes: dict[str, list[Pair]]  # episode id -> its queries
    credits: dict[str, float]  # episode id -> number of right queries; ties count as fractions
    wrong: tuple[str, ...]  # ids in the order in which they are selected
    right: tuple[str, ...]

    def first(self, limit: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Up to `limit` episodes, half of them wrong and half right if there are enough.

        A larger limit selects the same episodes and more.
        """
        n_wrong = min(len(self.wrong), max((limit + 1) // 2, limit - len(self.right)))
        return self.wrong[:n_wrong], self.right[: limit - n_wrong]


def select_examples(groups: Mapping[Key, list[Pair]]) -> SelectedExamples:
    """The episodes at `main_shots`, judged by `main_scoring`, in the order of a hash of their ids."""
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
    """The scoring of a page's summary and examples: the first of `SCORINGS` that the run has."""
    return next(scoring for scoring in metrics.SCORINGS if scoring in scorings)


def main_shots(shots_per_class: Sequence[int]) -> int:
    """The shots per class of a page's summary and examples: the largest number up to 4, else the smallest."""
    few = [shots for shots in shots_per_class if shots <= SHOTS_PER_CLASS]
    return max(few) if few else min(shots_per_class)
