"""CoViP's diagnostic tasks (arXiv 2602.03454): what a user said about a thing in earlier dialogues with pictures.

Rows of Yeongtak/lsd, Yeongtak/itr and Yeongtak/lar on the Hub, or of their folders as `datasets` saves them:
images_context [pictures], dialogues_context [texts], query_image, and answer (lar: last_action).
                                                              oyt9306/CoViP, downstream/wo_CAG/ and lar_eval.ipynb
"""

import re
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.hub import cached_rows
from linkcontext.data.problems import Problems
from linkcontext.data.readers.json_records import require_text, require_value
from linkcontext.errors import InputError

HUB = "hf:Yeongtak/lsd, hf:Yeongtak/itr or hf:Yeongtak/lar"
TASKS = {"lsd": "last seen", "itr": "triggered recall", "lar": "last action"}
TRIGGER = "SKS"  # the word that a dialogue of itr asks for when its thing is seen again


@dataclass(frozen=True, slots=True)
class CovipQuery:
    """A new picture after earlier ones (paths below the folder), each with a dialogue about it, and the answer."""

    pictures: tuple[str, ...]
    dialogues: tuple[str, ...]
    query: str
    answer: str


def read_covip(source: str, problems: Problems) -> tuple[Path, str, list[CovipQuery]]:
    """The folder of the pictures, the task and the queries of a parquet file, a folder, or `hf:NAME`.

    The task is lsd, itr or lar and stands in the name, because the columns do not tell it. Rows that are wrong are left
    out and reported. Raises `InputError` for a source that cannot be read or named, and if no row is left.
    """
    named = [task for task in TASKS if task in re.split(r"[^a-z]+", Path(source).name.lower())]
    if len(named) != 1:
        raise InputError(
            f"{source}: its name does not say which task it is. Give it one of the names {', '.join(TASKS)} ({HUB})."
        )
    (task,) = named
    folder, rows = cached_rows(source.removeprefix("hf:"))
    queries = []
    for number, row in enumerate(rows):
        with problems.leaving_out():
            queries.append(_query(row, task, f"{source}: row {number}"))
    if not queries:
        raise problems.nothing_usable(source, "row")
    return folder, task, queries


def _query(row: object, task: str, where: str) -> CovipQuery:
    pictures, dialogues = (require_value(row, key, list, where) for key in ("images_context", "dialogues_context"))
    query = require_value(row, "query_image", str, where)
    if len(pictures) != len(dialogues) or not all(isinstance(text, str) and text for text in (*pictures, *dialogues)):
        raise InputError(f"{where}: `images_context` and `dialogues_context` must be lists of the same length.")
    key = "last_action" if task == "lar" and isinstance(row, dict) and "last_action" in row else "answer"
    answer = TRIGGER if task == "itr" else require_text(row, key, where)
    return CovipQuery(tuple(pictures), tuple(dialogues), query, answer)
