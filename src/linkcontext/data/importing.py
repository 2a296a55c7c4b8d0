"""Makes a folder that is read here from a file of another tool (`linkcontext data FILE --layout NAME --out DIR`).

manifest.jsonl       pictures with their questions; the pictures are hard links, or copies if they are on another disk
conversations.json   messages + images, if a record of the format is a conversation
"""

from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.conversation_import import import_conversations, import_hub_conversations
from linkcontext.data.problems import Problems
from linkcontext.data.question_import import import_questions
from linkcontext.data.reader import Reader
from linkcontext.errors import InputError
from linkcontext.storage import occupied


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Sentences about what a file contains, and about what was left out of it."""

    contents: tuple[str, ...]
    problems: tuple[str, ...]


def import_with(
    reader: Reader, layout: str, source: str, images: str | None, out: str | None, strict: bool = False
) -> ImportReport:
    """Read a file or folder, or `hf:NAME`, with a reader of questions or conversations, and write the folder `out`.

    Pictures are looked for below `images`, by default beside the file. Without `out` everything is checked and nothing
    is written. With `out`, pictures of questions are decoded; those of conversations are decoded when they are used.

    Raises `InputError` if nothing in the source can be used, if the file is damaged as a whole, if `out` is not empty,
    and with `strict` for the first record or picture that is wrong.
    """
    problems, folder = Problems(strict), None if out is None else Path(out)
    if folder is not None and occupied(folder):
        raise InputError(f"{out}: the folder is not empty. Choose an empty or a new one.")
    if source.startswith("hf:"):
        if reader.conversations is None or folder is None:
            raise InputError(
                f"{source}: a data set of the hub needs --layout conversations, and --out, the folder to write."
            )
        contents = import_hub_conversations(source.removeprefix("hf:"), folder, problems)
    elif reader.conversations is not None:
        contents = import_conversations(reader.conversations, Path(source), images, folder, problems)
    else:
        assert reader.questions is not None
        contents = import_questions(reader.questions, layout, Path(source), images, folder, problems)
    return ImportReport(tuple(contents), tuple(problems.sentences))
