"""Questions from files: LLaVA's conversations and VQA's questions with ten people's answers.

LLaVA   [{"id", "image", "conversations": [{"from": "human", "value": "<image>\\nQ"},
                                           {"from": "gpt", "value": "A"}, ...]}]
VQA v2  {"questions": [{"question_id", "image_id", "question"}]}, and beside it
        {"annotations": [{"question_id", "answers": [{"answer"} x 10]}]}

Every answer of a LLaVA conversation is asked for, after the right answers before it. The words are the file's
own; a scaffold is put around VQA's questions only.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from linkcontext.data.images import open_image, sha256
from linkcontext.data.manifest import Dataset, first_few
from linkcontext.episodes.prompt import Message, Scaffold, conversation, pictures
from linkcontext.errors import InputError
from linkcontext.evaluate.probes import Exam, Probe, drawn
from linkcontext.evaluate.vqa import PEOPLE
from linkcontext.records import Item, Turn

MARK = "<image>"
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
NAMES: dict[type, str] = {list: "list", str: "text"}

Value = TypeVar("Value")
Places = Callable[[str], list[str]]  # a picture as the file names it -> paths below the folder to try


def file_exam(path: Path, wording: Scaffold, count: int, seed: int) -> Exam:
    """Up to `count` of the questions in a JSON file, and the pictures they ask about.

    Raises `InputError`, naming file and record, for what is no such file, a missing key, a picture that is
    not there or is damaged, and marks in the text that do not fit the number of pictures.
    """
    content = _read(path)
    files: list[Path] = [path]
    places: Places = _in_images
    if isinstance(content, list):
        probes = list(_llava(content, path))
    elif isinstance(content, dict) and "questions" in content:
        beside = path if "annotations" in content else _annotations_beside(path)
        told = content if beside == path else _read(beside)
        files = sorted({path, beside})
        answers, places = _answers(told, beside), _vqa_places(content)
        probes = list(_vqa(content, answers, path, wording))
    else:
        raise InputError(
            f"{path}: neither a list of LLaVA conversations nor an object with VQA's `questions`. "
            "Name a file of one of the two kinds."
        )
    if not probes:
        raise InputError(f"{path}: holds no question. Name a file that has some.")
    chosen = drawn(probes, count, "retention", "file", seed)
    # The files are items too: a run belongs to the words that were asked as much as to the pictures.
    items = [Item(file.name, file.name, "", "", sha256(file)) for file in files]
    items += _pictures(chosen, path, places).values()
    return Exam(Dataset(path.parent, tuple(items)), tuple(chosen), (), len(probes))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Is the download complete?") from error


def _get(record: Any, key: str, kind: type[Value], where: str) -> Value:
    if not isinstance(record, dict) or not isinstance(record.get(key), kind) or record[key] == "":
        raise InputError(f"{where}: `{key}` is missing, empty or no {NAMES[kind]}. Mend the record.")
    value: Value = record[key]
    return value


def _llava(records: list[Any], path: Path) -> Iterator[Probe]:
    for index, record in enumerate(records):
        where = f"{path}: record {index}"
        turns = _get(record, "conversations", list, where)
        if "id" in record:
            where += f" (id {record['id']})"
        shown = record.get("image") or []
        shown = [shown] if isinstance(shown, str) else shown
        if not isinstance(shown, list) or not all(isinstance(name, str) for name in shown):
            raise InputError(f"{where}: `image` must be a path or a list of paths. Mend the record.")
        said = [(_speaker(turn, where), _get(turn, "value", str, where)) for turn in turns]
        if not said or [speaker for speaker, _ in said] != ["user", "assistant"] * (len(said) // 2):
            raise InputError(f"{where}: human and gpt must take turns, human first, gpt last. Mend the record.")
        messages = _messages(said, shown, where)
        for at in range(1, len(messages), 2):
            cluster = shown[0] if shown else f"record {index}"
            gold = messages[at]["content"][0]["text"]
            yield Probe(f"record {index}/answer {at // 2}", "llava", cluster, tuple(messages[:at]), (gold,))


def _speaker(turn: Any, where: str) -> str:
    name = _get(turn, "from", str, where)
    if name not in SPEAKERS:
        raise InputError(f"{where}: {name!r} speaks, which is neither human nor gpt. Mend the record.")
    return SPEAKERS[name]


def _messages(said: list[tuple[str, str]], shown: list[str], where: str) -> list[Message]:
    """A conversation as messages, each mark replaced by its picture."""
    marks = sum(text.count(MARK) for _, text in said)
    if marks != len(shown):
        raise InputError(
            f"{where}: the text has {marks} {MARK} marks and the record {len(shown)} pictures. Make them agree."
        )
    left = iter(shown)
    messages: list[Message] = []
    for role, text in said:
        if not text.strip() or (role == "assistant" and MARK in text):
            raise InputError(f"{where}: a turn is empty, or an answer of gpt holds {MARK}. Mend the record.")
        parts: list[dict[str, str]] = []
        for place, piece in enumerate(text.split(MARK)):
            parts += [{"type": "image", "image": next(left)}] if place else []
            parts += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
        messages.append({"role": role, "content": parts})
    return messages


def _in_images(name: str) -> list[str]:
    return [name, f"images/{name}"]


def _annotations_beside(path: Path) -> Path:
    """`v2_mscoco_val2014_annotations.json` of `v2_OpenEnded_mscoco_val2014_questions.json`."""
    renamed = path.name.replace("questions", "annotations")
    tried = [name for name in (renamed, renamed.replace("OpenEnded_", "")) if name != path.name]
    for name in tried:
        if (path.parent / name).is_file():
            return path.parent / name
    looked = " or ".join(dict.fromkeys(tried)) or "a file with `annotations` for `questions` in its name"
    raise InputError(f"{path}: its annotations are not beside it ({looked}). Put them there.")


def _vqa(asked: dict[str, Any], answers: dict[str, tuple[str, ...]], path: Path, wording: Scaffold) -> Iterator[Probe]:
    for index, record in enumerate(_get(asked, "questions", list, str(path))):
        where = f"{path}: question {index}"
        number = _id(record, "question_id", where)
        if number not in answers:
            raise InputError(f"{where}: question_id {number} has no annotation. Are the two files of one set?")
        named = record.get("file_name") or record.get("image") or _id(record, "image_id", where)
        turn = Turn(str(named), "", "", _get(record, "question", str, where))
        messages = tuple(conversation((), wording, turn))
        yield Probe(f"question {number}", "vqa", turn.item, messages, answers[number])


def _answers(told: Any, path: Path) -> dict[str, tuple[str, ...]]:
    found = {}
    for index, record in enumerate(_get(told, "annotations", list, str(path))):
        where = f"{path}: annotation {index}"
        people = tuple(_get(each, "answer", str, where) for each in _get(record, "answers", list, where))
        if len(people) != PEOPLE:
            raise InputError(
                f"{where}: {len(people)} answers, and VQA accuracy is defined over {PEOPLE}. Mend the record."
            )
        found[_id(record, "question_id", where)] = people
    return found


def _id(record: Any, key: str, where: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get(key), int | str):
        raise InputError(f"{where}: `{key}` is missing or neither a number nor a text. Mend the record.")
    return str(record[key])


def _vqa_places(content: dict[str, Any]) -> Places:
    """Where a picture may lie: as the question says, or as COCO names it (COCO_val2014_000000000042.jpg)."""
    part = str(content.get("data_subtype", ""))

    def places(name: str) -> list[str]:
        names = [name]
        if re.fullmatch(r"\d{1,12}", name):
            names = [f"COCO_{part}_{int(name):012d}.jpg"] * bool(part) + [f"{int(name):012d}.jpg"]
        folders = ("", "images/", *((f"{part}/", f"images/{part}/") if part else ()))
        return [folder + each for folder in folders for each in names]

    return places


def _pictures(probes: Iterable[Probe], path: Path, places: Places) -> dict[str, Item]:
    """The pictures of some questions, as they name them."""
    found: dict[str, Item] = {}
    for probe in probes:
        for name in pictures(probe.messages):
            if name not in found:
                found[name] = _picture(name, path, f"{path}: {probe.id}", places)
    return found


def _picture(name: str, path: Path, where: str, places: Places) -> Item:
    """One picture; it is opened once to know that it is good."""
    tried = places(name)
    lies = next((place for place in tried if (path.parent / place).is_file()), None)
    if lies is None:
        raise InputError(
            f"{where}: its picture {name} is not there (looked for {first_few(tried)}). "
            "Put the pictures beside the file, or below images/."
        )
    try:
        open_image(path.parent / lies)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Item(name, lies, "", "", sha256(path.parent / lies))
