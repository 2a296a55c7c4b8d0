"""What can be asked about pictures, by what it means: the subjects of a data set.

A subject is one concept of one task; its questions mean the same. Three kinds of answers. *Shared*: all questions have
the same candidates. *Own*: every question brings its candidates. *Invented*: questions without candidates.

What a turn shows in an episode, a picture or several in order, no other turn shows; and no support shows exactly the
pictures of a query, in whatever order. So few options are put up that each has its share of a support. A subject may
have *contexts*, sets of questions with names of their own (VL-ICL's fast binding).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.plan import LETTERS, TaskPlan
from linkcontext.episodes.pool import LeftOut
from linkcontext.records import Item, Question

NAMING = "What is this?"
Contents = tuple[str, ...] | frozenset[tuple[str, int]]  # pictures in this order, or in any


@dataclass(frozen=True, slots=True)
class Annotation:
    """A question of a picture, and what is seen in all pictures that it is about: in order, and in any order."""

    item: Item
    question: Question
    contents: tuple[str, ...]
    image_set: frozenset[tuple[str, int]]

    @property
    def split(self) -> str:
        """The question's own, or that of its picture."""
        return self.question.split or self.item.split


@dataclass(frozen=True)
class Subject:
    """One concept of one task, and by answer the pictures for a support and those to ask about."""

    task: str
    concept: str
    context: str
    supports: dict[str, tuple[Annotation, ...]]
    queries: dict[str, tuple[Annotation, ...]]

    @property
    def name(self) -> str:
        """As in records and rows; all contexts have it."""
        return f"{self.task}/{self.concept}"

    @cached_property
    def kind(self) -> Literal["shared", "own", "invented"]:
        """Where the candidates come from."""
        sets = {each.question.candidates for each in (*all_of(self.supports), *all_of(self.queries))}
        if sets == {()}:
            return "invented"
        return "shared" if len(sets) == 1 else "own"

    def usable(self, plan: TaskPlan) -> "Subject | None":
        """Without answers that have too few pictures for a support; None if two are not left, or nothing to ask."""
        if self._unfit(plan):
            return None
        if self.kind == "own":
            return (
                self if count_different(all_of(self.supports)) >= self.needed(plan) and all_of(self.queries) else None
            )
        counts, least = self._counts(), self._least(plan)
        for options in range(min(plan.options, len(counts)), 1, -1):
            kept = [answer for answer, count in counts.items() if count >= least(options)]
            if len(kept) >= options:
                sides = ({answer: side[answer] for answer in kept} for side in (self.supports, self.queries))
                left = Subject(self.task, self.concept, self.context, *sides)
                return left if all_of(left.queries) else None
        return None

    def needed(self, plan: TaskPlan) -> int:
        """How many pictures an episode takes in all from those of a support: one may answer several questions."""
        count = max(plan.options, *(len(each.question.candidates) for each in all_of(self.queries)), 0)
        asked = count if self.kind == "own" else plan.options
        queries = {each.image_set for each in all_of(self.queries)}
        again = Counter({each.contents: each.image_set for each in all_of(self.supports)}.values())
        return max(plan.shots) + asked * max((count for seen, count in again.items() if seen in queries), default=0)

    def _counts(self) -> dict[str, int]:
        """How many pictures a support has of each answer that can be an option."""
        asked = [answer for answer, found in self.queries.items() if found]
        # An answer that is never right would be a candidate for show, but for the query that brings its names.
        return {a: count_different(found) for a, found in self.supports.items() if len(asked) < 2 or a in asked}

    def _least(self, plan: TaskPlan) -> Callable[[int], int]:
        """How many pictures each of so many answers must have, for all to have enough together."""
        found, needed = all_of(self.supports), self.needed(plan)
        alone = count_different(found) < len(found)  # some have two answers: then each must have enough by itself
        return lambda options: needed if alone else -(-needed // options)

    def _unfit(self, plan: TaskPlan) -> str:
        """Why none of it can be asked, whatever pictures there are."""
        counts = {len(each.question.candidates) for each in (*all_of(self.supports), *all_of(self.queries))}
        if not all_of(self.queries):
            return "no query is about it"
        if len(counts) > 1 and 0 in counts:
            return "some of its questions have candidates, and some none"
        if plan.form in ("choice", "mixed") and self.kind == "own" and max(counts) > len(LETTERS):
            return f"a question has {max(counts)} options, and there are letters for {len(LETTERS)}"
        return ""

    def lacking(self, plan: TaskPlan) -> LeftOut:
        """For the list of what could not be asked."""
        needed, count = self.needed(plan), count_different(all_of(self.supports))
        shortfall = f"it takes {needed} pictures and has {count}"
        if self.kind != "own":
            most = max(self._counts().values(), default=0)
            shortfall = f"no two answers have {self._least(plan)(2)} pictures; the commonest has {most}"
        return LeftOut(self.name, count, self._unfit(plan) or shortfall)


def questions_about(item: Item) -> tuple[Question, ...]:
    """What can be asked about a picture: its annotations' questions, or else what it is called."""
    if item.questions:
        return item.questions
    return (Question("naming", "class", NAMING, item.name),)


def subjects(dataset: Dataset, plan: TaskPlan) -> tuple[Subject, ...]:
    """All subjects of a data set, what is seen once for each answer, sorted by name."""
    found: dict[tuple[str, str, str], dict[str, list[Annotation]]] = {}
    beside = {other for item in dataset.items for question in item.questions for other in question.others}
    for item in sorted(dataset.items, key=lambda item: item.id):
        if item.id in beside and not item.questions:
            continue
        for question in questions_about(item):
            answers = found.setdefault((question.task, question.concept, question.context), {})
            contents = dataset.contents((item.id, *question.others))
            image_set = frozenset(Counter(contents).items())
            answers.setdefault(question.answer, []).append(Annotation(item, question, contents, image_set))

    def side(answers: dict[str, list[Annotation]], split: str | None) -> dict[str, tuple[Annotation, ...]]:
        kept = {}
        for answer, told in sorted(answers.items()):
            once: dict[tuple[str, ...], Annotation] = {}
            for each in told:
                if split in (None, each.split):
                    once.setdefault(each.contents, each)
            kept[answer] = tuple(once.values())
        return kept

    return tuple(
        Subject(*names, side(answers, plan.support_split), side(answers, plan.query_split))
        for names, answers in sorted(found.items())
    )


def left_out_subjects(
    chosen: Sequence[Subject], kept: dict[str, tuple[Subject, ...]], plan: TaskPlan
) -> Iterator[LeftOut]:
    """What is left out, a line for each subject: whole, or some of its contexts."""
    lost: dict[str, list[Subject]] = {}
    for subject in chosen:
        if all(subject.context != other.context for other in kept.get(subject.name, ())):
            lost.setdefault(subject.name, []).append(subject)
    for name, subjects in lost.items():
        first = subjects[0].lacking(plan)
        of = f"{len(subjects)} of {len(subjects) + len(kept[name])} contexts: " if name in kept else ""
        yield replace(first, shortfall=f"{of}{first.shortfall}")


def all_of(side: dict[str, tuple[Annotation, ...]]) -> tuple[Annotation, ...]:
    """One side of a subject, whatever the answer."""
    return tuple(each for asked in side.values() for each in asked)


def count_different(asked: Sequence[Annotation]) -> int:
    """How many pictures, or pairs of them, differ."""
    return len({each.contents for each in asked})


def has_untaken(pool: Sequence[Annotation], taken: set[Contents]) -> bool:
    """Whether `draw` finds one."""
    return any(each.contents not in taken and each.image_set not in taken for each in pool)


def draw_annotation(pool: Sequence[Annotation], taken: set[Contents], chance: np.random.Generator) -> Annotation:
    """One of the pool whose pictures are not taken, and from now on are."""
    there = [each for each in pool if each.contents not in taken and each.image_set not in taken]
    found = there[int(chance.integers(len(there)))]
    taken.add(found.contents)
    return found
