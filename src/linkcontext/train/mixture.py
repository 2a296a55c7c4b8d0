"""What a training learns from, example by example: link episodes among the base model's own tasks.

Example n of a run is a pure function of the mixture, the seed and n, so a run can stop and go on anywhere, and any
number of processes gets the same examples.

    link        link episodes of the data set
    icl         conversations that share a sense, about annotated pictures (`episodes.questions`)
    letters     choices among letters about what is said, not shown: how letters are answered with
    taught      questions about the concepts that the bundled models know by name
    FILE.json   (or .jsonl) the conversations of a LLaVA file, or the questions of a VQA file with the commonest answer
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.questions import TaskSampler
from linkcontext.episodes.scaffold import SCAFFOLDS, Message, Scaffold, build_messages
from linkcontext.episodes.scaffold import image_ids as shown
from linkcontext.errors import InputError
from linkcontext.evaluation.tasks.recall_questions import RecallQuestion, RecallTest
from linkcontext.records import Turn
from linkcontext.seeds import rng
from linkcontext.source import open_data
from linkcontext.train.samplers import Lessons, nth
from linkcontext.worlds import folder, questions
from linkcontext.worlds.concepts import Facts

FILES = (".json", ".jsonl")  # what a file of conversations ends in


@dataclass(frozen=True, slots=True)
class Example:
    """Conversations that begin alike. Of each the last answer is learnt. `pictures`: item id to (hash, place)."""

    id: str
    conversations: tuple[list[Message], ...]
    pictures: dict[str, tuple[str, Path]]


Check = Callable[[re.Pattern[str]], None]  # raises `InputError` for a text that holds one of the marks
Task = Callable[[int], Example]  # the examples of a task, by number


@dataclass(frozen=True)
class Mixture:
    """The tasks, which of them example n is of (int[N]), and which of that task's examples it is (int[N]).

    `checks` pass what the tasks may say through the gate of `episodes.special_tokens`.
    """

    tasks: tuple[Task, ...]
    which: NDArray[np.int64]
    number: NDArray[np.int64]
    checks: tuple[Check, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[tuple[float, Task]], examples: int, seed: int) -> "Mixture":
        """A run of so many examples; a longer one begins with a shorter."""
        which = picks([share for share, _ in parts], examples, seed)
        number = np.zeros(examples, np.int64)
        for task in range(len(parts)):
            number[which == task] = np.arange((which == task).sum())
        return cls(tuple(task for _, task in parts), which, number)

    def example(self, n: int) -> Example:
        """Example n of the run."""
        return self.tasks[int(self.which[n])](int(self.number[n]))


def picks(shares: Sequence[float], examples: int, seed: int) -> NDArray[np.int64]:
    """int[examples]: which task each example is of."""
    edges = np.cumsum(shares)[:-1]
    return np.searchsorted(edges, rng("train", seed, "mixture").random(examples), side="right")


def shares(words: Sequence[str]) -> dict[str, float]:
    """`link=0.5 taught=0.5` as numbers; where none has one, all are equal.

    Raises `InputError` for an unknown task, for numbers that are none or negative, and where they do not sum to 1.
    """
    written = " ".join(words)
    pairs = [(word.rpartition("=")[0] or word, word.rpartition("=")[2] if "=" in word else None) for word in words]
    for name, _ in pairs:
        if name not in ("link", "icl", "letters", "taught") and not name.endswith(FILES):
            raise InputError(
                f"--mixture {written}: {name!r} is none of link, icl, letters, taught or a file of conversations "
                "(FILE.json, FILE.jsonl)."
            )
    if not pairs or len({name for name, _ in pairs}) < len(pairs):
        raise InputError(f"--mixture {written}: name one task or more, each once.")
    if all(number is None for _, number in pairs):
        return {name: 1 / len(pairs) for name, _ in pairs}
    try:
        given = {name: float(number or "") for name, number in pairs}
    except ValueError as error:
        raise InputError(f"--mixture {written}: give each task a share, like link=0.5, or none of them.") from error
    if not all(share > 0 for share in given.values()) or not math.isclose(sum(given.values()), 1, abs_tol=1e-6):
        raise InputError(f"--mixture {written}: shares must be above 0 and sum to 1, not to {sum(given.values()):g}.")
    return given


def link(lessons: Lessons, dataset: Dataset, wording: Scaffold, every: bool) -> "Callable[..., Example]":
    """Link episodes; with `every` the answers of the support are learnt too."""
    if every and not wording.turns:
        raise InputError(f"--supervise every: with the scaffold {wording.name} a support has no answers. Use turns.")

    def make(index: int, count: int | None = None) -> Example:
        lesson = lessons.lesson(index, count)
        conversations = [build_messages(lesson.support, wording, query, query.answer) for query in lesson.queries]
        if every:
            supports = [build_messages(lesson.support[: n + 1], wording) for n in range(len(lesson.support))]
            conversations = supports + conversations
        return _example(lesson.id, conversations, dataset)

    return make


def icl(
    sampler: TaskSampler, dataset: Dataset, wording: Scaffold, every: bool, turns: Sequence[int], seed: int
) -> "Callable[..., Example]":
    """Conversations of a number of `turns`, each as likely; with `every` all answers are learnt, else the last."""
    name = "letters" if sampler.plan.text_only else "icl"
    if not wording.turns:
        raise InputError(f"--mixture {name}: the scaffold {wording.name} has no turns. Use turns.")

    def make(index: int, count: int | None = None) -> Example:
        if count is None:
            count = turns[int(rng("train", seed, "icl", "turns", index).integers(len(turns)))]
        support = sampler.episode(index, count).support
        ends = range(count) if every else [count - 1]
        conversations = [build_messages(support[: n + 1], wording) for n in ends]
        return _example(f"{name}/{index:07d}", conversations, dataset)

    return make


def taught(seed: int) -> Task:
    """One question about a taught concept: its name, a description, a count or an attribute."""
    dataset = open_data("world:replay")  # the retention benchmark asks about those of world:taught

    def make(index: int) -> Example:
        item = nth(dataset.items, index, "train", seed, "taught")
        stream = rng("train", seed, "taught", "asked", index)
        turn = _question_about(folder.facts_of(item.facts), item.name, item.id, stream)
        return _example(f"taught/{index:07d}", [build_messages((), SCAFFOLDS["turns"], turn, turn.answer)], dataset)

    return make


def _question_about(facts: Facts, name: str, picture: str, stream: np.random.Generator) -> Turn:
    """One question about a picture: half of the time its name, else a description, a count or an attribute."""
    kind = stream.random()
    turn = Turn(picture, "", name, str(stream.choice(questions.NAMING)))
    if kind < 0.5:
        return turn
    if kind < 0.7:
        return replace(turn, question=str(stream.choice(questions.DESCRIBING)), answer=questions.caption(facts))
    others = questions.attribute_questions(facts)
    question = others[2] if kind < 0.8 else others[int(stream.integers(len(others)))]  # counting is the third
    return replace(turn, question=question.question, answer=question.answer)


def from_file(exam: RecallTest, path: Path, seed: int) -> Task:
    """The answers drawn from a file; those of one conversation are together."""
    records: dict[str, list[RecallQuestion]] = {}
    for probe in exam.questions:
        records.setdefault(probe.id.partition("/")[0], []).append(probe)
    groups = list(records.values())

    def make(index: int) -> Example:
        probes = nth(groups, index, "train", seed, path.stem)
        conversations = [[*probe.messages, _answer(probe)] for probe in probes]
        return _example(f"{path.name}/{probes[0].id.partition('/')[0]}", conversations, exam.dataset)

    return make


def _answer(probe: RecallQuestion) -> Message:
    text = Counter(probe.gold).most_common(1)[0][0]
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _example(name: str, conversations: Sequence[list[Message]], dataset: Dataset) -> Example:
    items = dict.fromkeys(item for messages in conversations for item in shown(messages))
    return Example(
        name, tuple(conversations), {item: (dataset.item(item).sha256, dataset.path(item)) for item in items}
    )
