"""Naming, counting and describing the pictures of a drawn world, whose facts say what is right."""

from collections.abc import Sequence

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Scaffold, build_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.tasks.recall_questions import CHOICES, RecallQuestion, RecallTest, random_subset
from linkcontext.records import Item, Turn
from linkcontext.worlds import questions
from linkcontext.worlds.concepts import Facts, Part

TASKS = ("naming", "counting", "describing")


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
    recall_questions = []
    for task in TASKS:
        for item in random_subset(dataset.items, count, "retention", task, seed):
            question, gold = _question(task, item, _facts(dataset, item))
            messages = build_messages((), wording, Turn(item.id, item.class_id, gold, question))
            choices = _choices(item, names, seed) if task == "naming" else ()
            name = f"{task}/{item.id}"
            recall_questions.append(RecallQuestion(name, task, item.class_id, tuple(messages), (gold,), choices))
    return RecallTest(dataset, tuple(recall_questions), names, len(TASKS) * len(dataset.items))


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
