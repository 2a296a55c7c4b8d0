"""Questions of files: conversations (`data.readers.conversations`) and VQA v2 (`data.readers.vqa`).

Every answer of a conversation becomes a question after the right answers before it, except those with "loss": false.
Conversations keep their wording; the scaffold is used for VQA only.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from linkcontext.data.images import open_image, sha256
from linkcontext.data.manifest import Dataset
from linkcontext.data.picture_paths import possible_paths
from linkcontext.data.readers.conversations import CONVERSATION_KEYS, conversation_from_record
from linkcontext.data.readers.json_records import first_key, read_records
from linkcontext.data.readers.vqa import annotation_file, read_vqa, read_vqa_answers, vqa_paths
from linkcontext.episodes.scaffold import Scaffold, build_messages, image_ids
from linkcontext.errors import InputError, excerpt, first_few
from linkcontext.evaluation.tasks.recall_questions import RecallQuestion, RecallTest, random_subset
from linkcontext.records import Item, Turn

Places = Callable[[str], list[str]]  # a picture's name in the file -> relative paths where it may be


def file_recall_test(path: Path, scaffold: Scaffold, count: int, seed: int) -> RecallTest:
    """Up to `count` of the questions in a JSON file, and their pictures.

    The file is read twice, record by record: to count its answers, and to read those that are drawn. Raises
    `InputError`, naming file and record, for a file of another kind, a missing key, a missing or damaged picture, and
    image marks in the text that do not match the number of pictures.
    """
    files: list[Path] = [path]
    places: Places = possible_paths
    if first_key(path, (*CONVERSATION_KEYS, "questions")) == "questions":
        annotations = annotation_file(path)
        files = sorted({path, annotations})
        answers, places = read_vqa_answers(annotations), vqa_paths(path)
        total, chosen = _drawn(lambda: _vqa(path, answers, scaffold), count, seed)
    else:
        total, chosen = _drawn(lambda: _answers_of_conversations(path), count, seed)
    if not chosen:
        raise InputError(f"{path}: has no question. Name another file.")
    # The files are items too, because the digest of the data must depend on the questions and not only on pictures.
    items = [Item(file.name, file.name, "", "", sha256(file)) for file in files]
    items += _pictures(chosen, path, places).values()
    return RecallTest(Dataset(path.parent, tuple(items)), tuple(chosen), (), total)


def _drawn(
    questions: Callable[[], Iterator[RecallQuestion]], count: int, seed: int
) -> tuple[int, list[RecallQuestion]]:
    """The number of questions, and those that are drawn, in the order of drawing."""
    total = sum(1 for _ in questions())
    places = random_subset(range(total), count, "retention", "file", seed)
    wanted = set(places)
    chosen = {place: question for place, question in enumerate(questions()) if place in wanted}
    return total, [chosen[place] for place in places]


def _answers_of_conversations(path: Path) -> Iterator[RecallQuestion]:
    for number, (where, record) in enumerate(read_records(path)):
        if not isinstance(record, dict) or not any(key in record for key in CONVERSATION_KEYS):
            raise InputError(
                f"{where}: neither a conversation of LLaVA (`conversations`) nor one of messages + images "
                "(`messages`), and the file has no `questions` of VQA. Name a file of one of these kinds."
            )
        conversation = conversation_from_record(record, where, number)
        cluster = conversation.pictures[0] if conversation.pictures else f"record {number}"
        for at, message in enumerate(conversation.messages):
            if message["role"] == "assistant" and message.get("loss", True):
                gold = message["content"][0]["text"]
                name = f"record {number}/answer {(at - 1) // 2}"
                yield RecallQuestion(name, "llava", cluster, conversation.messages[:at], (gold,))


def _vqa(path: Path, answers: dict[str, tuple[str, ...]], scaffold: Scaffold) -> Iterator[RecallQuestion]:
    for vqa in read_vqa(path, answers):
        messages = tuple(build_messages((), scaffold, Turn(vqa.picture, "", "", vqa.question)))
        yield RecallQuestion(f"question {vqa.id}", "vqa", vqa.picture, messages, vqa.answers)


def _pictures(questions: Iterable[RecallQuestion], path: Path, places: Places) -> dict[str, Item]:
    """Name in the file -> item, for the pictures of some questions."""
    items: dict[str, Item] = {}
    for question in questions:
        for name in image_ids(question.messages):
            if name not in items:
                items[name] = _picture(name, path, f"{path}: {question.id}", places)
    return items


def _picture(name: str, path: Path, where: str, places: Places) -> Item:
    """One picture, which is opened to check it. Raises `InputError` if it is missing or damaged."""
    tried = places(name)
    place = next((place for place in tried if os.path.isfile(path.parent / place)), None)  # noqa: PTH113 - long names
    if place is None:
        raise InputError(
            f"{where}: its picture {excerpt(name)} is not there (looked for {first_few(tried)}). "
            "Put the pictures beside the file, or below images/."
        )
    try:
        open_image(path.parent / place)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Item(name, place, "", "", sha256(path.parent / place))
