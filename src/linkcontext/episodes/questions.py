"""Conversations with a sense: turns about one concept, so that an answer informs the next (arXiv 2403.12736).

An episode asks about one subject (`episodes.annotations`: attribute/colour, count/things, ...), one context of it after
the other, after a support drawn by its coherence:

    concept   turns about the query's subject: its options come equally often, by lot or in rounds, as far as there are
              pictures
    task      turns about any subject of the task
    none      turns about any subject of any task

Of shared candidates some are the episode's options; invented ones the episode names anew, so that the support alone can
tell them.

In an open episode the candidates are answers; in a choice episode every question lists the options behind letters in
an order of its own, and the candidates are letters. Every candidate is right equally often among the queries of an
episode (but for own candidates asked openly, one query an episode), so that no answer that ignores the picture is right
more often than by chance. Episode i is a pure function of the plan, the data and i. Shots are counted in all: the
support has no classes, which `ways=1` says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.annotations import (
    NAMING,
    Annotation,
    Contents,
    Subject,
    all_of,
    count_different,
    draw_annotation,
    has_untaken,
    left_out_subjects,
    subjects,
)
from linkcontext.episodes.names import shown_names
from linkcontext.episodes.plan import LETTERS, TaskPlan, check_task_plan
from linkcontext.episodes.pool import LeftOut
from linkcontext.errors import InputError
from linkcontext.records import Candidate, Episode, Question, Turn
from linkcontext.seeds import Name, rng

HELD_OUT = ("relation", "same-different", "rule")  # task types that nothing is trained on or chosen by


@dataclass(frozen=True)
class TaskSampler:
    """The subjects of a data set under a plan; `episode` makes any episode alone."""

    plan: TaskPlan
    subjects: tuple[tuple[Subject, ...], ...]  # the contexts of each
    others: tuple[tuple[Subject, ...], ...]  # what supports without coherence are about
    left_out: tuple[LeftOut, ...]  # subjects that were asked for and have too few pictures

    @classmethod
    def of(cls, dataset: Dataset, plan: TaskPlan) -> "TaskSampler":
        """Raises `InputError` for a plan that cannot be, and where no picture answers what is asked."""
        check_task_plan(plan)
        found = subjects(dataset, plan)
        wanted = [t for t in plan.tasks if not any(t in (s.task, s.name) for s in found)]
        there = ", ".join(sorted({s.task for s in found} | {s.name for s in found}))
        if wanted:
            raise InputError(f"--tasks {wanted[0]}: no picture of {dataset.root} answers it; there is {there}.")
        if plan.form == "caption":
            found = tuple(s for s in found if s.task == "caption")
        chosen = tuple(s for s in found if not plan.tasks or s.task in plan.tasks or s.name in plan.tasks)
        if not chosen:
            raise InputError(
                f"--format caption: of the tasks asked for none is a caption; there is {there or 'no question'}."
            )
        kept: dict[str, tuple[Subject, ...]] = {}
        for each in found:
            if left := each.usable(plan):
                kept[each.name] = (*kept.get(each.name, ()), left)
        usable = tuple(kept[name] for name in dict.fromkeys(s.name for s in chosen) if name in kept)
        left_out = tuple(left_out_subjects(chosen, kept, plan))
        if not usable:
            shortfall = "; ".join(f"{left.class_id}: {left.shortfall}" for left in left_out[:3])
            raise InputError(
                f"{dataset.root}: nothing that is asked for can be asked ({shortfall or 'no picture has a question'}). "
                "Use scenes:SEED, data with questions, or fewer --shots."
            )
        return cls(plan, usable, usable if plan.only else tuple(kept.values()), left_out)

    def episodes(self) -> tuple[Episode, ...]:
        """All of the plan. Every subject comes equally often."""
        return tuple(self.episode(index) for index in range(self.plan.episodes))

    def episode(self, index: int, turns: int | None = None) -> Episode:
        """Episode `index`; with `turns` its support is that long instead of the plan's."""
        plan, stream = self.plan, ("talk", self.plan.seed, index)
        block, place = divmod(index, len(self.subjects))
        contexts = self.subjects[int(rng("talk", plan.seed, "subjects", block).permutation(len(self.subjects))[place])]
        again, place = divmod(block, len(contexts))
        order = rng("talk", plan.seed, "contexts", contexts[0].name, again).permutation(len(contexts))
        subject = contexts[int(order[place])]
        choice = plan.form == "choice" or (plan.form == "mixed" and rng(*stream, "form").random() < 0.5)
        writer = QuestionWriter(subject, plan, choice, stream)
        taken: set[Contents] = {query.image_set for query in writer.queries}
        length = max(plan.shots) if turns is None else turns
        support = tuple(self._support_writer(writer, taken, number).support(number, taken) for number in range(length))
        told = "" if plan.coherence == "concept" else f" {plan.coherence}-coherent"
        return Episode(
            id=f"e{index:05d}",
            task=f"{subject.name} {'choice' if choice else 'open'}{told}",
            names=plan.names if subject.kind == "invented" else "real",
            ways=1,
            shots_per_class=tuple(sorted(plan.shots)) if turns is None else (length,),
            candidates=writer.candidates,
            support=support,
            queries=tuple(writer.turn(query, number, "query") for number, query in enumerate(writer.queries)),
        )

    def _support_writer(self, writer: "QuestionWriter", taken: set[Contents], number: int) -> "QuestionWriter":
        """Whose question a support turn has: of each subject one context, the query's own of its subject.

        Where others have shown all pictures of a subject, the query's stands in, which has enough for every turn.
        """
        if self.plan.coherence == "concept":
            return writer
        task, stream = writer.subject.task, (*writer.stream, number)
        pool = [contexts for contexts in self.others if self.plan.coherence == "none" or contexts[0].task == task]
        contexts = pool[int(rng(*stream, "subject").integers(len(pool)))]
        subject = contexts[int(rng(*writer.stream, "context", contexts[0].name).integers(len(contexts)))]
        subject = writer.subject if subject.name == writer.subject.name else subject
        other = QuestionWriter(subject, self.plan, writer.choice, stream)
        return other if other.left(taken) else writer


