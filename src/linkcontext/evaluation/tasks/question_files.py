"""Questions from files: conversations in LLaVA's layout or as messages + images, and VQA's with ten people's answers.

VQA v2  {"questions": [{"question_id", "image_id", "question"}]}, and beside it or in it
        {"annotations": [{"question_id", "answers": [{"answer"} x 10]}]}

Every answer of a conversation is asked for, after the right answers before it, but those with "loss": false. The words
are the file's own; a scaffold is put around VQA's questions only.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from linkcontext.data.images import open_image, sha256
from linkcontext.data.manifest import Dataset
from linkcontext.data.readers.annotations import unique_id
from linkcontext.data.readers.conversations import KEYS, conversation_from_record
from linkcontext.data.readers.imports import possible_paths
from linkcontext.data.readers.json_records import first_key, get, records, under, word
from linkcontext.episodes.scaffold import Scaffold, image_ids
from linkcontext.episodes.scaffold import build_messages as worded
from linkcontext.errors import InputError, excerpt, first_few
from linkcontext.evaluation.tasks.recall_questions import RecallQuestion, RecallTest, random_subset
from linkcontext.evaluation.vqa import PEOPLE
from linkcontext.records import Item, Turn

Places = Callable[[str], list[str]]  # a picture as the file names it -> paths below the folder to try


def file_recall_test(path: Path, wording: Scaffold, count: int, seed: int) -> RecallTest:
    """Up to `count` of the questions in a JSON file, and the pictures they ask about.

    The file is read twice, record by record: to know how many answers it has, and for those that are drawn. Raises
    `InputError`, naming file and record, for what is no such file, a missing key, a picture that is not there or is
    damaged, and marks in the text that do not fit the number of pictures.
    """
    files: list[Path] = [path]
    places: Places = possible_paths
    kind = first_key(path, (*KEYS, "questions"))
    if kind == "questions":
        told = path if next(records(path, "annotations"), None) else _annotations_beside(path)
        files = sorted({path, told})
        answers, places = _answers(told), _vqa_places(str(under(path, "data_subtype") or ""))
        total, chosen = _drawn(lambda: _vqa(path, answers, wording), count, seed)
    else:
        total, chosen = _drawn(lambda: _answered(path), count, seed)
    if not chosen:
        raise InputError(f"{path}: holds no question. Name a file that has some.")
    # The files are items too: a run belongs to the words that were asked as much as to the pictures.
    items = [Item(file.name, file.name, "", "", sha256(file)) for file in files]
    items += _pictures(chosen, path, places).values()
    return RecallTest(Dataset(path.parent, tuple(items)), tuple(chosen), (), total)


def _drawn(
    questions: Callable[[], Iterator[RecallQuestion]], count: int, seed: int
) -> tuple[int, list[RecallQuestion]]:
    """How many there are, and those that are drawn, in the order of drawing."""
    total = sum(1 for _ in questions())
    places = random_subset(range(total), count, "retention", "file", seed)
    wanted = set(places)
    found = {place: question for place, question in enumerate(questions()) if place in wanted}
    return total, [found[place] for place in places]


def _answered(path: Path) -> Iterator[RecallQuestion]:
    for number, (where, record) in enumerate(records(path)):
        if not isinstance(record, dict) or not any(key in record for key in KEYS):
            raise InputError(
                f"{where}: neither a conversation of LLaVA (`conversations`) nor one of messages + images "
                "(`messages`), and the file no object with VQA's `questions`. Name a file of one of these kinds."
            )
        told = conversation_from_record(record, where, number)
        cluster = told.pictures[0] if told.pictures else f"record {number}"
        for at, message in enumerate(told.messages):
            if message["role"] == "assistant" and message.get("loss", True):
                gold = message["content"][0]["text"]
                name = f"record {number}/answer {(at - 1) // 2}"
                yield RecallQuestion(name, "llava", cluster, told.messages[:at], (gold,))


def _annotations_beside(path: Path) -> Path:
    """`v2_mscoco_val2014_annotations.json` of `v2_OpenEnded_mscoco_val2014_questions.json`."""
    renamed = path.name.replace("questions", "annotations")
    tried = [name for name in (renamed, renamed.replace("OpenEnded_", "")) if name != path.name]
    for name in tried:
        if (path.parent / name).is_file():
            return path.parent / name
    looked = " or ".join(dict.fromkeys(tried)) or "a file with `annotations` for `questions` in its name"
    raise InputError(f"{path}: its annotations are not beside it ({looked}). Put them there.")


def _vqa(path: Path, answers: dict[str, tuple[str, ...]], wording: Scaffold) -> Iterator[RecallQuestion]:
    seen: set[str] = set()
    for where, record in records(path, "questions"):
        number = unique_id("question_id", record, seen, where)
        if number not in answers:
            raise InputError(f"{where}: question_id {number} has no annotation. Are the two files of one set?")
        named = record.get("file_name") or record.get("image") or word(record, "image_id", where)
        turn = Turn(str(named), "", "", get(record, "question", str, where))
        messages = tuple(worded((), wording, turn))
        yield RecallQuestion(f"question {number}", "vqa", turn.item, messages, answers[number])


def _answers(path: Path) -> dict[str, tuple[str, ...]]:
    answers: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for where, record in records(path, "annotations"):
        people = tuple(get(each, "answer", str, where) for each in get(record, "answers", list, where))
        if len(people) != PEOPLE:
            raise InputError(
                f"{where}: {len(people)} answers, and VQA accuracy is defined over {PEOPLE}. Mend the record."
            )
        answers[unique_id("question_id", record, seen, where)] = people
    return answers


def _vqa_places(part: str) -> Places:
    """Where a picture may lie: as the question says, or as COCO names it (COCO_val2014_000000000042.jpg)."""

    def places(name: str) -> list[str]:
        names = [name]
        if re.fullmatch(r"\d{1,12}", name):
            names = [f"COCO_{part}_{int(name):012d}.jpg"] * bool(part) + [f"{int(name):012d}.jpg"]
        folders = ("", "images/", *((f"{part}/", f"images/{part}/") if part else ()))
        return [folder + each for folder in folders for each in names]

    return places


def _pictures(questions: Iterable[RecallQuestion], path: Path, places: Places) -> dict[str, Item]:
    """The pictures of some questions, as they name them."""
    found: dict[str, Item] = {}
    for question in questions:
        for name in image_ids(question.messages):
            if name not in found:
                found[name] = _picture(name, path, f"{path}: {question.id}", places)
    return found


def _picture(name: str, path: Path, where: str, places: Places) -> Item:
    """One picture; it is opened once to know that it is good."""
    tried = places(name)
    lies = next((place for place in tried if os.path.isfile(path.parent / place)), None)  # noqa: PTH113 - long names
    if lies is None:
        raise InputError(
            f"{where}: its picture {excerpt(name)} is not there (looked for {first_few(tried)}). "
            "Put the pictures beside the file, or below images/."
        )
    try:
        open_image(path.parent / lies)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Item(name, lies, "", "", sha256(path.parent / lies))
