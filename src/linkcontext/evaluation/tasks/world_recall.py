"""Questions about a drawn world: naming, counting and describing its pictures, whose facts give the right answers."""

from collections.abc import Sequence

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Scaffold, build_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.tasks.recall_questions import CHOICES, RecallQuestion, RecallTest, random_subset
from linkcontext.records import Item, Turn
from linkcontext.worlds import questions
from linkcontext.worlds.concepts import Facts, Part

TASKS = ("naming", "counting", "describing")


def world_recall_test(dataset: Dataset, scaffold: Scaffold, count: int, seed: int) -> RecallTest:
    """Up to `count` questions each of naming, counting and describing pictures with facts.

    Raises `InputError` for pictures without facts, and for data with fewer than ten names.
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
            messages = build_messages((), scaffold, Turn(item.id, item.class_id, gold, question))
            choices = _choices(item, names, seed) if task == "naming" else ()
            name = f"{task}/{item.id}"
            recall_questions.append(RecallQuestion(name, task, item.class_id, tuple(messages), (gold,), choices))
    return RecallTest(dataset, tuple(recall_questions), names, len(TASKS) * len(dataset.items))


def _choices(item: Item, names: Sequence[str], seed: int) -> tuple[str, ...]:
    """The picture's name and nine others, sorted, so that the position does not reveal it."""
    others = [name for name in names if name != item.name]
    return tuple(sorted([item.name, *random_subset(others, CHOICES - 1, "retention", "names", item.id, seed)]))


def _question(task: str, item: Item, facts: Facts) -> tuple[str, str]:
    """The question of a task about a picture, and the right answer."""
    if task == "naming":
        return questions.NAMING[0], item.name
    if task == "describing":
        return questions.DESCRIBING[0], questions.caption(facts)
    counted = next(q for q in questions.attribute_questions(facts) if q.task == "count")
    return counted.question, counted.answer


def _facts(dataset: Dataset, item: Item) -> Facts:
    try:
        parts = tuple(Part(**part) for part in item.facts["parts"])
        facts = Facts(str(item.facts["family"]), int(item.facts["count"]), parts)
        if facts.family not in questions.COUNTED or not facts.parts:
            raise ValueError(facts.family)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{dataset.root}: {item.id} comes without the facts of a drawn world, which give the right answers. "
            "Use world:taught, or a JSON file of questions."
        ) from error
    return facts
