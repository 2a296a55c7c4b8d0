"""VL-ICL's image-to-text tasks (arXiv 2403.13164).

The folder of a task, or the folder of several, with query.json and support.json: [{"id", "image": [paths], "question",
"answer", ...}]                                                             ys-zong/VL-ICL, utils/ICL_utils.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from linkcontext.data.problems import Problems
from linkcontext.data.reader import ImportedQuestion, Reader
from linkcontext.data.readers.json_records import read_records, require_text, require_value
from linkcontext.data.readers.question_checks import check_question, folded, unique_id
from linkcontext.errors import InputError
from linkcontext.records import Question
from linkcontext.seeds import rng

OPTIONS = 4  # candidates of a question in a task where few questions share an answer
# Questions per answer, as a mean, from which on a task needs no candidates. With fewer, the answers in play could not
# be shown as often as a support has turns.
MIN_SHARING = 8
OPERATORS = ("+", "-", "x")  # of operator induction, in the order of a support's answers
TO_IMAGE = ("open_t2i_mi", "cobsat")  # tasks whose answer is a picture


def read_vl_icl(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """Yield the questions of the image-to-text tasks. The task is the folder's name, the split `support` or `query`.

    The concept is what a query shares with its support: the operator in operator induction, else the task. A query with
    its own support and names (open_mi) is a context. Questions keep all their pictures. In tasks where few questions
    share an answer (words in pictures, results of sums), each question gets four candidates.
    """
    for folder in task_folders(path):
        if folder.name in TO_IMAGE or folder.name.endswith("_text"):
            problems.note(f"{folder}: left out, because its answers are pictures or its questions have none.")
        else:
            yield from _with_candidates(_read_task(folder, problems))


VL_ICL = Reader(questions=read_vl_icl)


def task_folders(path: Path) -> list[Path]:
    """The folder of a task itself, or the folders of tasks in it. Raises `InputError` if there is none."""
    folders = [path] if (path / "query.json").is_file() else sorted(file.parent for file in path.glob("*/query.json"))
    if not folders:
        raise InputError(
            f"{path}: no query.json is in it or in a folder below it. Give the folder of a task, or of several."
        )
    return folders


def _read_task(folder: Path, problems: Problems) -> list[ImportedQuestion]:
    has_own_support = False  # queries that bring their support; then support.json is not read
    questions: list[ImportedQuestion] = []
    for split in ("query", "support"):
        ids: set[str] = set()
        records = read_records(folder / f"{split}.json") if split == "query" or not has_own_support else iter(())
        for where, record in records:
            with problems.leaving_out():
                of_record = list(_questions(record, where, folder.name, split))
                if "id" in record:
                    unique_id("id", record, ids, where)
                has_own_support = has_own_support or "support" in record
                questions += of_record
    return questions


def _with_candidates(questions: Sequence[ImportedQuestion]) -> Iterator[ImportedQuestion]:
    """The questions of a task, with candidates if few of them share an answer."""
    answers: dict[str, list[str]] = {}
    for imported in questions:
        answers.setdefault(imported.question.concept, []).append(imported.question.answer)
    sharing = {concept: len(given) / len(set(given)) for concept, given in answers.items()}
    different = {concept: sorted({*given}) for concept, given in answers.items()}
    for imported in questions:
        q = imported.question
        few = len({folded(answer) for answer in different[q.concept]}) < OPTIONS
        if q.candidates or sharing[q.concept] >= MIN_SHARING or few:
            yield imported
            continue
        others = [answer for answer in different[q.concept] if folded(answer) != folded(q.answer)]
        chance = rng("vl-icl", q.concept, *imported.pictures[0])
        distractors: dict[str, str] = {}  # one spelling of each, because some differ in capitals only
        for place in chance.permutation(len(others)):
            distractors.setdefault(folded(others[place]), others[place])
        options = [q.answer, *list(distractors.values())[: OPTIONS - 1]]
        candidates = tuple(options[place] for place in chance.permutation(OPTIONS))
        yield replace(imported, question=replace(q, candidates=candidates))


def _questions(record: Any, where: str, task: str, split: str) -> Iterator[ImportedQuestion]:
    """The questions of a record, usually one."""
    if isinstance(record, dict) and {"same", "diff"} <= record.keys():  # the support of matching_mi is in pairs
        for key in ("same", "diff"):
            yield from _questions(record[key], where, task, split)
        return
    text = require_value(record, "question", str, where)
    context = require_text(record, "id", where) if "support" in record else ""
    classes = tuple(_texts(record, "classes", where)) if "classes" in record else ()
    own_support = require_value(record, "support", dict, where) if "support" in record else {}
    for label, shown in own_support.items():
        for picture in _texts(shown, "images", where):
            question = Question(task, task, text, label, classes, context=context)
            yield ImportedQuestion(where, (_paths(picture, task),), check_question(question, where, label), "support")
    pictures = tuple(_paths(name, task) for name in _texts(record, "image", where))
    for concept, answer in _answers(record, where, task):
        question = Question(task, concept, text, answer, classes, context=context)
        yield ImportedQuestion(where, pictures, check_question(question, where, answer), split)


def _answers(record: Any, where: str, task: str) -> Iterator[tuple[str, str]]:
    """Concept and answer of each question: one, or one for each operator."""
    answers = record.get("answer")
    if not isinstance(answers, list):
        concepts = [require_text(record, "operator", where) if "operator" in record else task]
        answers = [require_text(record, "answer", where)]
    else:
        concepts = [*OPERATORS]
        answers = [require_text({"answer": answer}, "answer", where) for answer in answers]
    if len(answers) != len(concepts):
        raise InputError(
            f"{where}: `answer` must be one, or one for each of {', '.join(OPERATORS)}. Correct the record."
        )
    return zip(concepts, answers, strict=True)


def _paths(name: str, task: str) -> tuple[str, ...]:
    return (name, f"{task}/{name}")


def _texts(record: Any, key: str, where: str) -> list[str]:
    """The value of a key that is a text, or a list of texts that is not empty."""
    is_text = isinstance(record, dict) and isinstance(record.get(key), str)
    texts = [record[key]] if is_text else require_value(record, key, list, where)
    if not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"{where}: `{key}` must be texts. Correct the record.")
    return texts
