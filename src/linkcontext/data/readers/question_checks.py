"""What the readers of questions check alike."""

from typing import Any

from linkcontext.data.layout import is_blank, normal_name
from linkcontext.data.readers.json_records import require_text
from linkcontext.errors import InputError, excerpt
from linkcontext.records import Question


def folded(text: str) -> str:
    """A text for comparison, in which case, spaces and the composition of accents do not count."""
    return normal_name(text).casefold()


def check_question(question: Question, where: str, answer: str) -> Question:
    """Return the question.

    Raises `InputError` if its answer is not among its candidates, if two candidates are the same, or if a text is
    blank. `answer` is the answer as the file has it, for the message.
    """
    candidates = question.candidates
    options = excerpt(", ".join(candidates))
    if candidates and question.answer not in candidates:
        raise InputError(
            f"{where}: `answer` {excerpt(answer)!r} is not one of the options {options}. Correct the record."
        )
    if any(map(is_blank, (question.question, question.answer, *candidates))):
        raise InputError(f"{where}: the question, its answer or an option is blank. Correct the record.")
    if len({folded(candidate) for candidate in candidates}) < len(candidates):
        raise InputError(f"{where}: two options are the same ({options}). Correct the record.")
    return question


def unique_id(key: str, record: Any, seen: set[str], where: str) -> str:
    """Add the id of a record to `seen` and return it. Raises `InputError` if it is missing or in `seen` already."""
    name = require_text(record, key, where)
    if name in seen:
        raise InputError(f"{where}: an earlier record has the `{key}` {excerpt(name)} too. Keep one of them.")
    seen.add(name)
    return name
