"""SMMILE and SMMILE++ (arXiv 2506.21355): medical problems, each with examples in a fixed order and a query.

Rows of smmile/SMMILE and smmile/SMMILE-plusplus on the Hub: question, answer, image, problem_id, order, and in the
second original_problem_id. The rows of a problem by `order` are its examples, and the last is the query.
                                                        eth-medical-ai-lab/smmile, inference_and_evaluation/utils.py
"""

from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.hub import cached_rows
from linkcontext.data.problems import Problems
from linkcontext.data.readers.json_records import require_text
from linkcontext.errors import InputError, first_few

HUB = "hf:smmile/SMMILE or hf:smmile/SMMILE-plusplus"


@dataclass(frozen=True, slots=True)
class SmmileExample:
    """A picture (its path below the folder), a question about it and the answer."""

    picture: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class SmmileProblem:
    """The examples of a problem, of which the last is the query. Reordered copies of a problem share an `original`."""

    id: str
    original: str
    examples: tuple[SmmileExample, ...]


def read_smmile(source: str, problems: Problems) -> tuple[Path, list[SmmileProblem]]:
    """The folder of the pictures and the problems of a parquet file, a folder of them, or `hf:NAME`.

    Problems with a missing picture, and those without an example before the query, are left out and reported, as the
    benchmark does. Raises `InputError` for a source that cannot be read, a missing column or cell, and if no problem is
    left.
    """
    folder, rows = cached_rows(source.removeprefix("hf:"))
    by_problem: dict[str, list[tuple[int, SmmileExample]]] = {}
    originals: dict[str, str] = {}
    for number, row in enumerate(rows):
        where = f"{source}: row {number}"
        name, order = require_text(row, "problem_id", where), require_text(row, "order", where)
        if not order.isdecimal():
            raise InputError(f"{where}: `order` {order!r} is not a number. Is it SMMILE's own file?")
        question, answer = (require_text(row, key, where) for key in ("question", "answer"))
        by_problem.setdefault(name, []).append((int(order), SmmileExample(row.get("image") or "", question, answer)))
        originals[name] = str(row.get("original_problem_id") or name)
    read, incomplete, alone = [], [], []
    for name, examples in by_problem.items():
        ordered = tuple(example for _, example in sorted(examples, key=lambda each: each[0]))
        if not all(example.picture for example in ordered):
            incomplete.append(name)
        elif len(ordered) < 2:
            alone.append(name)
        else:
            read.append(SmmileProblem(name, originals[name], ordered))
    for left_out, why in ((incomplete, "a picture of them is missing"), (alone, "they have no example")):
        if left_out:
            problems.add(f"{source}: problems left out because {why}: {len(left_out)} ({first_few(left_out)}).")
    if not read:
        raise problems.nothing_usable(source, "problem")
    return folder, read
