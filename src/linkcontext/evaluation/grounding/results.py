"""The predictions of a probe, by condition."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from linkcontext.evaluation.grounding.effects import SCORING, Effect, pairs_above_chance, weakest
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

    @classmethod
    def of(cls, episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> "ConditionResults":
        """The results of a folder's records."""
        predictions = tuple(predictions)

        def by_condition(values: Mapping[Key, Any]) -> dict[tuple[str, int], Any]:
            return {(k.task, k.shots_per_class): value for k, value in values.items() if k.scoring == SCORING}

        pairs = by_condition(grouped(episodes, predictions))
        rows = metric_rows(episodes, predictions)
        by_key = by_condition({Key(*(row[name] for name in Key._fields)): row for row in rows})
        return cls(pairs, by_key)

    def at(self, condition: str) -> list[Pair]:
        """The pairs of a condition at its largest shots per class."""
        return self.pairs[condition, self._most_shots(condition)]

    def row(self, condition: str) -> Row:
        """The row of a condition at its largest shots per class."""
        return self.rows[condition, self._most_shots(condition)]

    def has(self, conditions: Iterable[str]) -> bool:
        """Whether all these conditions were predicted."""
        return {*conditions} <= {condition for condition, _ in self.pairs}

    def conditions(self, prefix: str) -> list[str]:
        """The conditions whose names begin with `prefix`, in the order of their numbers."""
        names = dict.fromkeys(condition for condition, _ in self.pairs if condition.startswith(prefix))
        return sorted(names, key=lambda name: (len(name), name))

    def figure(self, label: str, condition: str, shots: int | None = None) -> Figure:
        """The accuracy of a condition, by default at its largest shots per class."""
        row = self.row(condition) if shots is None else self.rows[condition, shots]
        return Figure(label, row["accuracy"], tuple(row["ci95"]), row["n_queries"], row["chance"])

    def weakest_above_chance(
        self, conditions: Mapping[str, str], stream: str
    ) -> tuple[str, Effect, tuple[Figure, ...]]:
        """Of conditions by their labels the one whose accuracy above chance is weakest: its label and its effect, and
        the figures of all.
        """
        effects = {label: pairs_above_chance(self.at(name), stream, name) for label, name in conditions.items()}
        return (*weakest(effects), tuple(self.figure(label, name) for label, name in conditions.items()))

    def _most_shots(self, condition: str) -> int:
        return max(shots for name, shots in self.pairs if name == condition)
