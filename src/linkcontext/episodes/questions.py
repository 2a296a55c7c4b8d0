"""Draw episodes of questions about one concept, whose support turns inform the query (arXiv 2403.12736).

An episode asks about one subject (`episodes.annotations`: attribute/colour, count/things, ...). The contexts of a
subject take turns. The support depends on the plan's coherence:

    concept   turns about the query's subject; its options are drawn at random or in rounds, as long as pictures last
    task      turns about any subject of the task
    none      turns about any subject of any task

If candidates are shared, an episode uses some of them as its options. If they are invented, the episode gives them new
names, which only its support explains.

The candidates of an open episode are answers. In a choice episode, each question lists the options after letters, in
its own order, and the candidates are the letters. Each candidate is right equally often among the queries of an
episode, so a policy that ignores the picture is at chance. Open episodes with own candidates are an exception, because
they have one query. Episode i is a pure function of the plan, the data and i. Shots count the pictures of the whole
support, which has no classes; such episodes have `ways=1`.
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
    all_annotations,
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

HELD_OUT = ("relation", "same-different", "rule")  # types of tasks that are used neither in training nor to tune


@dataclass(frozen=True)
class TaskSampler:
    """The usable subjects of a data set under a plan. `episode` draws any episode by its index."""

    plan: TaskPlan
    subjects: tuple[tuple[Subject, ...], ...]  # for each subject its contexts
    others: tuple[tuple[Subject, ...], ...]  # the subjects of supports without coherence
    left_out: tuple[LeftOut, ...]  # subjects of the plan with too few pictures

    @classmethod
    def of(cls, dataset: Dataset, plan: TaskPlan) -> "TaskSampler":
        """Find the usable subjects. Raises `InputError` for an impossible plan, and if no subject is usable."""
        check_task_plan(plan)
        known = subjects(dataset, plan)
        unknown = [t for t in plan.tasks if not any(t in (s.task, s.name) for s in known)]
        listed = ", ".join(sorted({s.task for s in known} | {s.name for s in known}))
        if unknown:
            raise InputError(f"--tasks {unknown[0]}: {dataset.root} has no such task, only {listed}.")
        if plan.form == "caption":
            known = tuple(s for s in known if s.task == "caption")
        chosen = tuple(s for s in known if not plan.tasks or s.task in plan.tasks or s.name in plan.tasks)
        if not chosen:
            raise InputError(f"--format caption: no task is a caption; the data have {listed or 'no questions'}.")
        kept: dict[str, tuple[Subject, ...]] = {}
        for each in known:
            if left := each.usable(plan):
                kept[each.name] = (*kept.get(each.name, ()), left)
        usable = tuple(kept[name] for name in dict.fromkeys(s.name for s in chosen) if name in kept)
        left_out = tuple(left_out_subjects(chosen, kept, plan))
        if not usable:
            shortfall = "; ".join(f"{left.class_id}: {left.shortfall}" for left in left_out[:3])
            raise InputError(
                f"{dataset.root}: no subject can be used ({shortfall or 'no picture has a question'}). "
                "Use scenes:SEED, data with questions, or fewer --shots-per-class."
            )
        return cls(plan, usable, usable if plan.only else tuple(kept.values()), left_out)

    def episodes(self) -> tuple[Episode, ...]:
        """All episodes of the plan, with every subject equally often."""
        return tuple(self.episode(index) for index in range(self.plan.episodes))

    def episode(self, index: int, turns: int | None = None) -> Episode:
        """Draw episode `index`. With `turns`, its support has that many turns instead of the plan's."""
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
        suffix = "" if plan.coherence == "concept" else f" {plan.coherence}-coherent"
        return Episode(
            id=f"e{index:05d}",
            task=f"{subject.name} {'choice' if choice else 'open'}{suffix}",
            names=plan.names if subject.kind == "invented" else "real",
            ways=1,
            shots_per_class=tuple(sorted(plan.shots)) if turns is None else (length,),
            candidates=writer.candidates,
            support=support,
            queries=tuple(writer.turn(query, number, "query") for number, query in enumerate(writer.queries)),
        )

    def _support_writer(self, writer: "QuestionWriter", taken: set[Contents], number: int) -> "QuestionWriter":
        """The writer of support turn `number`, by the plan's coherence.

        An episode uses one context of each subject, and for the query's subject the query's context. If all pictures of
        the drawn subject are taken, the query's writer is used, which has enough pictures for every turn.
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
    """A subject in one episode: its options, their names, its queries, and the questions of its turns."""

    def __init__(self, subject: Subject, plan: TaskPlan, choice: bool, stream: tuple[Name, ...]) -> None:
        self.subject, self.plan, self.choice, self.stream = subject, plan, choice, stream
        answers = sorted(subject.queries)
        order = [answers[place] for place in rng(*stream, "options").permutation(len(answers))]
        order.sort(key=lambda answer: not subject.queries[answer])  # answers without a query come last
        self.options = sorted(order[: plan.options])
        self.shown = dict(zip(answers, answers, strict=True))
        if subject.kind == "invented":
            self.shown = dict(zip(self.options, shown_names(plan.names, self.options, *stream), strict=True))
        self.queries = self._queries()

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the episode's queries."""
        if self.choice:
            count = len(self._listed(self.queries[0].question))
            return tuple(Candidate(letter, letter, letter) for letter in LETTERS[:count])
        if self.subject.kind == "own":
            return tuple(Candidate(text, text, text) for text in sorted(self.queries[0].question.candidates))
        return tuple(sorted((Candidate(o, self.shown[o], o) for o in self.options), key=lambda c: c.name))

    def _queries(self) -> list[Annotation]:
        """Queries about different pictures, in which each candidate is right once."""
        generator, taken = rng(*self.stream, "queries"), set[Contents]()
        if self.subject.kind != "own":
            pools = (self.subject.queries[option] for option in self.options)
            drawn = [draw_annotation(pool, taken, generator) for pool in pools if has_untaken(pool, taken)]
        else:
            pool = all_annotations(self.subject.queries)
            drawn = [draw_annotation(pool, taken, generator)]
            count = len(drawn[0].question.candidates)
            alike = [each for each in pool if len(each.question.candidates) == count]
            while self.choice and len(drawn) < min(count, count_different(alike)):
                drawn.append(draw_annotation(alike, taken, generator))
        return [drawn[place] for place in generator.permutation(len(drawn))]

    def left(self, taken: set[Contents]) -> list[str]:
        """The answers that have a picture which is not `taken`."""
        answers = sorted(self.subject.supports) if self.subject.kind == "own" else self.options
        return [answer for answer in answers if has_untaken(self.subject.supports[answer], taken)]

    def support(self, number: int, taken: set[Contents]) -> Turn:
        """A support turn about a picture that is not `taken`, which is then added to `taken`."""
        generator = rng(*self.stream, "support", number)
        if self.subject.kind == "own":
            drawn = draw_annotation(all_annotations(self.subject.supports), taken, generator)
        else:
            left = self.left(taken)
            option = left[int(generator.integers(len(left)))]
            if self.plan.balanced:
                block, place = divmod(number, len(self.options))
                due = self.options[int(rng(*self.stream, "round", block).permutation(len(self.options))[place])]
                option = due if due in left else option
            drawn = draw_annotation(self.subject.supports[option], taken, generator)
        return self.turn(drawn, number, "support")

    def turn(self, annotation: Annotation, number: int, part: str) -> Turn:
        """The turn of an annotation with its name for the answer, and in a choice episode with letters."""
        question = annotation.question
        right = self.shown.get(question.answer, question.answer)
        turn = Turn(annotation.item.id, question.answer, right, question.question, question.others)
        if self.plan.text_only:
            turn = replace(turn, item="", others=(), question=f"It is {right}. {turn.question}")
        if not self.choice:
            return turn
        texts = [self.shown.get(text, text) for text in self._listed(question)]
        return _lettered(turn, texts, number, part, *self.stream)

    def _listed(self, question: Question) -> list[str]:
        return list(question.candidates) if self.subject.kind == "own" else self.options


