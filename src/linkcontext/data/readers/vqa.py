"""VQA v2: questions, and the answers of ten people to each.

{"questions": [{"question_id", "image_id", "question"}]}, and beside it or in it
{"annotations": [{"question_id", "answers": [{"answer"} x 10]}]}                                      visualqa.org
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.readers.json_records import read_key, read_records, require_text, require_value
from linkcontext.data.readers.question_checks import unique_id
from linkcontext.errors import InputError

PEOPLE = 10  # answers to each question; VQA accuracy is defined over them


@dataclass(frozen=True, slots=True)
class VqaQuestion:
    """A question, the name of its picture, and the answers of ten people."""

    id: str
    picture: str
    question: str
    answers: tuple[str, ...]


def annotation_file(path: Path) -> Path:
    """The file with the annotations: `path` itself, or the one that is named like it.

    `v2_mscoco_val2014_annotations.json` belongs to `v2_OpenEnded_mscoco_val2014_questions.json`. Raises `InputError` if
    there is none.
    """
    if next(read_records(path, "annotations"), None):
        return path
    renamed = path.name.replace("questions", "annotations")
    names = [name for name in (renamed, renamed.replace("OpenEnded_", "")) if name != path.name]
    for name in names:
        if (path.parent / name).is_file():
            return path.parent / name
    expected = " or ".join(dict.fromkeys(names)) or "a file with `annotations` for `questions` in its name"
    raise InputError(f"{path}: its annotations are not beside it ({expected}). Put them there.")


def read_vqa_answers(path: Path) -> dict[str, tuple[str, ...]]:
    """Question id to the ten answers. Raises `InputError` for a wrong record, and as `read_records`."""
    answers: dict[str, tuple[str, ...]] = {}
    ids: set[str] = set()
    for where, record in read_records(path, "annotations"):
        people = tuple(
            require_value(each, "answer", str, where) for each in require_value(record, "answers", list, where)
        )
        if len(people) != PEOPLE:
            raise InputError(
                f"{where}: {len(people)} answers, but VQA accuracy is defined for {PEOPLE}. Correct the record."
            )
        answers[unique_id("question_id", record, ids, where)] = people
    return answers


def read_vqa(path: Path, answers: dict[str, tuple[str, ...]]) -> Iterator[VqaQuestion]:
    """Yield the questions of a file. Raises `InputError` for a wrong record, and as `read_records`."""
    ids: set[str] = set()
    for where, record in read_records(path, "questions"):
        number = unique_id("question_id", record, ids, where)
        if number not in answers:
            raise InputError(f"{where}: question_id {number} has no annotation. Are the two files of one set?")
        picture = record.get("file_name") or record.get("image") or require_text(record, "image_id", where)
        yield VqaQuestion(number, str(picture), require_value(record, "question", str, where), answers[number])


def vqa_paths(path: Path) -> Callable[[str], list[str]]:
    """A function from the name of a picture to the paths below the file's folder where it may be.

    A number is the id of a picture of COCO, whose file is called like COCO_val2014_000000000042.jpg.
    """
    part = str(read_key(path, "data_subtype") or "")

    def paths(name: str) -> list[str]:
        names = [name]
        if re.fullmatch(r"\d{1,12}", name):
            names = [f"COCO_{part}_{int(name):012d}.jpg"] * bool(part) + [f"{int(name):012d}.jpg"]
        folders = ("", "images/", *((f"{part}/", f"images/{part}/") if part else ()))
        return [folder + name for folder in folders for name in names]

    return paths
