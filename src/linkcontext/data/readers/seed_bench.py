"""SEED-Bench and SEED-Bench-2.

SEED-Bench.json: {"questions": [{"question_id", "question_type_id", "data_id", "question", "choice_a" ... "choice_d",
"answer": "A", "data_type"}], "question_type": {name: id}}                              AILab-CVC/SEED-Bench, DATASET.md
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linkcontext.data.problems import Problems
from linkcontext.data.reader import ImportedQuestion, Reader
from linkcontext.data.readers.json_records import read_key, read_records, require_text, require_value
from linkcontext.data.readers.question_checks import check_question, unique_id
from linkcontext.errors import InputError, excerpt
from linkcontext.records import Question


def read_seed_bench(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """Yield the questions about one picture. Task and concept are the name of the question type.

    Candidates are the choices, A first. Questions about videos, about several pictures and about pictures that are to
    be generated are left out and counted.
    """
    types = read_key(path, "question_type")
    if not isinstance(types, dict):
        raise InputError(f"{path}: `question_type`, which names the tasks, is missing. Is it SEED-Bench's own file?")
    tasks = {str(number): name for name, number in types.items()}
    ids: set[str] = set()
    others: Counter[str] = Counter()
    for where, record in read_records(path, "questions"):
        with problems.leaving_out():
            number = unique_id("question_id", record, ids, where)
            kind = require_value(record, "data_type", str, where)
            if kind.lower() in ("image", "single image"):
                yield _question(record, f"{where} (question_id {excerpt(number)})", tasks)
            else:
                others[kind] += 1
    for kind, count in others.items():
        problems.note(f"{path}: questions left out because they are not about one picture ({excerpt(kind)}): {count}.")


SEED_BENCH = Reader(questions=read_seed_bench)


def _question(record: dict[str, Any], where: str, tasks: dict[str, str]) -> ImportedQuestion:
    task = tasks.get(require_text(record, "question_type_id", where))
    if task is None:
        raise InputError(f"{where}: `question_type_id` is not one of {excerpt(', '.join(tasks))}. Correct the record.")
    choices = {letter: require_text(record, f"choice_{letter.lower()}", where) for letter in "ABCD"}
    letter, text = (require_value(record, key, str, where) for key in ("answer", "question"))
    question = Question(task, task, text, choices.get(letter, ""), tuple(choices.values()))
    picture = require_value(record, "data_id", str, where)
    return ImportedQuestion(where, ((picture,),), check_question(question, where, letter))
