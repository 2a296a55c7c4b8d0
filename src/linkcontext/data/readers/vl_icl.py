"""VL-ICL's image-to-text tasks (arXiv 2403.13164), in the layout that they are published in.

A task's folder, or the folder of several, with query.json and support.json: [{"id", "image": [paths], "question",
"answer", ...}]                                                             ys-zong/VL-ICL, utils/ICL_utils.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from linkcontext.data.readers.annotations import ImportedQuestion, Places, check_question, folded, unique_id
from linkcontext.data.readers.json_records import get, records, word
from linkcontext.data.scan import Problems
from linkcontext.errors import InputError
from linkcontext.records import Question
from linkcontext.seeds import rng

OFFERED = 4  # answers to choose among where the file has none, and few questions have the same
ALIKE = 8  # so many, as a mean: else the answers in play could not be shown as often as a support has turns
OPERATORS = ("+", "-", "x")  # of operator induction, in the order of a support's answers
TO_IMAGE = ("open_t2i_mi", "cobsat")  # tasks whose answer is a picture


def vl_icl(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """VL-ICL's image-to-text tasks. The task is the folder's name, the split `support` or `query`.

    The concept is what support and query must share to go together: the operator where it is induced, else the task. A
    query that brings a support and names of its own (open_mi) is a context. Questions keep all their pictures. Where
    few questions have the same answer (words in pictures, results of sums), each has four to choose among.
    """
    folders = [path] if (path / "query.json").is_file() else sorted(file.parent for file in path.glob("*/query.json"))
    if not folders:
        raise InputError(f"{path}: no query.json, nor one in a folder below. Name the folder of a task, or of several.")
    for folder in folders:
        if folder.name in TO_IMAGE or folder.name.endswith("_text"):
            problems.note(f"{folder}: left out, because its answers are pictures or its questions have none.")
            continue
        own = False  # queries that bring their support
        told: list[ImportedQuestion] = []
        for split in ("query", "support"):
            seen: set[str] = set()
            for where, record in records(folder / f"{split}.json") if split == "query" or not own else ():
                with problems.leaving_out():
                    found = list(_asked(record, where, folder.name, split))
                    if "id" in record:
                        unique_id("id", record, seen, where)
                    own = own or "support" in record
                    told += found
        yield from _offered(told)


def _offered(told: Sequence[ImportedQuestion]) -> Iterator[ImportedQuestion]:
    """The questions of a task, with candidates where few have the same answer."""
    found: dict[str, list[str]] = {}
    for each in told:
        found.setdefault(each.question.concept, []).append(each.question.answer)
    alike = {concept: len(answers) / len(set(answers)) for concept, answers in found.items()}
    offered = {concept: sorted({*answers}) for concept, answers in found.items()}
    for each in told:
        q = each.question
        if q.candidates or alike[q.concept] >= ALIKE or len({folded(a) for a in offered[q.concept]}) < OFFERED:
            yield each
            continue
        others = [answer for answer in offered[q.concept] if folded(answer) != folded(q.answer)]
        chance = rng("vl-icl", q.concept, *each.pictures[0])
        shown: dict[str, str] = {}  # spelt as one of them, where others differ in capitals alone
        for place in chance.permutation(len(others)):
            shown.setdefault(folded(others[place]), others[place])
        options = [q.answer, *list(shown.values())[: OFFERED - 1]]
        candidates = tuple(options[place] for place in chance.permutation(OFFERED))
        yield replace(each, question=replace(q, candidates=candidates))


def _asked(record: Any, where: str, task: str, split: str) -> Iterator[ImportedQuestion]:
    """The questions of a record: mostly one."""
    if isinstance(record, dict) and {"same", "diff"} <= record.keys():  # matching_mi has its support in pairs
        for each in ("same", "diff"):
            yield from _asked(record[each], where, task, split)
        return
    question = get(record, "question", str, where)
    context = word(record, "id", where) if "support" in record else ""
    classes = tuple(_plain_list(record, "classes", where)) if "classes" in record else ()
    own = get(record, "support", dict, where) if "support" in record else {}
    for label, shown in own.items():
        for picture in _plain_list(shown, "images", where):
            told = check_question(Question(task, task, question, label, classes, context=context), where, label)
            yield ImportedQuestion(where, (_places(picture, task),), told, "support")
    pictures = tuple(_places(name, task) for name in _plain_list(record, "image", where))
    answers = record.get("answer")
    if not isinstance(answers, list):
        sharing = [word(record, "operator", where) if "operator" in record else task]
        answers = [word(record, "answer", where)]
    else:
        sharing = [*OPERATORS]
        answers = [word({"answer": each}, "answer", where) for each in answers]
    if len(answers) != len(sharing):
        raise InputError(f"{where}: `answer` must be one, or one for each of {', '.join(OPERATORS)}. Mend the record.")
    for shared, answer in zip(sharing, answers, strict=True):
        told = check_question(Question(task, shared, question, answer, classes, context=context), where, answer)
        yield ImportedQuestion(where, pictures, told, split)


def _places(name: str, task: str) -> Places:
    return (name, f"{task}/{name}")


def _plain_list(record: Any, key: str, where: str) -> list[str]:
    """A text, or a list of texts that is not empty."""
    found = [record[key]] if isinstance(record, dict) and isinstance(record.get(key), str) else None
    found = found or get(record, key, list, where)
    if not all(isinstance(each, str) and each for each in found):
        raise InputError(f"{where}: `{key}` must be texts. Mend the record.")
    return found
