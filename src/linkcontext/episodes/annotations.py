"""The subjects of a data set: its annotations, grouped by task and concept.

The questions of a subject ask the same thing. Subjects have one of three kinds of candidates. *Shared*: all questions
have the same candidates. *Own*: each question has its own candidates. *Invented*: the questions have no candidates, and
an episode invents names for the answers.

No two turns of an episode show the same pictures in the same order, and no support turn shows exactly the pictures of a
query, in any order. An episode uses only as many answers as have enough pictures for the support. A subject may have
*contexts*, which are sets of questions with their own names (VL-ICL's fast binding).
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
Contents = tuple[str, ...] | frozenset[tuple[str, int]]  # contents of pictures in this order, or in any order


@dataclass(frozen=True, slots=True)
class Annotation:
    """A question of an item, and the contents of all its pictures: `contents` in order, `image_set` in any order."""

    item: Item
    question: Question
    contents: tuple[str, ...]
    image_set: frozenset[tuple[str, int]]

    @property
    def split(self) -> str:
        """The question's split, or else that of its item."""
        return self.question.split or self.item.split


@dataclass(frozen=True)
class Subject:
    """One concept of one task, with the annotations for supports and for queries by their answers."""

    task: str
    concept: str
    context: str
    supports: dict[str, tuple[Annotation, ...]]
    queries: dict[str, tuple[Annotation, ...]]

    @property
    def name(self) -> str:
        """The name in records and rows, which all contexts share."""
        return f"{self.task}/{self.concept}"

    @cached_property
    def kind(self) -> Literal["shared", "own", "invented"]:
        """The kind of the candidates; see the module's docstring."""
        sets = {each.question.candidates for each in (*all_annotations(self.supports), *all_annotations(self.queries))}
        if sets == {()}:
            return "invented"
        return "shared" if len(sets) == 1 else "own"

    def usable(self, plan: TaskPlan) -> "Subject | None":
        """The subject without answers that have too few pictures for a support.

        None if fewer than two answers are left, or no query.
        """
        if self._unfit(plan):
            return None
        if self.kind == "own":
            return (
                self
                if count_different(all_annotations(self.supports)) >= self.needed(plan)
                and all_annotations(self.queries)
                else None
            )
        counts, least = self._counts(), self._least(plan)
        for options in range(min(plan.options, len(counts)), 1, -1):
            kept = [answer for answer, count in counts.items() if count >= least(options)]
            if len(kept) >= options:
                sides = ({answer: side[answer] for answer in kept} for side in (self.supports, self.queries))
                left = Subject(self.task, self.concept, self.context, *sides)
                return left if all_annotations(left.queries) else None
        return None

    def needed(self, plan: TaskPlan) -> int:
        """How many different support pictures must exist: the shots, and those that the queries of an episode exclude.

        A query excludes all support annotations of the same pictures, of which there may be several.
        """
        candidates = max(plan.options, *(len(each.question.candidates) for each in all_annotations(self.queries)), 0)
        queries = candidates if self.kind == "own" else plan.options
        queried = {each.image_set for each in all_annotations(self.queries)}
        repeats = Counter({each.contents: each.image_set for each in all_annotations(self.supports)}.values())
        most = max((count for image_set, count in repeats.items() if image_set in queried), default=0)
        return max(plan.shots) + queries * most

    def _counts(self) -> dict[str, int]:
        """Answer -> number of different support pictures, for each answer that can be an option."""
        queried = [answer for answer, annotations in self.queries.items() if annotations]
        # An answer that is never right is no option, unless only one answer is queried (open_mi of VL-ICL).
        return {
            answer: count_different(annotations)
            for answer, annotations in self.supports.items()
            if len(queried) < 2 or answer in queried
        }

    def _least(self, plan: TaskPlan) -> Callable[[int], int]:
        """A function from a number of options to the number of pictures that each of them needs."""
        supports, needed = all_annotations(self.supports), self.needed(plan)
        # If a picture has several answers, each option must have enough pictures by itself.
        alone = count_different(supports) < len(supports)
        return lambda options: needed if alone else -(-needed // options)

    def _unfit(self, plan: TaskPlan) -> str:
        """Why the subject cannot be used, whatever its number of pictures; "" if it can."""
        counts = {
            len(each.question.candidates) for each in (*all_annotations(self.supports), *all_annotations(self.queries))
        }
        if not all_annotations(self.queries):
            return "no query is about it"
        if len(counts) > 1 and 0 in counts:
            return "some of its questions have candidates, and some none"
        if plan.form in ("choice", "mixed") and self.kind == "own" and max(counts) > len(LETTERS):
            return f"a question has {max(counts)} options, but there are only {len(LETTERS)} letters"
        return ""

    def lacking(self, plan: TaskPlan) -> LeftOut:
        """Why the subject is left out."""
        needed, count = self.needed(plan), count_different(all_annotations(self.supports))
        shortfall = f"it takes {needed} pictures and has {count}"
        if self.kind != "own":
            most = max(self._counts().values(), default=0)
            shortfall = f"no two answers have {self._least(plan)(2)} pictures; the commonest has {most}"
        return LeftOut(self.name, count, self._unfit(plan) or shortfall)


def questions_about(item: Item) -> tuple[Question, ...]:
    """The questions of an item's annotations, or else one about its class name."""
    if item.questions:
        return item.questions
    return (Question("naming", "class", NAMING, item.name),)


def subjects(dataset: Dataset, plan: TaskPlan) -> tuple[Subject, ...]:
    """All subjects of a data set, sorted by name. Copies of a picture count once per answer."""
    by_subject: dict[tuple[str, str, str], dict[str, list[Annotation]]] = {}
    beside = {other for item in dataset.items for question in item.questions for other in question.others}
    for item in sorted(dataset.items, key=lambda item: item.id):
        if item.id in beside and not item.questions:
            continue
        for question in questions_about(item):
            answers = by_subject.setdefault((question.task, question.concept, question.context), {})
            contents = dataset.contents((item.id, *question.others))
            image_set = frozenset(Counter(contents).items())
            answers.setdefault(question.answer, []).append(Annotation(item, question, contents, image_set))

    def side(answers: dict[str, list[Annotation]], split: str | None) -> dict[str, tuple[Annotation, ...]]:
        kept = {}
        for answer, annotations in sorted(answers.items()):
            once: dict[tuple[str, ...], Annotation] = {}
            for each in annotations:
                if split in (None, each.split):
                    once.setdefault(each.contents, each)
            kept[answer] = tuple(once.values())
        return kept

    return tuple(
        Subject(*names, side(answers, plan.support_split), side(answers, plan.query_split))
        for names, answers in sorted(by_subject.items())
    )


def left_out_subjects(
    chosen: Sequence[Subject], kept: dict[str, tuple[Subject, ...]], plan: TaskPlan
) -> Iterator[LeftOut]:
    """One entry for each subject that is left out, as a whole or in some of its contexts."""
    lost: dict[str, list[Subject]] = {}
    for subject in chosen:
        if all(subject.context != other.context for other in kept.get(subject.name, ())):
            lost.setdefault(subject.name, []).append(subject)
    for name, subjects in lost.items():
        first = subjects[0].lacking(plan)
        of = f"{len(subjects)} of {len(subjects) + len(kept[name])} contexts: " if name in kept else ""
        yield replace(first, shortfall=f"{of}{first.shortfall}")


def all_annotations(side: dict[str, tuple[Annotation, ...]]) -> tuple[Annotation, ...]:
    """All annotations of one side of a subject (its supports or its queries), whatever the answer."""
    return tuple(each for annotations in side.values() for each in annotations)


def count_different(annotations: Sequence[Annotation]) -> int:
    """The number of different pictures (or sequences of pictures) in some annotations."""
    return len({each.contents for each in annotations})


def has_untaken(pool: Sequence[Annotation], taken: set[Contents]) -> bool:
    """Whether `draw_annotation` can draw one."""
    return any(each.contents not in taken and each.image_set not in taken for each in pool)


def draw_annotation(pool: Sequence[Annotation], taken: set[Contents], generator: np.random.Generator) -> Annotation:
    """Draw an annotation whose pictures are not `taken`, and add them to `taken`."""
    free = [each for each in pool if each.contents not in taken and each.image_set not in taken]
    drawn = free[int(generator.integers(len(free)))]
    taken.add(drawn.contents)
    return drawn
