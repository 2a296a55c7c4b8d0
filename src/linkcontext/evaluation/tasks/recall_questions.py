"""Questions without a support: what a model is asked to see whether it still knows what it was taught."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message, Scaffold, build_messages, image_ids
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.records import Item, Turn
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.seeds import rng
from linkcontext.worlds import questions
from linkcontext.worlds.concepts import Facts, Part

Thing = TypeVar("Thing")

TASKS = ("naming", "counting", "describing")
CHOICES = 10  # names among which a picture's name is found by likelihood


@dataclass(frozen=True, slots=True)
class RecallQuestion:
    """A question and its right answer: `messages` end where the model is to speak.

    `gold` is one answer, or those of several people; `candidates` are there where likelihood decides too.
    Probes of one `cluster`, a class or a picture, stand and fall together.
    """

    id: str
    task: str
    cluster: str
    messages: tuple[Message, ...]
    gold: tuple[str, ...]
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecallAnswer:
    """What a model made of one probe: its reply, and the log-probability (nats) of each candidate."""

    probe: str
    reply: str
    logprobs: tuple[float, ...] = ()
    engine: str = ""


@dataclass(frozen=True, slots=True)
class RecallTest:
    """Probes and the pictures they ask about.

    `names` are all that a reply may name, `total` is how many probes the data would have given.
    """

    dataset: Dataset
    probes: tuple[RecallQuestion, ...]
    names: tuple[str, ...]
    total: int


def world_recall_test(dataset: Dataset, wording: Scaffold, count: int, seed: int) -> RecallTest:
    """Naming, counting and describing, up to `count` questions of each, about pictures that come with facts.

    Raises `InputError` for pictures without facts, and below ten names.
    """
    names = tuple(sorted({item.name for item in dataset.items}))
    if len(names) < CHOICES:
        raise InputError(
            f"{dataset.root}: has {len(names)} names, and {CHOICES} are needed to choose among. "
            "Use world:taught, or more classes."
        )
    probes = []
    for task in TASKS:
        for item in random_subset(dataset.items, count, "retention", task, seed):
            question, gold = _question(task, item, _facts(dataset, item))
            messages = build_messages((), wording, Turn(item.id, item.class_id, gold, question))
            choices = _choices(item, names, seed) if task == "naming" else ()
            probes.append(RecallQuestion(f"{task}/{item.id}", task, item.class_id, tuple(messages), (gold,), choices))
    return RecallTest(dataset, tuple(probes), names, len(TASKS) * len(dataset.items))


def without_refused_pictures(exam: RecallTest, model: ScoringModel, strict: bool) -> RecallTest:
    """The exam without questions about pictures that the model's image processor refuses; `dataset.problems` has them.

    Raises `InputError` for the first of them with `strict`, and where no question is left.
    """
    shown = dict.fromkeys(item for probe in exam.probes for item in image_ids(probe.messages))
    dataset = model.pictures.without_refused(exam.dataset, shown, strict)
    if dataset is exam.dataset:
        return exam
    there = {item.id for item in dataset.items}
    probes = tuple(probe for probe in exam.probes if there.issuperset(image_ids(probe.messages)))
    if not probes:
        raise InputError(f"no question is left, because all pictures are refused. {dataset.problems[-1]}")
    return replace(exam, dataset=dataset, probes=probes)


def refuse_marked_recall(probes: Iterable[RecallQuestion], marks: re.Pattern[str]) -> None:
    """Pass what is said in probes, their answers and their candidates through the gate of `episodes.special_tokens`."""
    for probe in probes:
        written = [part["text"] for m in probe.messages for part in m["content"] if part["type"] == "text"]
        for text in (*written, *probe.gold, *probe.candidates):
            refuse_marks(text, marks, f"{probe.id} of {probe.task}")


def random_subset(things: Sequence[Thing], count: int, *stream: str | int) -> list[Thing]:
    """Up to `count` of the things in random order; a smaller count gives the beginning of a larger one."""
    return [things[place] for place in rng(*stream).permutation(len(things))[:count]]


def _choices(item: Item, names: Sequence[str], seed: int) -> tuple[str, ...]:
    """The picture's name among nine others, sorted: no place may tell it."""
    others = [name for name in names if name != item.name]
    return tuple(sorted([item.name, *random_subset(others, CHOICES - 1, "retention", "names", item.id, seed)]))


def _question(task: str, item: Item, facts: Facts) -> tuple[str, str]:
    """What is asked, and the right answer."""
    if task == "naming":
        return questions.NAMING[0], item.name
    if task == "describing":
        return questions.DESCRIBING[0], questions.caption(facts)
    counted = next(q for q in questions.about(facts) if q.task == "count")
    return counted.question, counted.answer


def _facts(dataset: Dataset, item: Item) -> Facts:
    try:
        told = item.facts
        facts = Facts(str(told["family"]), int(told["count"]), tuple(Part(**part) for part in told["parts"]))
        if facts.family not in questions.COUNTED or not facts.parts:
            raise ValueError(facts.family)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{dataset.root}: {item.id} comes without the facts of a drawn world, so nobody knows what is right. "
            "Use world:taught, or a JSON file of questions."
        ) from error
    return facts
