"""A conversation about pictures, as it is read from files of other tools and written for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from linkcontext.errors import InputError

MARK = "<image>"  # stands for a picture in the text of a file
Message = dict[str, Any]  # as in `episodes.scaffold`; "loss": False keeps an assistant's message from being learnt


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of a user and an assistant in turns, after an optional system message.

    `pictures` are the names (mostly paths) of the pictures in the messages, in order.
    """

    id: str
    pictures: tuple[str, ...]
    messages: tuple[Message, ...]


def make_conversation(name: str, messages: Sequence[Message], where: str) -> Conversation:
    """The conversation of these messages. Texts that follow each other in a message are joined.

    Raises `InputError` unless user and assistant take turns, the user first and the assistant last.
    """
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise InputError(f"{where}: human and gpt must take turns, human first, gpt last. Correct the record.")
    joined = tuple(m if len(m["content"]) == 1 else {**m, "content": _join_texts(m["content"])} for m in messages)
    parts = [part for message in joined if message["role"] == "user" for part in message["content"]]
    return Conversation(name, tuple([part["image"] for part in parts if part["type"] == "image"]), joined)


def _join_texts(parts: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    joined: list[dict[str, str]] = []
    for part in parts:
        if part["type"] == "text" and joined and joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return joined
