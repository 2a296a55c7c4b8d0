"""Conversations with a sense: turns about one concept, so that an answer informs the next (arXiv 2403.12736).

A *subject* is one concept of one task (attribute/colour, count/things, ...): its questions mean the same. An episode
asks about one subject after a support drawn by its coherence:

    concept   turns about the query's subject: its options come equally often by lot, in no order
    task      turns about any subject of the task
    none      turns about any subject of any task

Three kinds of answers. *Shared*: all questions of a subject have the same candidates, of which some are the episode's
options. *Own*: every question brings its candidates. *Invented*: questions without candidates; the episode names the
answers anew, so that the support alone can tell them.

In an open episode the candidates are answers; in a choice episode every question lists the options behind letters in
an order of its own, and the candidates are letters. Every candidate is right equally often among the queries of an
episode (but for own candidates asked openly, one query an episode), so that no answer that ignores the picture is right
more often than by chance. Episode i is a pure function of the plan, the data and i. Shots are counted in all: the
support has no classes, which `ways=1` says.
"""

from collections.abc import Sequence
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
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    episodes: int = 256
    names: NameKind = "pseudo"  # of invented answers
    seed: int = 0
    support_split: str | None = None
    query_split: str | None = None
    only: bool = False  # supports without coherence are about `tasks` too; else about all there are
    said: bool = False  # what is seen is said in front of the question, and no picture is shown


Asked = tuple[Item, Question]


@dataclass(frozen=True)
class Subject:
    """One concept of one task, and by answer the pictures for a support and those to ask about."""

    task: str
    concept: str
    supports: dict[str, tuple[Asked, ...]]
    queries: dict[str, tuple[Asked, ...]]

    @property
    def name(self) -> str:
        """As in records and rows."""
        return f"{self.task}/{self.concept}"

    @cached_property
    def kind(self) -> Literal["shared", "own", "invented"]:
        """Where the candidates come from."""
        sets = {question.candidates for _, question in (*_all(self.supports), *_all(self.queries))}
        if sets == {()}:
            return "invented"
        return "shared" if len(sets) == 1 else "own"

    def usable(self, plan: "TalkPlan") -> "Subject | None":
        """Without answers that have too few pictures for any support; None if two are not left, or nothing to ask."""
        needed = self.needed(plan)
        if self._unfit(plan):
            return None
        if self.kind == "own":
            return self if _pictures(_all(self.supports)) >= needed and _all(self.queries) else None
        kept = [answer for answer, found in self.supports.items() if _pictures(found) >= needed]
        sides = ({answer: side[answer] for answer in kept} for side in (self.supports, self.queries))
        left = Subject(self.task, self.concept, *sides)
        return left if len(kept) > 1 and _all(left.queries) else None

    def needed(self, plan: "TalkPlan") -> int:
        """How many pictures an episode takes in all from those of a support: one may answer several questions."""
        count = max(plan.options, *(len(question.candidates) for _, question in _all(self.queries)), 0)
        asked = count if self.kind == "own" else plan.options
        return max(plan.shots) + (asked if plan.support_split == plan.query_split else 0)

    def _unfit(self, plan: "TalkPlan") -> str:
        """Why none of it can be asked, whatever pictures there are."""
        counts = {len(question.candidates) for _, question in (*_all(self.supports), *_all(self.queries))}
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
            lacks = f"no two answers have {needed} pictures; the commonest has {most}"
        return LeftOut(self.name, pictures, self._unfit(plan) or lacks)


