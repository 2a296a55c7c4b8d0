"""Conversations about pictures in the layouts of other tools: LLaVA, messages + images, TRL.

LLaVA      {"id", "image": path or paths, "conversations": [{"from": "human", "value": "<image>\\nQ"},
           {"from": "gpt", "value": "A"}, ...]}                        haotian-liu/LLaVA, docs/Finetune_Custom_Data.md
messages   {"messages": [{"role": "user", "content": "<image>Q"}, {"role": "assistant", "content": "A"}, ...],
           "images": [path, ...]}; in ms-swift "loss": false excludes an answer from the loss
                            LLaMA-Factory, data/README.md; ms-swift, docs/source_en/Customization/Custom-dataset.md
TRL        {"messages": [{"role", "content": [{"type": "image"}, {"type": "text", "text"}]}], "images"} with loss on
           every answer, {"prompt", "completion", "images"} with loss on the last   trl, docs/source/dataset_formats.md

A file is a list or JSON lines. Texts are kept as they are, but for the line break that LLaVA writes after `<image>`.
`linkcontext.data.writers` writes the same layouts.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from linkcontext.data.conversation import MARK, Conversation, Message, make_conversation
from linkcontext.data.problems import Problems
from linkcontext.data.reader import Reader
from linkcontext.data.readers.json_records import read_records, require_text, require_value
from linkcontext.errors import InputError, excerpt, quoted

CONVERSATION_KEYS = ("conversations", "messages", "prompt")  # a record with one of these keys is a conversation
MEDIA = ("video", "videos", "audio", "audios", "speech", "sound")  # keys of media that are not read
MEDIA_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".flv", ".3gp", ".ogv", ".mts"),
    *(".m2ts", ".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aiff"),
)
MAX_PATH = 4096  # bytes; a longer text is not a path
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def read_conversations(path: Path, problems: Problems) -> Iterator[Conversation]:
    """Yield the conversations of a file. Wrong records and copies are left out and named in `problems`.

    Published mixtures use the id of a picture as the id of several conversations: the later ones get `#NUMBER` behind
    it, and are refused if problems are strict. Raises `InputError` as `read_records`.
    """
    return valid_conversations(read_records(path), str(path), problems)


def valid_conversations(records: Iterable[tuple[str, Any]], source: str, problems: Problems) -> Iterator[Conversation]:
    """Yield the conversations of records and their places; the rest as in `read_conversations`."""
    hashes: dict[str, int] = {}  # id -> hash of pictures and texts
    renamed = 0
    for number, (where, record) in enumerate(records):
        try:
            conversation = conversation_from_record(record, where, number)
            texts = [part.get("text") for message in conversation.messages for part in message["content"]]
            content = hash((conversation.pictures, *texts))
            if conversation.id in hashes:
                if problems.strict or hashes[conversation.id] == content:
                    raise InputError(
                        f"{where}: another record has the id {excerpt(conversation.id)}. Give each one of its own."
                    )
                conversation = dataclasses.replace(conversation, id=f"{conversation.id}#{number}")
                renamed += 1
        except InputError as error:
            problems.add(str(error))
            continue
        hashes[conversation.id] = content
        yield conversation
    if renamed:
        problems.note(f"{source}: records with the id of another record, now called ID#NUMBER: {renamed}.")


CONVERSATIONS = Reader(conversations=read_conversations)


def conversation_from_record(record: Any, where: str, number: int) -> Conversation:
    """The conversation of a record in any of the layouts. A record without an id is called `record NUMBER`.

    Raises `InputError` for a record that is wrong, or is about a video or a sound.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: {type(record).__name__} where an object is expected. Correct the record.")
    if record.get("id") in (None, ""):
        name = f"record {number}"
    else:
        name = require_text(record, "id", where)
        where = f"{where} (id {excerpt(name)})"
    if medium := next((key for key in MEDIA if record.get(key)), ""):
        raise _medium_error(where, f"`{medium}`")
    pictures = record.get("image") or record.get("images") or []
    if record.get("images") and record["images"] not in (pictures, [pictures]):
        raise InputError(f"{where}: `image` and `images` name different pictures. Remove one of them.")
    paths = [_path(path, where) for path in (pictures if isinstance(pictures, list) else [pictures])]
    messages = _messages(record, where)
    if any(key in record for key in MEDIA) and (mark := _media_mark(messages)):
        raise _medium_error(where, mark)  # the record names no file for the mark
    parts = (part for message in messages if message["role"] == "user" for part in message["content"])
    unnamed = [part for part in parts if part["type"] == "image" and not part["image"]]
    if len(unnamed) != len(paths):
        raise InputError(
            f"{where}: the text has {len(unnamed)} {MARK} marks and the record {len(paths)} pictures. Make them agree."
        )
    for part, path in zip(unnamed, paths, strict=True):
        part["image"] = path
    return make_conversation(name, messages, where)


def _path(name: Any, where: str) -> str:
    """The path by which a record names a picture. Raises `InputError` for anything else."""
    if isinstance(name, dict) and isinstance(name.get("url"), str):
        name = name["url"]
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{where}: `image` must be a path or a list of paths, not {excerpt(name)}. Correct the record."
        )
    if name[:5].lower() == "data:" or len(name) > MAX_PATH:
        raise InputError(
            f"{where}: the record holds the picture itself, or a name that is too long ({excerpt(name)}), instead of "
            "a path. Save the picture as a file and name that."
        )
    if re.match("[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise InputError(
            f"{where}: the picture is given as a URL ({excerpt(name)}), and URLs are not opened. Download it and "
            "name its path."
        )
    if name.lower().endswith(MEDIA_SUFFIXES):
        raise _medium_error(where, excerpt(name))
    return name


