"""TrueMICL (arXiv 2507.15807): tasks that cannot be done without looking at the pictures of the support.

The folder of a task, or the folder of several, with support.json and query.json.        chenxshuo/true-micl, README.md

The README describes the folders and files only. The records are read as those of VL-ICL, from which TrueMICL has the
folders' layout and a task: [{"id", "image": [paths], "question", "answer", ...}] (`readers.vl_icl`).
"""

from collections.abc import Iterator
from pathlib import Path

from linkcontext.data.problems import Problems
from linkcontext.data.reader import ImportedQuestion, Reader
from linkcontext.data.readers.json_records import read_records
from linkcontext.data.readers.vl_icl import read_vl_icl, task_folders
from linkcontext.errors import InputError, excerpt

KEYS = ("image", "question", "answer")


def read_true_micl(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """Yield the questions of the tasks, as `read_vl_icl` does.

    Raises `InputError` for a folder without a task, a task without support.json, and a file whose first record has
    other keys than those that are read.
    """
    for folder in task_folders(path):
        for name in ("query.json", "support.json"):
            _check_keys(folder / name)
    yield from read_vl_icl(path, problems)


TRUE_MICL = Reader(questions=read_true_micl)


def _check_keys(file: Path) -> None:
    """Raise `InputError` if the first record of a file has other keys: then all of them have."""
    _, record = next(read_records(file), ("", None))
    keys = [*record] if isinstance(record, dict) else []
    if record is not None and (missing := [key for key in KEYS if key not in keys]):
        has = f"the keys {excerpt(', '.join(map(str, keys)))}" if keys else "no keys"
        raise InputError(
            f"{file}: its records have {has}, without {', '.join(missing)}. They are read as those of VL-ICL, with "
            f"{', '.join(KEYS)}: rename the keys."
        )