@dataclass(frozen=True)
class Talks:
    """The subjects of a data set under a plan; `talk` makes any episode alone."""

    plan: TalkPlan
    subjects: tuple[Subject, ...]
    others: tuple[Subject, ...]  # what supports without coherence are about
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
        kept = {s.name: left for s in found if (left := s.usable(plan))}
        usable = tuple(kept[s.name] for s in chosen if s.name in kept)
        left_out = [s.lacking(plan) for s in chosen if s.name not in kept]
        if not usable:
            lacks = "; ".join(f"{left.class_id}: {left.lacks}" for left in left_out[:3])
            raise InputError(
                f"{dataset.root}: nothing that is asked for can be asked ({lacks or 'no picture has a question'}). "
                "Use scenes:SEED, data with questions, or fewer --shots."
            )
        return cls(plan, usable, usable if plan.only else tuple(kept.values()), tuple(left_out))

    def episodes(self) -> tuple[Episode, ...]:
        """All of the plan. Every subject comes equally often."""
        return tuple(self.talk(index) for index in range(self.plan.episodes))

    def talk(self, index: int, turns: int | None = None) -> Episode:
        """Episode `index`; with `turns` its support is that long instead of the plan's."""
        plan, stream = self.plan, ("talk", self.plan.seed, index)
        block, place = divmod(index, len(self.subjects))
        subject = self.subjects[int(rng("talk", plan.seed, "subjects", block).permutation(len(self.subjects))[place])]
        choice = plan.form == "choice" or (plan.form == "mixed" and rng(*stream, "form").random() < 0.5)
        voice = Voice(subject, plan, choice, stream)
        taken = {item.sha256 for item, _ in voice.queries}
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
            queries=tuple(voice.turn(*query, number, "query") for number, query in enumerate(voice.queries)),
        )

    def _voice(self, voice: "Voice", *stream: Name) -> "Voice":
        """Whose question a support turn has."""
        if self.plan.coherence == "concept":
            return voice
        task = voice.subject.task
        pool = [s for s in self.others if self.plan.coherence == "none" or s.task == task]
        return Voice(pool[int(rng(*stream, "subject").integers(len(pool)))], self.plan, voice.choice, stream)


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
            count = len(self._listed(self.queries[0][1]))
            return tuple(Candidate(letter, letter, letter) for letter in LETTERS[:count])
        if self.subject.kind == "own":
            return tuple(Candidate(text, text, text) for text in sorted(self.queries[0][1].candidates))
        return tuple(sorted((Candidate(o, self.shown[o], o) for o in self.options), key=lambda c: c.name))

    def _queries(self) -> list[Asked]:
        """Different pictures to ask about: one for each candidate to be right once."""
        chance, taken = rng(*self.stream, "queries"), set[str]()
        if self.subject.kind != "own":
            pools = (self.subject.queries[option] for option in self.options)
            found = [_free(pool, taken, chance) for pool in pools if any(item.sha256 not in taken for item, _ in pool)]
        else:
            pool = _all(self.subject.queries)
            found = [_free(pool, taken, chance)]
            count = len(found[0][1].candidates)
            alike = [pair for pair in pool if len(pair[1].candidates) == count]
            while self.choice and len(found) < min(count, _pictures(alike)):
                found.append(_free(alike, taken, chance))
        return [found[place] for place in chance.permutation(len(found))]

    def support(self, number: int, taken: set[str]) -> Turn:
        """A turn about a picture that was not `taken` yet, and from now on is."""
        chance = rng(*self.stream, "support", number)
        if self.subject.kind == "own":
            pair = _free(_all(self.subject.supports), taken, chance)
        else:
            pair = _free(self.subject.supports[self.options[int(chance.integers(len(self.options)))]], taken, chance)
        return self.turn(*pair, number, "support")

    def turn(self, item: Item, question: Question, number: int, part: str) -> Turn:
        """The question as it is asked, and its answer. The right letters of an episode's queries are all different."""
        right = self.shown.get(question.answer, question.answer)
        picture, words = item.id, question.question
        if self.plan.said:
            picture, words = "", f"It is {right}. {words}"
        if not self.choice:
            return Turn(picture, question.answer, right, words)
        texts = [self.shown.get(text, text) for text in self._listed(question)]
        return _lettered(picture, words, texts, right, number, part, *self.stream)

    def _listed(self, question: Question) -> list[str]:
        return list(question.candidates) if self.subject.kind == "own" else self.options


