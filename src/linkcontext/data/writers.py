"""Writes conversations in the layouts of other tools, which `data.readers.conversations` documents and reads."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from linkcontext.data.conversation import MARK, Conversation, Message
from linkcontext.errors import InputError
from linkcontext.storage import write_lines

ConversationLayout = Literal["llava", "messages", "trl"]


def write_conversations(conversations: Iterable[Conversation], path: Path, layout: ConversationLayout) -> None:
    """Write a JSON list, or JSON lines if the file is called .jsonl. The file appears whole or not at all.

    Raises `InputError` for what the layout cannot express: `<image>` as a word of a text; in LLaVA a system message
    and an answer without loss; in TRL loss on several answers but not on all.
    """
    to_record = {"llava": _to_llava, "messages": _to_messages, "trl": _to_trl}[layout]
    encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each record
    rows = (encode(to_record(conversation)) for conversation in conversations)
    write_lines((f"{row}\n" for row in rows) if path.suffix == ".jsonl" else _list_lines(rows), path)


def _list_lines(rows: Iterable[str]) -> Iterator[str]:
    """The pieces of a JSON list."""
    before = "[\n"
    for row in rows:
        yield before + row
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def _to_llava(conversation: Conversation) -> dict[str, Any]:
    messages, pictures = conversation.messages, conversation.pictures
    if messages[0]["role"] == "system" or any(message.get("loss") is False for message in messages):
        raise InputError(
            f"{conversation.id}: LLaVA's layout has neither system messages nor answers without loss. Use --export "
            "messages, or another scaffold and --supervise every."
        )
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[m["role"]], "value": _text_with_marks(conversation, m, f"{MARK}\n")} for m in messages]
    image = {"image": pictures[0] if len(pictures) == 1 else list(pictures)} if pictures else {}
    return {"id": conversation.id, **image, "conversations": turns}


def _to_messages(conversation: Conversation) -> dict[str, Any]:
    messages = [{**m, "content": _text_with_marks(conversation, m, MARK)} for m in conversation.messages]
    return {"id": conversation.id, "messages": messages, "images": list(conversation.pictures)}


def _text_with_marks(conversation: Conversation, message: Message, mark: str) -> str:
    """The text of a message, with a mark for each picture."""
    if any(part["type"] == "text" and MARK in part["text"] for part in message["content"]):
        raise InputError(
            f"{conversation.id}: a text contains {MARK}, which stands for a picture here. Use --export trl."
        )
    return "".join(mark if part["type"] == "image" else part["text"] for part in message["content"])


def _to_trl(conversation: Conversation) -> dict[str, Any]:
    losses = [message.get("loss") for message in conversation.messages if message["role"] == "assistant"]
    only_last = losses[-1] and not any(losses[:-1])
    if False in losses and not only_last:
        raise InputError(f"{conversation.id}: TRL trains on every answer or on the last one. Use --export messages.")
    messages = [
        {"role": m["role"], "content": [{"type": "image"} if p["type"] == "image" else p for p in m["content"]]}
        for m in conversation.messages
    ]
    columns = {"prompt": messages[:-1], "completion": messages[-1:]} if only_last else {"messages": messages}
    return {"id": conversation.id, **columns, "images": list(conversation.pictures)}