def _medium_error(where: str, medium: str) -> InputError:
    return InputError(
        f"{where}: the record is about a video or a sound ({medium}), and only pictures are read. Remove it, as "
        "`linkcontext data --layout conversations` does."
    )


def _messages(record: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record. A picture that the record names elsewhere has the name ""."""
    messages: list[Message] = []
    if record.get("system"):
        messages.append({"role": "system", "content": [_text_part(require_value(record, "system", str, where))]})
    if "messages" in record:
        turns = require_value(record, "messages", list, where)
        return messages + [_message(turn, "role", "content", where) for turn in turns]
    if "prompt" in record:
        messages += [_message(turn, "role", "content", where) for turn in require_value(record, "prompt", list, where)]
        messages = [m | {"loss": False} if m["role"] == "assistant" else m for m in messages]
        completion = require_value(record, "completion", list, where)
        return messages + [_message(turn, "role", "content", where) | {"loss": True} for turn in completion]
    turns = require_value(record, "conversations", list, where)
    return messages + [_message(turn, "from", "value", where) for turn in turns]


def _message(turn: Any, role_key: str, content_key: str, where: str) -> Message:
    name, content = (turn.get(role_key), turn.get(content_key)) if isinstance(turn, dict) else (None, None)
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        name = require_value(turn, role_key, str, where)
        raise InputError(
            f"{where}: the role {excerpt(name)!r} is not one of human, gpt, user and assistant. Correct the record."
        )
    if isinstance(content, list):
        parts = [_part(part, where) for part in content]
        text = "".join(part.get("text", MARK) for part in parts)
        has_picture = any(part["type"] == "image" for part in parts)
    else:
        text = content if isinstance(content, str) and content else require_value(turn, content_key, str, where)
        has_picture = MARK in text
        parts = _split_at_marks(text, content_key == "value") if has_picture else [_text_part(text)]
    _check_text(text, role, where)
    if has_picture and role != "user":
        raise InputError(f"{where}: {name} shows {MARK}, and pictures belong to questions. Correct the record.")
    message: Message = {"role": role, "content": parts}
    if role == "assistant" and (loss := _loss(turn, where)) is not None:
        message["loss"] = loss
    return message


def _check_text(text: str, role: str, where: str) -> None:
    """Raise `InputError` for a text that shows a video, a sound or an embedded picture, and for an empty one."""
    if mark := _MEDIA_MARK.search(text) if role == "user" else None:
        raise _medium_error(where, mark[1])
    if inside := _PICTURE_IN_TEXT.search(text):
        raise InputError(
            f"{where}: a text holds a picture ({excerpt(inside[0])}). Write {MARK} there, and the path of the "
            "picture under `images`."
        )
    if not text or text.isspace():
        raise InputError(f"{where}: a turn is empty. Correct the record.")


def _loss(turn: dict[str, Any], where: str) -> bool | None:
    """Whether an answer has a loss, by its `loss` (ms-swift) or `weight` (OpenAI); None if it has neither key."""
    values = set()
    for key in ("loss", "weight"):
        value = turn.get(key)
        if value is None:
            continue
        if isinstance(value, str):
            flag = _FLAGS.get(value.strip().lower())
        else:
            flag = _BITS.get(value) if isinstance(value, bool | int | float) else None
        if flag is None:
            raise InputError(
                f"{where}: `{key}` of an answer must be true or false, but is {quoted(value)}. Correct the record."
            )
        values.add(flag)
    if len(values) > 1:
        raise InputError(f"{where}: `loss` and `weight` of an answer contradict each other. Correct the record.")
    return values.pop() if values else None


def _split_at_marks(text: str, llava: bool) -> list[dict[str, str]]:
    """The parts of a text with `<image>`. In LLaVA's layout the line break after a mark belongs to the mark."""
    first, *rest = text.split(MARK)
    parts = [_text_part(first)] if first else []
    for piece in rest:
        after = _LINE_BREAK.sub("", piece, count=1) if llava else piece
        parts += [{"type": "image", "image": ""}, *([_text_part(after)] if after else [])]
    return parts


def _part(part: Any, where: str) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text_part(require_value(part, "text", str, where))
    if kind in ("image", "image_url"):
        name = part.get("image") or part.get("image_url")
        return {"type": "image", "image": _path(name, where) if name else ""}
    if isinstance(kind, str) and ("video" in kind or "audio" in kind):
        raise _medium_error(where, excerpt(kind))
    raise InputError(f"{where}: a part of a message is neither a text nor an image with a path. Correct the record.")


_FLAGS = {"false": False, "0": False, "0.0": False, "no": False, "true": True, "1": True, "1.0": True, "yes": True}
_BITS: dict[float, bool] = {0: False, 1: True}
_LINE_BREAK = re.compile(r"^(?:\r\n|\n|\r)")
# How the files of Qwen-VL name a picture, and how a text embeds one.
_PICTURE_IN_TEXT = re.compile(r"<img>[^<\n]{1,4096}</img>|data:image/[\w.+-]{1,40};base64,", re.IGNORECASE)
_MEDIA_MARK = re.compile(r"(?:\A\s*|\n)(<(?:video|audio)>)")  # at the beginning of a line; elsewhere it may be HTML


def _media_mark(messages: Sequence[Message]) -> str:
    """The first mark of a video or a sound anywhere in a question; "" if there is none."""
    texts = (p["text"] for m in messages if m["role"] == "user" for p in m["content"] if p["type"] == "text")
    return next((mark[0] for text in texts if (mark := re.search("<(?:video|audio|speech|sound)>", text))), "")


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