class QuestionWriter:
    """A subject in one episode: its options, their names, its queries, and how turns are worded."""

    def __init__(self, subject: Subject, plan: TaskPlan, choice: bool, stream: tuple[Name, ...]) -> None:
        self.subject, self.plan, self.choice, self.stream = subject, plan, choice, stream
        answers = sorted(subject.queries)
        order = [answers[place] for place in rng(*stream, "options").permutation(len(answers))]
        order.sort(key=lambda answer: not subject.queries[answer])  # what nothing is asked about comes last
        self.options = sorted(order[: plan.options])
        self.shown = dict(zip(answers, answers, strict=True))
        if subject.kind == "invented":
            self.shown = dict(zip(self.options, shown_names(plan.names, self.options, *stream), strict=True))
        self.queries = self._queries()

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """What a query is decided among."""
        if self.choice:
            count = len(self._listed(self.queries[0].question))
            return tuple(Candidate(letter, letter, letter) for letter in LETTERS[:count])
        if self.subject.kind == "own":
            return tuple(Candidate(text, text, text) for text in sorted(self.queries[0].question.candidates))
        return tuple(sorted((Candidate(o, self.shown[o], o) for o in self.options), key=lambda c: c.name))

    def _queries(self) -> list[Annotation]:
        """Different pictures to ask about: one for each candidate to be right once."""
        chance, taken = rng(*self.stream, "queries"), set[Contents]()
        if self.subject.kind != "own":
            pools = (self.subject.queries[option] for option in self.options)
            found = [draw_annotation(pool, taken, chance) for pool in pools if has_untaken(pool, taken)]
        else:
            pool = all_of(self.subject.queries)
            found = [draw_annotation(pool, taken, chance)]
            count = len(found[0].question.candidates)
            alike = [each for each in pool if len(each.question.candidates) == count]
            while self.choice and len(found) < min(count, count_different(alike)):
                found.append(draw_annotation(alike, taken, chance))
        return [found[place] for place in chance.permutation(len(found))]

    def left(self, taken: set[Contents]) -> list[str]:
        """The answers of which a support can still show one."""
        answers = sorted(self.subject.supports) if self.subject.kind == "own" else self.options
        return [answer for answer in answers if has_untaken(self.subject.supports[answer], taken)]

    def support(self, number: int, taken: set[Contents]) -> Turn:
        """A turn about what was not `taken` yet, and from now on is."""
        chance = rng(*self.stream, "support", number)
        if self.subject.kind == "own":
            found = draw_annotation(all_of(self.subject.supports), taken, chance)
        else:
            left = self.left(taken)
            option = left[int(chance.integers(len(left)))]
            if self.plan.balanced:
                block, place = divmod(number, len(self.options))
                due = self.options[int(rng(*self.stream, "round", block).permutation(len(self.options))[place])]
                option = due if due in left else option
            found = draw_annotation(self.subject.supports[option], taken, chance)
        return self.turn(found, number, "support")

    def turn(self, asked: Annotation, number: int, part: str) -> Turn:
        """The question as it is asked, and its answer. The right letters of an episode's queries are all different."""
        question = asked.question
        right = self.shown.get(question.answer, question.answer)
        turn = Turn(asked.item.id, question.answer, right, question.question, question.others)
        if self.plan.said:
            turn = replace(turn, item="", others=(), question=f"It is {right}. {turn.question}")
        if not self.choice:
            return turn
        texts = [self.shown.get(text, text) for text in self._listed(question)]
        return _lettered(turn, texts, number, part, *self.stream)

    def _listed(self, question: Question) -> list[str]:
        return list(question.candidates) if self.subject.kind == "own" else self.options


