"""What can be read: the record `Reader`. The table of all readers is in `linkcontext.source`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.conversation import Conversation
from linkcontext.data.manifest import Dataset
from linkcontext.data.problems import Problems
from linkcontext.records import Question


@dataclass(frozen=True, slots=True)
class ImportedQuestion:
    """A question of a published file, before its pictures are looked for.

    Attributes:
        where: File, line and record, for messages.
        pictures: For each picture the relative paths where it may be; the first is the one that messages name.
        question: The question. Its `others` and `split` are filled in when the pictures are found.
        split: The split of the question, "" if the file has no splits.
    """

    where: str
    pictures: tuple[tuple[str, ...], ...]
    question: Question
    split: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A source of data sets, a file format, or both.

    A data set is opened whole. The records of a file are different: they name pictures that are somewhere else, are
    checked one at a time, and become a new folder (`linkcontext data FILE --layout NAME --out DIR`).

    Attributes:
        open: Opens the data set of `--data NAME:ARGUMENT`. Arguments: ARGUMENT; `strict` (raise for the first picture
            that cannot be used); `fewest` (raise for fewer classes).
        questions: Yields the questions of a file or folder, for `--layout NAME`. It raises `InputError` inside
            `problems.leaving_out()` for a record that is wrong, and outside of it for a file that is wrong as a whole.
        conversations: Yields the conversations of a file, in the same way.
    """

    open: Callable[[str, bool, int], Dataset] | None = None
    questions: Callable[[Path, Problems], Iterator[ImportedQuestion]] | None = None
    conversations: Callable[[Path, Problems], Iterator[Conversation]] | None = None
