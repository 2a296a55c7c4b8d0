"""The predictions of a probe, by condition."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from linkcontext.evaluation.grounding.effects import SCORING
from linkcontext.evaluation.intervals import Interval
from linkcontext.evaluation.metrics import Key, Pair, Row, grouped, metric_rows
from linkcontext.records import Episode, Prediction


@dataclass(frozen=True, slots=True)
class Figure:
    """An accuracy under one condition."""

    label: str
    accuracy: float
    ci95: Interval
    n_queries: int
    chance: float


@dataclass(frozen=True)
class ConditionResults:
    """Predictions with their episodes (`pairs`), and rows of metrics, by condition and shots per class."""

    pairs: dict[tuple[str, int], list[Pair]]
    rows: dict[tuple[str, int], Row]
    shots_per_class: int

    @classmethod
    def of(cls, episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> "ConditionResults":
        """The results of a folder's records."""
        predictions = tuple(predictions)

        def by_condition(values: Mapping[Key, Any]) -> dict[tuple[str, int], Any]:
            return {(k.task, k.shots_per_class): value for k, value in values.items() if k.scoring == SCORING}

        pairs = by_condition(grouped(episodes, predictions))
        rows = metric_rows(episodes, predictions)
        by_key = by_condition({Key(*(row[name] for name in Key._fields)): row for row in rows})
        return cls(pairs, by_key, max(shots for condition, shots in pairs if condition == "shown"))

    def at(self, condition: str) -> list[Pair]:
        """The pairs of a condition at the largest shots per class."""
        return self.pairs[condition, self.shots_per_class]

    def conditions(self, prefix: str) -> list[str]:
        """The conditions whose names begin with `prefix`, in the order of their numbers."""
        names = dict.fromkeys(condition for condition, _ in self.pairs if condition.startswith(prefix))
        return sorted(names, key=lambda name: (len(name), name))

    def figure(self, label: str, condition: str, shots: int | None = None) -> Figure:
        """The accuracy of a condition, by default at the largest shots per class."""
        row = self.rows[condition, self.shots_per_class if shots is None else shots]
        return Figure(label, row["accuracy"], tuple(row["ci95"]), row["n_queries"], row["chance"])