def with_letters(episode: Episode, *stream: Name) -> Episode:
    """Convert an episode whose queries share their candidates into a choice among letters.

    Raises `InputError` for more candidates than letters.
    """
    names = [candidate.name for candidate in episode.candidates]

    def turns(part: str, given: Sequence[Turn]) -> tuple[Turn, ...]:
        worded = (replace(turn, question=turn.question or NAMING) for turn in given)
        return tuple(_lettered(turn, names, number, part, *stream, episode.id) for number, turn in enumerate(worded))

    letters = tuple(Candidate(letter, letter, letter) for letter in LETTERS[: len(names)])
    support, queries = turns("support", episode.support), turns("query", episode.queries)
    return replace(episode, task=f"{episode.task} choice", candidates=letters, support=support, queries=queries)


def _lettered(turn: Turn, texts: Sequence[str], number: int, part: str, *stream: Name) -> Turn:
    """The turn as a choice among the options `texts` in a random order.

    The right letters of consecutive queries are all different, until every letter was right once.
    """
    if len(texts) > len(LETTERS):
        raise InputError(f"{turn.item}: {len(texts)} options, but there are only {len(LETTERS)} letters. Ask openly.")
    order = [texts[place] for place in rng(*stream, part, number, "letters").permutation(len(texts))]
    if part == "query":
        block, place = divmod(number, len(texts))
        wanted = int(rng(*stream, "letters", block).permutation(len(texts))[place])
        at = order.index(turn.answer)
        order[at], order[wanted] = order[wanted], order[at]
    letter = LETTERS[order.index(turn.answer)]
    options = " ".join(f"{key}. {text}" for key, text in zip(LETTERS, order, strict=False))
    question = f"{turn.question} {options} Answer with the option's letter."
    return replace(turn, class_id=letter, answer=letter, question=question)