def with_letters(episode: Episode, *stream: Name) -> Episode:
    """An episode whose queries share their candidates, asked as a choice among letters.

    Raises `InputError` for more candidates than letters.
    """
    names = [candidate.name for candidate in episode.candidates]

    def turns(part: str, given: Sequence[Turn]) -> tuple[Turn, ...]:
        told = [replace(turn, question=turn.question or NAMING) for turn in given]
        return tuple(_lettered(turn, names, number, part, *stream, episode.id) for number, turn in enumerate(told))

    letters = tuple(Candidate(letter, letter, letter) for letter in LETTERS[: len(names)])
    support, queries = turns("support", episode.support), turns("query", episode.queries)
    return replace(episode, task=f"{episode.task} choice", candidates=letters, support=support, queries=queries)


def _lettered(turn: Turn, texts: Sequence[str], number: int, part: str, *stream: Name) -> Turn:
    """A choice, the options in an order of its own. Right letters of queries one after the other are all different."""
    if len(texts) > len(LETTERS):
        raise InputError(f"{turn.item}: {len(texts)} options, and there are letters for {len(LETTERS)}. Ask openly.")
    order = [texts[place] for place in rng(*stream, part, number, "letters").permutation(len(texts))]
    if part == "query":
        block, place = divmod(number, len(texts))
        wanted = int(rng(*stream, "letters", block).permutation(len(texts))[place])
        at = order.index(turn.answer)
        order[at], order[wanted] = order[wanted], order[at]
    letter = LETTERS[order.index(turn.answer)]
    told = " ".join(f"{key}. {text}" for key, text in zip(LETTERS, order, strict=False))
    asked = f"{turn.question} {told} Answer with the option's letter."
    return replace(turn, class_id=letter, answer=letter, question=asked)
