"""VL-Checklist: pairs of descriptions, of which one fits the picture.

A file, or a folder of files like Attribute/vg/color.json: [[path, {"POS": [text], "NEG": [text]}], ...]
                                                                            om-ai-lab/VL-CheckList, data_loader.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linkcontext.data.problems import Problems
from linkcontext.data.reader import ImportedQuestion, Reader
from linkcontext.data.readers.json_records import read_records, require_value
from linkcontext.data.readers.question_checks import check_question
from linkcontext.errors import InputError
from linkcontext.records import Question
from linkcontext.seeds import rng

WHICH = "Which description fits the picture?"  # the files have descriptions only
CONCEPT_NAMES = {"color": "colour"}  # a concept has the same name in all formats


def read_vl_checklist(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """Yield a question for each pair of descriptions. Task and concept are those of the file's path.

    Descriptions are converted to lower case, because in relations only the right one is partly in capitals ("key ON
    keyboard"). Which of the two is the first candidate is sampled by the picture and the pair.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    if not files:
        raise InputError(f"{path}: no JSON file is there or below. Name a file, or a folder that has some.")
    for file in files:
        task, concept = _task_and_concept(file)
        folder = _picture_folder(file)
        for where, record in read_records(file):
            with problems.leaving_out():
                for pair in _pairs(record, where):
                    right = pair[0].lower()
                    options = sorted((right, pair[1].lower()))
                    order = rng("vl-checklist", record[0], *options).permutation(2)
                    candidates = tuple(options[place] for place in order)
                    question = check_question(Question(task, concept, WHICH, right, candidates), where, pair[0])
                    yield ImportedQuestion(where, ((record[0], f"{folder}/{record[0]}"),), question)


VL_CHECKLIST = Reader(questions=read_vl_checklist)


def _pairs(record: Any, where: str) -> Iterator[tuple[str, str]]:
    """The right and the wrong description of each pair in a record."""
    if not isinstance(record, list) or len(record) != 2 or not isinstance(record[0], str):
        raise InputError(f'{where}: not [path, {{"POS": [text], "NEG": [text]}}]. Correct the record.')
    right, wrong = (require_value(record[1], key, list, where) for key in ("POS", "NEG"))
    if len(right) != len(wrong) or not all(isinstance(text, str) and text for text in right + wrong):
        raise InputError(f"{where}: `POS` and `NEG` must be lists with the same number of texts. Correct the record.")
    return zip(right, wrong, strict=True)


def _task_and_concept(file: Path) -> tuple[str, str]:
    """Attribute/vg/color.json: attribute, colour. Object/Size/vg_size/vg_obj_small.json: object size, small."""
    kinds = ("Attribute", "Object", "Relation", "Location", "Size")
    parts = [part for part in file.resolve().parts[:-1] if part in kinds]
    if not parts:
        raise InputError(
            f"{file}: its path must name the task and the concept, like Attribute/vg/color.json. Rename it."
        )
    concept = file.stem.rsplit("_", 1)[-1]
    return " ".join(parts).lower(), CONCEPT_NAMES.get(concept, concept)


def _picture_folder(file: Path) -> str:
    """The folder of the pictures: vg, hake or swig, by the file's folder or its name. VAW's pictures are in vg."""
    folder = file.resolve().parent.name.split("_")[0]
    folder = "vg" if folder == "vaw" else folder
    return folder if folder in ("vg", "hake", "swig") else file.stem.split("_")[0]
