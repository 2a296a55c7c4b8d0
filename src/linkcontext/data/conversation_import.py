"""Conversations of another tool become conversations.json, with the absolute paths of their pictures."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from linkcontext.data import hub
from linkcontext.data.conversation import Conversation
from linkcontext.data.picture_paths import PictureFinder
from linkcontext.data.problems import Problems
from linkcontext.data.readers.conversations import valid_conversations
from linkcontext.data.writers import write_conversations
from linkcontext.errors import counted
from linkcontext.storage import write_folder

FILE = "conversations.json"


def import_conversations(
    read: Callable[[Path, Problems], Iterator[Conversation]],
    file: Path,
    images: str | None,
    out: Path | None,
    problems: Problems,
) -> list[str]:
    """Check the conversations of a file and, with `out`, write them; returns sentences about their number."""
    finder = PictureFinder(str(file), Path(images) if images else file.parent, problems)
    root = str(finder.root.resolve())

    def with_paths(folder: Path | None) -> Iterator[Conversation]:
        for conversation in read(file, problems):
            paths = finder.find([(name,) for name in conversation.pictures], f"{file}, id {conversation.id}")
            if paths is not None and folder is None:
                yield conversation
            elif paths is not None:
                yield _with_pictures(conversation, [os.path.join(root, path) for path in paths])  # noqa: PTH118
        finder.report()

    return _write(with_paths, str(file), out, problems)


def import_hub_conversations(name: str, out: Path, problems: Problems) -> list[str]:
    """The same for a data set of the Hub, whose pictures are written into the folder too."""

    def with_paths(folder: Path | None) -> Iterator[Conversation]:
        assert folder is not None
        return valid_conversations(hub.conversation_rows(name, folder), f"hf:{name}", problems)

    return _write(with_paths, f"hf:{name}", out, problems)


def _write(
    conversations: Callable[[Path | None], Iterator[Conversation]], source: str, out: Path | None, problems: Problems
) -> list[str]:
    """Count conversations and, with `out`, write them in the same pass over the source."""
    counts = Counter[str]()

    def tallied(folder: Path | None) -> Iterator[Conversation]:
        for conversation in conversations(folder):
            counts["conversation"] += 1
            counts["picture"] += len(conversation.pictures)
            counts["answer"] += len(conversation.messages) // 2  # turns, after at most one system message
            yield conversation
        if not counts:
            raise problems.nothing_usable(source, "conversation")

    if out is None:
        deque(tallied(None), maxlen=0)
    else:
        write_folder(out, lambda folder: write_conversations(tallied(folder), folder / FILE, "messages"))
    return [", ".join(counted(counts[thing], thing) for thing in ("conversation", "answer", "picture"))]


def _with_pictures(conversation: Conversation, names: Sequence[str]) -> Conversation:
    """The conversation with other names for its pictures."""
    left = iter(names)
    messages = [
        {**m, "content": [{**p, "image": next(left)} if p["type"] == "image" else p for p in m["content"]]}
        for m in conversation.messages
    ]
    return Conversation(conversation.id, tuple(names), tuple(messages))
