"""Link episodes to learn from: how many pictures a support has, which classes meet, what they are called.

Support pictures of all classes together, after Link-Context Learning (arXiv 2308.07891), for N ways and at most M:

    2-way             M
    2-way-random      N ... M, each as likely as any other
    2-way-weight      j of N ... M with p_j = e^j / sum e^m
    lcl-code-weight   N k, k of each class, k = 1 ... M / N with weights e^(k/2) (the released code)

Where N does not divide the number, chance says which classes have one more. Lesson i is a pure function of the
strategy, the data and i.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from linkcontext.data.layout import is_blank
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import RankingRule
from linkcontext.episodes.link import draw_episode
from linkcontext.episodes.names import shown_names
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.pool import EpisodePool, by_rule, differently_named, open_pool
from linkcontext.errors import InputError
from linkcontext.records import Turn
from linkcontext.seeds import Name, key, rng

Kind = Literal["2-way", "2-way-random", "2-way-weight", "lcl-code-weight"]
Names = Literal["pseudo", "random", "real", "swapped", "lcl"]
Negatives = Literal["random", "neighbours"]
Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Strategy:
    """What link episodes are like. `support` counts pictures of all classes together."""

    kind: Kind = "2-way-random"
    ways: int = 2
    support: int = 16
    queries: int = 1
    names: Names = "pseudo"
    negatives: Negatives = "random"
    rule: RankingRule = "linear"
    split: str | None = None
    seed: int = 0

    def chances(self) -> dict[int, float]:
        """Support pictures in all, and how likely an episode has so many."""
        most = self.support
        weights = {
            "2-way": {most: 1.0},
            "2-way-random": dict.fromkeys(range(self.ways, most + 1), 1.0),
            "2-way-weight": {j: math.exp(j - most) for j in range(self.ways, most + 1)},
            "lcl-code-weight": {k * self.ways: math.exp(k / 2) for k in range(1, most // self.ways + 1)},
        }[self.kind]
        return {count: weight / sum(weights.values()) for count, weight in weights.items()}

    def plan(self) -> EpisodePlan:
        """What is drawn before the strategy takes its part of it."""
        if self.support < self.ways:
            raise InputError(f"--support {self.support}: {self.ways} ways need at least one picture each.")
        if self.queries < 1:
            raise InputError(f"--queries {self.queries}: at least one is needed to learn from.")
        return EpisodePlan(
            ways=self.ways,
            shots_per_class=(-(-self.support // self.ways),),
            episodes=1,
            queries=-(-self.queries // self.ways) * self.ways,
            names="real" if self.names == "lcl" else self.names,
            negatives=self.negatives,
            # Not the seed of an evaluation: its episodes are not to be trained on.
            seed=key("train", self.seed) % 2**62,
            support_split=self.split,
            query_split=self.split,
        )


@dataclass(frozen=True, slots=True)
class Lesson:
    """A shuffled support, and queries that were not shown in it."""

    id: str
    support: tuple[Turn, ...]
    queries: tuple[Turn, ...]


@dataclass(frozen=True)
class Lessons:
    """All lessons of a strategy. `near` ranks the usable neighbours of each class that can be first."""

    strategy: Strategy
    pool: EpisodePool
    near: Mapping[str, Sequence[str]]
    questions: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        strategy: Strategy,
        neighbours: Mapping[str, Sequence[str]] | None = None,
        questions: Sequence[str] = (),
    ) -> "Lessons":
        """Raises `InputError` where too few classes have enough pictures, and as `open_pool`."""
        pool = open_pool(dataset, strategy.plan(), neighbours)
        known = pool.nearest if neighbours is None else neighbours
        near = {first: [other for other in known.get(first, ()) if other in pool.classes] for first in pool.anchors}
        return cls(strategy, pool, near, questions)

    def lesson(self, index: int, count: int | None = None) -> Lesson:
        """One lesson, with `count` support pictures where that is given. Every class is first equally often."""
        s, stream = self.strategy, ("train", self.strategy.seed, index)
        first = nth(self.pool.anchors, index, "train", s.seed, "first")
        nearest = {first: self._negatives(first, *stream)}
        (episode,) = draw_episode(replace(self.pool, anchors=(first,), nearest=nearest), index)
        called = {candidate.class_id: candidate.name for candidate in episode.candidates}
        if s.names == "lcl":
            called[first] = shown_names("random", [called[first]], *stream, avoid=self.pool.taken_names)[0]
        classes = sorted(called)
        if count is None:
            counts, chances = zip(*s.chances().items(), strict=True)
            count = int(rng(*stream, "count").choice(counts, p=chances))
        more = rng(*stream, "more").permutation(len(classes))[: count % s.ways]
        takes = {c: count // s.ways + (place in more) for place, c in enumerate(classes)}
        shown = [replace(turn, answer=called[turn.class_id]) for turn in episode.support]
        taken = [turn for c in classes for turn in [t for t in shown if t.class_id == c][: takes[c]]]
        support = tuple(taken[place] for place in rng(*stream, "shuffle").permutation(len(taken)))
        waiting = {c: deque(turn for turn in episode.queries if turn.class_id == c) for c in classes}
        rounds = rng(*stream, "asked")
        order = [classes[place] for _ in range(-(-s.queries // s.ways)) for place in rounds.permutation(len(classes))]
        queries = (waiting[c].popleft() for c in order[: s.queries])
        named = tuple(
            replace(query, answer=called[query.class_id], question=self._question(number, *stream))
            for number, query in enumerate(queries)
        )
        return Lesson(f"link/{index:07d}", support, named)

    def _negatives(self, first: str, *stream: Name) -> tuple[str, ...]:
        """Classes that meet the first, drawn by the rule; of two with one name the first drawn."""
        near, classes = self.near[first], self.pool.classes
        if self.strategy.negatives == "random":
            return ()
        drawn = by_rule(near, self.strategy.rule, *stream, "negatives")
        met = differently_named([classes[first], *(classes[other] for other in drawn)], self.strategy.ways)
        return tuple(class_pool.class_id for class_pool in met[1:])

    def _question(self, number: int, *stream: Name) -> str:
        if not self.questions:
            return ""
        return self.questions[int(rng(*stream, "question", number).integers(len(self.questions)))]


def nth(things: Sequence[Thing], index: int, *stream: Name) -> Thing:
    """Every block of len(things) indices has each thing once, in an order of its own."""
    block, place = divmod(index, len(things))
    return things[int(rng(*stream, block).permutation(len(things))[place])]


def read_questions(path: Path) -> tuple[str, ...]:
    """Ways to ask, one a line; blank lines do not count."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--questions {path}: cannot be read ({error}). Check the path.") from error
    questions = tuple(line.strip() for line in lines if not is_blank(line))
    if not questions:
        raise InputError(f"--questions {path}: holds no question. Write one per line.")
    return questions