def with_letters(episode: Episode, *stream: Name) -> Episode:
    """An episode whose queries share their candidates, asked as a choice among letters.

    Raises `InputError` for more candidates than letters.
    """
    names = [candidate.name for candidate in episode.candidates]

    def turns(part: str, given: Sequence[Turn]) -> tuple[Turn, ...]:
        told = [(turn.item, turn.question or NAMING, names, turn.answer) for turn in given]
        return tuple(_lettered(*each, number, part, *stream, episode.id) for number, each in enumerate(told))

    letters = tuple(Candidate(letter, letter, letter) for letter in LETTERS[: len(names)])
    support, queries = turns("support", episode.support), turns("query", episode.queries)
    return replace(episode, task=f"{episode.task} choice", candidates=letters, support=support, queries=queries)


def _lettered(
    item: str, question: str, texts: Sequence[str], right: str, number: int, part: str, *stream: Name
) -> Turn:
    """A choice, the options in an order of its own. Right letters of queries one after the other are all different."""
    if len(texts) > len(LETTERS):
        raise InputError(f"{item}: {len(texts)} options, and there are letters for {len(LETTERS)}. Ask openly.")
    order = [texts[place] for place in rng(*stream, part, number, "letters").permutation(len(texts))]
    if part == "query":
        block, place = divmod(number, len(texts))
        wanted = int(rng(*stream, "letters", block).permutation(len(texts))[place])
        at = order.index(right)
        order[at], order[wanted] = order[wanted], order[at]
    letter = LETTERS[order.index(right)]
    told = " ".join(f"{key}. {text}" for key, text in zip(LETTERS, order, strict=False))
    return Turn(item, letter, letter, f"{question} {told} Answer with the option's letter.")


def asked(item: Item) -> tuple[Question, ...]:
    """What can be asked about a picture: its annotations' questions, or else what it is called."""
    if item.questions:
        return item.questions
    return (Question("naming", "class", NAMING, item.name),)


def _subjects(dataset: Dataset, plan: TalkPlan) -> tuple[Subject, ...]:
    """All subjects of a data set, a picture once for each answer, sorted by name."""
    found: dict[tuple[str, str], dict[str, dict[str, Asked]]] = {}
    for item in sorted(dataset.items, key=lambda item: item.id):
        for question in asked(item):
            answers = found.setdefault((question.task, question.concept), {})
            answers.setdefault(question.answer, {}).setdefault(item.sha256, (item, question))

    def side(answers: dict[str, dict[str, Asked]], split: str | None) -> dict[str, tuple[Asked, ...]]:
        return {
            answer: tuple(pair for pair in pairs.values() if split in (None, pair[0].split))
            for answer, pairs in sorted(answers.items())
        }

    return tuple(
        Subject(*names, side(answers, plan.support_split), side(answers, plan.query_split))
        for names, answers in sorted(found.items())
    )


def _all(side: dict[str, tuple[Asked, ...]]) -> tuple[Asked, ...]:
    return tuple(pair for asked in side.values() for pair in asked)


def _pictures(asked: Sequence[Asked]) -> int:
    return len({item.sha256 for item, _ in asked})


def _free(pool: Sequence[Asked], taken: set[str], chance: np.random.Generator) -> Asked:
    """One of the pool whose picture is not taken, and from now on is."""
    free = [pair for pair in pool if pair[0].sha256 not in taken]
    pair = free[int(chance.integers(len(free)))]
    taken.add(pair[0].sha256)
    return pair


def _check(plan: TalkPlan) -> None:
    if not 2 <= plan.options <= len(LETTERS):
        raise InputError(f"--options {plan.options}: give 2 to {len(LETTERS)}.")
    if plan.episodes < 1 or not plan.shots or min(plan.shots) < 0:
        raise InputError(f"--shots {plan.shots}, --episodes {plan.episodes}: give at least one, none below 0.")
