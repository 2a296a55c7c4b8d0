"""What each condition of a probe shows: effects with intervals and p-values, as a model that links would show them.

An effect is how much more often the model is right than by chance, or than with something taken away. Intervals and
tests are clustered by episode and by query picture. Where a probe consists of several comparisons (orders, places,
wordings, ways), the weakest of them stands for it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from linkcontext.evaluation.compare import clustered_p, paired_interval
from linkcontext.evaluation.intervals import Interval, clustered_wilson
from linkcontext.evaluation.metrics import (
    Key,
    Pair,
    Row,
    credit,
    favourites,
    grouped,
    metric_rows,
    only_place,
    query_picture,
)
from linkcontext.evaluation.text import listed, share
from linkcontext.records import Episode, Prediction

SCORING = "likelihood_sum"
SHARES = (0.25, 0.5, 0.75, 1.0)  # of false names


class Effect(NamedTuple):
    """A difference of shares of right answers. `full` is that of a model that always follows the support; `p` is
    two-sided, and 1 where the effect has the other sign."""

    value: float
    ci95: Interval
    p: float
    full: float
    n_queries: int
    n_episodes: int
    n_pictures: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of right answers under one condition."""

    label: str
    accuracy: float
    ci95: Interval
    n_queries: int
    chance: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finding before it is judged beside the others. `more` is added to whatever the verdict is."""

    name: str
    linker: str
    figures: tuple[Figure, ...]
    measured: str
    effect: Effect
    yes: str
    no: str
    more: str = ""


@dataclass(frozen=True)
class ConditionResults:
    """The pairs and rows of a probe's folder by condition: a task and its shots per class."""

    pairs: dict[tuple[str, int], list[Pair]]
    rows: dict[tuple[str, int], Row]
    shots_per_class: int

    @classmethod
    def of(cls, episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> "ConditionResults":
        """From a folder's records."""
        told = tuple(predictions)

        def kept(found: Mapping[Key, Any]) -> dict[tuple[str, int], Any]:
            return {(k.task, k.shots_per_class): v for k, v in found.items() if k.scoring == SCORING}

        pairs = kept(grouped(episodes, told))
        made = kept({Key(*(row[name] for name in Key._fields)): row for row in metric_rows(episodes, told)})
        return cls(pairs, made, max(shots for task, shots in pairs if task == "shown"))

    def at(self, task: str) -> list[Pair]:
        """The pairs of a condition at the largest shots per class."""
        return self.pairs[task, self.shots_per_class]

    def tasks(self, beginning: str) -> list[str]:
        """The conditions whose names begin so, in the order of their numbers."""
        found = dict.fromkeys(task for task, _ in self.pairs if task.startswith(beginning))
        return sorted(found, key=lambda task: (len(task), task))

    def figure(self, label: str, task: str, shots: int | None = None) -> Figure:
        """A row as a figure."""
        row = self.rows[task, self.shots_per_class if shots is None else shots]
        return Figure(label, row["accuracy"], tuple(row["ci95"]), row["n_queries"], row["chance"])


# Effects


def above_chance(
    worth: Sequence[float], episodes: Sequence[str], pictures: Sequence[str], chance: float, *stream: str | int
) -> Effect:
    """How much more often than by chance queries are right; `worth` is their credit, float[n] in [0, 1]."""
    low, high = clustered_wilson(worth, episodes, pictures)
    value = math.fsum(worth) / len(worth) - chance
    p = clustered_p(np.array(worth) - chance, (episodes, pictures), "evidence", *stream) if value > 0 else 1.0
    counts = len(worth), len(set(episodes)), len(set(pictures))
    return Effect(value, (low - chance, high - chance), p, 1 - chance, *counts)


def lost(pairs: Sequence[Pair], without: Sequence[Pair], full: float, *stream: str | int) -> Effect:
    """How much more often the queries of `pairs` are right than the same ones of `without`."""
    other = {_query(p): credit(p, SCORING, e.candidates) for e, p in without}
    differences = np.array([credit(p, SCORING, e.candidates) - other[_query(p)] for e, p in pairs])
    episodes, pictures = [e.id for e, _ in pairs], [query_picture(e, p) for e, p in pairs]
    value = float(differences.mean())
    p = clustered_p(differences, (episodes, pictures), "evidence", *stream) if value > 0 else 1.0
    counts = len(pairs), len(set(episodes)), len(set(pictures))
    return Effect(value, paired_interval(differences, episodes, pictures), p, full, *counts)


def weakest(effects: Mapping[str, Effect]) -> tuple[str, Effect]:
    """The least sure and its name. All hold where it does, so that they need no adjustment among themselves."""
    return max(effects.items(), key=lambda named: (named[1].p, -named[1].value / named[1].full))


def agreement(orders: Sequence[Sequence[Pair]]) -> tuple[float, Interval]:
    """How often two orders of one support get the same answer, and its interval."""
    chosen = [{_query(p): set(favourites(p, SCORING, e.candidates)) for e, p in pairs} for pairs in orders]
    pairs = list(combinations(chosen, 2))
    values = [math.fsum(a[query] == b[query] for a, b in pairs) / len(pairs) for query in chosen[0]]
    episodes, pictures = (
        [_query(p).partition("/")[0] for _, p in orders[0]],
        [query_picture(e, p) for e, p in orders[0]],
    )
    return math.fsum(values) / len(values), clustered_wilson(values, episodes, pictures)


def _query(prediction: Prediction) -> str:
    """A query under the id that it was drawn with: the same in every condition."""
    return prediction.query_id.split("/", 1)[1]


def _over(pairs: Sequence[Pair], *stream: str | int) -> Effect:
    worth = [credit(p, SCORING, e.candidates) for e, p in pairs]
    chance = 1 / len(pairs[0][0].candidates)
    pictures = [query_picture(e, p) for e, p in pairs]
    return above_chance(worth, [e.id for e, _ in pairs], pictures, chance, *stream)


# Probes


def _label_swap(answers: ConditionResults) -> Comparison:
    shown, row = answers.figure("by the names shown", "swapped"), answers.rows["swapped", answers.shots_per_class]
    knows = shown.ci95[1] < shown.chance
    return Comparison(
        "label swap",
        "gives the name that is shown, as often as with new names",
        (shown,),
        "with real names swapped",
        _over(answers.at("swapped"), "swap"),
        "it gives the name that is shown, whatever it is called otherwise",
        "it gives the names it knew instead" if knows else "nothing shows that it follows swapped names",
        f"; the true name in {share(row['truth'])}",
    )


def _false_labels(answers: ConditionResults) -> Comparison:
    curve = [answers.figure(f"{part:.0%} false", f"false-{part:g}") for part in SHARES]
    return Comparison(
        "false labels",
        "gives the true name ever less often, and is below chance when all are false",
        (answers.figure("none false", "shown"), *curve),
        "none false less all false",
        lost(answers.at("shown"), answers.at(f"false-{SHARES[-1]:g}"), 1.0, "false"),
        "it believes the names that it is shown",
        "nothing shows that it believes the names that it is shown",
    )


def _taken_away(name: str, task: str, done: str, yes: str, no: str) -> Callable[[ConditionResults], Comparison]:
    def probe(answers: ConditionResults) -> Comparison:
        drawn = answers.figure("as drawn", "shown")
        return Comparison(
            name,
            "falls to chance",
            (drawn, answers.figure(done, task)),
            f"as drawn less {done}",
            lost(answers.at("shown"), answers.at(task), 1 - drawn.chance, task),
            yes,
            no,
        )

    return probe


def _new_names(answers: ConditionResults) -> Comparison:
    known = answers.figure("real, not shown", "real", 0)
    knows = known.ci95[0] > known.chance
    return Comparison(
        "new names",
        "is right with invented names too; without a support knows only what it was taught",
        (answers.figure("invented", "shown"), answers.figure("real", "real"), known),
        "with invented names",
        _over(answers.at("shown"), "names"),
        "it is right with names that it cannot know",
        "nothing shows that it is right with names that it cannot know",
        "; it knows real names without being shown" if knows else "",
    )


def _order(answers: ConditionResults) -> Comparison:
    tasks = {f"order {i}": task for i, task in enumerate(("shown", *answers.tasks("order-")), 1)}
    name, effect = weakest({name: _over(answers.at(task), "order", task) for name, task in tasks.items()})
    same, (low, high) = agreement([answers.at(task) for task in tasks.values()])
    return Comparison(
        "order",
        "is right in every order, and says the same",
        tuple(answers.figure(name, task) for name, task in tasks.items()),
        f"in the weakest, {name}",
        effect,
        "it is right in every order",
        "nothing shows that it is right in every order",
        f"; two orders get the same answer in {share(same)} [{share(low)}, {share(high)}]",
    )


def _place(answers: ConditionResults) -> Comparison:
    # With one shot every condition has single pictures; only these two are as drawn and in the wording asked for.
    tasks = [task for task in ("shown", *answers.tasks("ways-")) if (task, 1) in answers.pairs]
    ways, task = max((answers.pairs[task, 1][0][0].ways, task) for task in tasks)
    pairs = answers.pairs[task, 1]
    places = [[(e, p) for e, p in pairs if only_place(e, p.gold) == place] for place in range(ways)]
    chance = 1 / ways
    effects = {f"place {i + 1} of {ways}": _over(told, "place", i) for i, told in enumerate(places)}
    figures = tuple(
        Figure(name, e.value + chance, (e.ci95[0] + chance, e.ci95[1] + chance), e.n_queries, chance)
        for name, e in effects.items()
    )
    name, effect = weakest(effects)
    return Comparison(
        "place",
        "reads every place of the support",
        figures,
        f"one picture of each class, at the weakest, {name}",
        effect,
        "it reads every place",
        "nothing shows that it reads every place",
    )


def _wording(answers: ConditionResults) -> Comparison:
    tasks = {"its own": "shown"} | {task.removeprefix("wording-"): task for task in answers.tasks("wording-")}
    name, effect = weakest({name: _over(answers.at(task), "wording", task) for name, task in tasks.items()})
    return Comparison(
        "wording",
        "is right in other words too",
        tuple(answers.figure(name, task) for name, task in tasks.items()),
        f"in the weakest, {name}",
        effect,
        "it is right in every wording tried",
        "nothing shows that it is right in every wording tried",
    )


def _ways(answers: ConditionResults) -> Comparison:
    tasks = {answers.at(task)[0][0].ways: task for task in ("shown", *answers.tasks("ways-"))}
    named = {f"{ways} ways": tasks[ways] for ways in sorted(tasks)}
    name, effect = weakest({name: _over(answers.at(task), "ways", task) for name, task in named.items()})
    return Comparison(
        "ways",
        "is above chance among more names too",
        tuple(answers.figure(name, task) for name, task in named.items()),
        f"with the weakest, {name}",
        effect,
        f"it is above chance with {listed([str(ways) for ways in sorted(tasks)])} ways",
        "nothing shows that it is above chance with every number of ways",
    )


PROBES: tuple[Callable[[ConditionResults], Comparison], ...] = (
    _label_swap,
    _false_labels,
    _taken_away(
        "shuffled pictures",
        "shuffled",
        "pictures shuffled",
        "it matters which picture has which name",
        "nothing shows that it matters which picture has which name",
    ),
    _taken_away(
        "blank pictures",
        "blank",
        "supports grey",
        "it needs to see the support's pictures",
        "nothing shows that it looks at the support's pictures",
    ),
    _taken_away(
        "no pictures",
        "none",
        "support without pictures",
        "it needs the support's pictures",
        "nothing shows that it needs the support's pictures",
    ),
    _order,
    _place,
    _new_names,
    _wording,
    _ways,
)
