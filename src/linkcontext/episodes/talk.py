"""Conversations with a sense: turns about one concept, so that an answer informs the next (arXiv 2403.12736).

A *subject* is one concept of one task (attribute/colour, count/things, ...): its questions mean the same. An episode
asks about one subject after a support drawn by its coherence:

    concept   turns about the query's subject: its options come equally often, by lot or in rounds
    task      turns about any subject of the task
    none      turns about any subject of any task

What is shown in an episode, a picture or several together, is shown once, and the pictures of a query in no order
before it. An option whose pictures are used up comes no
more; so few are put up with that each has its share of a support. A subject may have *contexts*, sets of questions with
names of their own (VL-ICL's fast binding), that are asked about in turn.

Three kinds of answers. *Shared*: all questions of a subject have the same candidates, of which some are the episode's
options. *Own*: every question brings its candidates. *Invented*: questions without candidates; the episode names the
answers anew, so that the support alone can tell them.

In an open episode the candidates are answers; in a choice episode every question lists the options behind letters in
an order of its own, and the candidates are letters. Every candidate is right equally often among the queries of an
episode (but for own candidates asked openly, one query an episode), so that no answer that ignores the picture is right
more often than by chance. Episode i is a pure function of the plan, the data and i. Shots are counted in all: the
support has no classes, which `ways=1` says.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.pool import LeftOut
from linkcontext.errors import InputError
from linkcontext.records import Candidate, Episode, Item, Question, Turn
from linkcontext.seeds import Name, rng
from linkcontext.world.names import NameKind, shown_names

Coherence = Literal["concept", "task", "none"]
Form = Literal["open", "choice", "caption", "mixed"]
HELD_OUT = ("relation", "same-different", "rule")  # task types that nothing is trained on or chosen by
LETTERS = "ABCDEFGH"
NAMING = "What is this?"


@dataclass(frozen=True, slots=True)
class TalkPlan:
    """What to draw. `shots` are counted in all. `tasks` are tasks, or subjects as task/concept; none: all there are."""

    tasks: tuple[str, ...] = ()
    coherence: Coherence = "concept"
    form: Form = "open"
    options: int = 4  # answers in play, at most
    balanced: bool = False  # every option once in a support before one comes again
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    episodes: int = 256
    names: NameKind = "pseudo"  # of invented answers
    seed: int = 0
    support_split: str | None = None
    query_split: str | None = None
    only: bool = False  # supports without coherence are about `tasks` too; else about all there are
    said: bool = False  # what is seen is said in front of the question, and no picture is shown


Seen = tuple[str, ...] | frozenset[tuple[str, int]]  # pictures in this order, or in any


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a picture, and what is seen in all pictures that it is about: in order, and in any order."""

    item: Item
    question: Question
    contents: tuple[str, ...]
    together: frozenset[tuple[str, int]]

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
    supports: dict[str, tuple[Asked, ...]]
    queries: dict[str, tuple[Asked, ...]]

    @property
    def name(self) -> str:
        """As in records and rows; all contexts have it."""
        return f"{self.task}/{self.concept}"

    @cached_property
    def kind(self) -> Literal["shared", "own", "invented"]:
        """Where the candidates come from."""
        sets = {each.question.candidates for each in (*_all(self.supports), *_all(self.queries))}
        if sets == {()}:
            return "invented"
        return "shared" if len(sets) == 1 else "own"

    def usable(self, plan: "TalkPlan") -> "Subject | None":
        """Without answers that have too few pictures for a support; None if two are not left, or nothing to ask."""
        if self._unfit(plan):
            return None
        if self.kind == "own":
            return self if _pictures(_all(self.supports)) >= self.needed(plan) and _all(self.queries) else None
        counts = {answer: _pictures(found) for answer, found in self.supports.items()}
        for options in range(min(plan.options, len(counts)), 1, -1):
            kept = [answer for answer, count in counts.items() if count >= self._share(plan, options)]
            if len(kept) >= options:
                sides = ({answer: side[answer] for answer in kept} for side in (self.supports, self.queries))
                left = Subject(self.task, self.concept, self.context, *sides)
                return left if _all(left.queries) else None
        return None

    def needed(self, plan: "TalkPlan") -> int:
        """How many pictures an episode takes in all from those of a support: one may answer several questions."""
        count = max(plan.options, *(len(each.question.candidates) for each in _all(self.queries)), 0)
        asked = count if self.kind == "own" else plan.options
        queries = {each.together for each in _all(self.queries)}
        again = Counter({each.contents: each.together for each in _all(self.supports)}.values())
        return max(plan.shots) + asked * max((count for seen, count in again.items() if seen in queries), default=0)

    def _share(self, plan: "TalkPlan", options: int) -> int:
        """How many pictures each of so many answers must have, for all to have enough together."""
        found = _all(self.supports)
        alone = _pictures(found) < len(found)  # some have two answers: then each must have enough by itself
        return self.needed(plan) if alone else -(-self.needed(plan) // options)

    def _unfit(self, plan: "TalkPlan") -> str:
        """Why none of it can be asked, whatever pictures there are."""
        counts = {len(each.question.candidates) for each in (*_all(self.supports), *_all(self.queries))}
        if not _all(self.queries):
            return "no query is about it"
        if len(counts) > 1 and 0 in counts:
            return "some of its questions have candidates, and some none"
        if plan.form in ("choice", "mixed") and self.kind == "own" and max(counts) > len(LETTERS):
            return f"a question has {max(counts)} options, and there are letters for {len(LETTERS)}"
        return ""

    def lacking(self, plan: "TalkPlan") -> LeftOut:
        """For the list of what could not be asked."""
        needed, pictures = self.needed(plan), _pictures(_all(self.supports))
        lacks = f"it takes {needed} pictures and has {pictures}"
        if self.kind != "own":
            most = max((_pictures(found) for found in self.supports.values()), default=0)
            lacks = f"no two answers have {self._share(plan, 2)} pictures; the commonest has {most}"
        return LeftOut(self.name, pictures, self._unfit(plan) or lacks)


@dataclass(frozen=True)
class Talks:
    """The subjects of a data set under a plan; `talk` makes any episode alone."""

    plan: TalkPlan
    subjects: tuple[tuple[Subject, ...], ...]  # the contexts of each
    others: tuple[tuple[Subject, ...], ...]  # what supports without coherence are about
    left_out: tuple[LeftOut, ...]  # subjects that were asked for and have too few pictures

    @classmethod
    def of(cls, dataset: Dataset, plan: TalkPlan) -> "Talks":
        """Raises `InputError` for a plan that cannot be, and where no picture answers what is asked."""
        _check(plan)
        found = _subjects(dataset, plan)
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
        left_out = tuple(_lacking(chosen, kept, plan))
        if not usable:
            lacks = "; ".join(f"{left.class_id}: {left.lacks}" for left in left_out[:3])
            raise InputError(
                f"{dataset.root}: nothing that is asked for can be asked ({lacks or 'no picture has a question'}). "
                "Use scenes:SEED, data with questions, or fewer --shots."
            )
        return cls(plan, usable, usable if plan.only else tuple(kept.values()), left_out)

    def episodes(self) -> tuple[Episode, ...]:
        """All of the plan. Every subject comes equally often."""
        return tuple(self.talk(index) for index in range(self.plan.episodes))

    def talk(self, index: int, turns: int | None = None) -> Episode:
        """Episode `index`; with `turns` its support is that long instead of the plan's."""
        plan, stream = self.plan, ("talk", self.plan.seed, index)
        block, place = divmod(index, len(self.subjects))
        contexts = self.subjects[int(rng("talk", plan.seed, "subjects", block).permutation(len(self.subjects))[place])]
        again, place = divmod(block, len(contexts))
        order = rng("talk", plan.seed, "contexts", contexts[0].name, again).permutation(len(contexts))
        subject = contexts[int(order[place])]
        choice = plan.form == "choice" or (plan.form == "mixed" and rng(*stream, "form").random() < 0.5)
        voice = Voice(subject, plan, choice, stream)
        taken: set[Seen] = {query.together for query in voice.queries}
        length = max(plan.shots) if turns is None else turns
        support = tuple(self._voice(voice, *stream, number).support(number, taken) for number in range(length))
        told = "" if plan.coherence == "concept" else f" {plan.coherence}-coherent"
        return Episode(
            id=f"e{index:05d}",
            task=f"{subject.name} {'choice' if choice else 'open'}{told}",
            names=plan.names if subject.kind == "invented" else "real",
            ways=1,
            shots_per_class=tuple(sorted(plan.shots)) if turns is None else (length,),
            candidates=voice.candidates,
            support=support,
            queries=tuple(voice.turn(query, number, "query") for number, query in enumerate(voice.queries)),
        )

    def _voice(self, voice: "Voice", *stream: Name) -> "Voice":
        """Whose question a support turn has."""
        if self.plan.coherence == "concept":
            return voice
        task, chance = voice.subject.task, rng(*stream, "subject")
        pool = [contexts for contexts in self.others if self.plan.coherence == "none" or contexts[0].task == task]
        contexts = pool[int(chance.integers(len(pool)))]
        return Voice(contexts[int(chance.integers(len(contexts)))], self.plan, voice.choice, stream)


class Voice:
    """A subject in one episode: its options, their names, its queries, and how turns are worded."""

    def __init__(self, subject: Subject, plan: TalkPlan, choice: bool, stream: tuple[Name, ...]) -> None:
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

    def _queries(self) -> list[Asked]:
        """Different pictures to ask about: one for each candidate to be right once."""
        chance, taken = rng(*self.stream, "queries"), set[Seen]()
        if self.subject.kind != "own":
            pools = (self.subject.queries[option] for option in self.options)
            found = [_free(pool, taken, chance) for pool in pools if _left(pool, taken)]
        else:
            pool = _all(self.subject.queries)
            found = [_free(pool, taken, chance)]
            count = len(found[0].question.candidates)
            alike = [each for each in pool if len(each.question.candidates) == count]
            while self.choice and len(found) < min(count, _pictures(alike)):
                found.append(_free(alike, taken, chance))
        return [found[place] for place in chance.permutation(len(found))]

    def support(self, number: int, taken: set[Seen]) -> Turn:
        """A turn about what was not `taken` yet, and from now on is."""
        chance = rng(*self.stream, "support", number)
        if self.subject.kind == "own":
            found = _free(_all(self.subject.supports), taken, chance)
        else:
            left = [option for option in self.options if _left(self.subject.supports[option], taken)]
            option = left[int(chance.integers(len(left)))]
            if self.plan.balanced:
                block, place = divmod(number, len(self.options))
                due = self.options[int(rng(*self.stream, "round", block).permutation(len(self.options))[place])]
                option = due if due in left else option
            found = _free(self.subject.supports[option], taken, chance)
        return self.turn(found, number, "support")

    def turn(self, asked: Asked, number: int, part: str) -> Turn:
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


def asked(item: Item) -> tuple[Question, ...]:
    """What can be asked about a picture: its annotations' questions, or else what it is called."""
    if item.questions:
        return item.questions
    return (Question("naming", "class", NAMING, item.name),)


def _subjects(dataset: Dataset, plan: TalkPlan) -> tuple[Subject, ...]:
    """All subjects of a data set, what is seen once for each answer, sorted by name."""
    found: dict[tuple[str, str, str], dict[str, list[Asked]]] = {}
    beside = {other for item in dataset.items for question in item.questions for other in question.others}
    for item in sorted(dataset.items, key=lambda item: item.id):
        if item.id in beside and not item.questions:
            continue
        for question in asked(item):
            answers = found.setdefault((question.task, question.concept, question.context), {})
            contents = dataset.contents((item.id, *question.others))
            together = frozenset(Counter(contents).items())
            answers.setdefault(question.answer, []).append(Asked(item, question, contents, together))

    def side(answers: dict[str, list[Asked]], split: str | None) -> dict[str, tuple[Asked, ...]]:
        kept = {}
        for answer, told in sorted(answers.items()):
            once: dict[tuple[str, ...], Asked] = {}
            for each in told:
                if split in (None, each.split):
                    once.setdefault(each.contents, each)
            kept[answer] = tuple(once.values())
        return kept

    return tuple(
        Subject(*names, side(answers, plan.support_split), side(answers, plan.query_split))
        for names, answers in sorted(found.items())
    )


def _lacking(chosen: Sequence[Subject], kept: dict[str, tuple[Subject, ...]], plan: TalkPlan) -> Iterator[LeftOut]:
    """What is left out, a line for each subject: whole, or some of its contexts."""
    lost: dict[str, list[Subject]] = {}
    for subject in chosen:
        if all(subject.context != other.context for other in kept.get(subject.name, ())):
            lost.setdefault(subject.name, []).append(subject)
    for name, subjects in lost.items():
        first = subjects[0].lacking(plan)
        of = f"{len(subjects)} of {len(subjects) + len(kept[name])} contexts: " if name in kept else ""
        yield replace(first, lacks=f"{of}{first.lacks}")


def _all(side: dict[str, tuple[Asked, ...]]) -> tuple[Asked, ...]:
    return tuple(each for asked in side.values() for each in asked)


def _pictures(asked: Sequence[Asked]) -> int:
    """Pictures, or pairs of them, that differ."""
    return len({each.contents for each in asked})


def _left(pool: Sequence[Asked], taken: set[Seen]) -> bool:
    return any(each.contents not in taken and each.together not in taken for each in pool)


def _free(pool: Sequence[Asked], taken: set[Seen], chance: np.random.Generator) -> Asked:
    """One of the pool whose pictures are not taken, and from now on are."""
    free = [each for each in pool if each.contents not in taken and each.together not in taken]
    found = free[int(chance.integers(len(free)))]
    taken.add(found.contents)
    return found


def _check(plan: TalkPlan) -> None:
    if not 2 <= plan.options <= len(LETTERS):
        raise InputError(f"--options {plan.options}: give 2 to {len(LETTERS)}.")
    if plan.episodes < 1 or not plan.shots or min(plan.shots) < 0:
        raise InputError(f"--shots {plan.shots}, --episodes {plan.episodes}: give at least one, none below 0.")
