"""Conversations about pictures in the layouts of other tools: LLaVA, messages + images, TRL. Read and written here.

LLaVA      {"id", "image": path or paths, "conversations": [{"from": "human", "value": "<image>\\nQ"},
           {"from": "gpt", "value": "A"}, ...]}                        haotian-liu/LLaVA, docs/Finetune_Custom_Data.md
messages   {"messages": [{"role": "user", "content": "<image>Q"}, {"role": "assistant", "content": "A"}, ...],
           "images": [path, ...]}; in ms-swift "loss": false keeps an answer from being learnt
                            LLaMA-Factory, data/README.md; ms-swift, docs/source_en/Customization/Custom-dataset.md
TRL        {"messages": [{"role", "content": [{"type": "image"}, {"type": "text", "text"}]}], "images"} where every
           answer is learnt, {"prompt", "completion", "images"} where the last is    trl, docs/source/dataset_formats.md

A file is a list or JSON lines. The words are the file's own, but for LLaVA's line break after `<image>`.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from linkcontext.data.readers.json_records import get, records, word
from linkcontext.data.scan import Problems
from linkcontext.errors import InputError, excerpt, quoted
from linkcontext.storage import write_lines

MARK = "<image>"
KEYS = ("conversations", "messages", "prompt")  # one of them tells a record to be a conversation
MEDIA = ("video", "videos", "audio", "audios", "speech", "sound")  # keys of media that are not read
FILMS = (
    *(
        ".mp4",
        ".avi",
        ".mov",
        ".mkv",
        ".webm",
        ".m4v",
        ".wmv",
        ".mpg",
        ".mpeg",
        ".flv",
        ".3gp",
        ".ogv",
        ".mts",
        ".m2ts",
    ),
    *(".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aiff"),
)
LONGEST = 4096  # bytes of a path; a longer one is no path
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

Layout = Literal["llava", "messages", "trl"]
Message = dict[str, Any]  # as in `episodes.scaffold`; an assistant's may have "loss": is it learnt?


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is said about pictures. Their names, paths mostly, stand in the messages and, in order, in `pictures`.

    The turns are the user's and the assistant's, one after the other; a system message may stand before them.
    """

    id: str
    pictures: tuple[str, ...]
    messages: tuple[Message, ...]


def conversations(path: Path, problems: Problems) -> Iterator[Conversation]:
    """The conversations of a file, one by one. Those that are wrong, and copies, are left out and named in `problems`.

    Of different conversations with one id the later ones get their number behind it; strict problems refuse them.
    Raises like `records`.
    """
    return validated(records(path), str(path), problems)


def validated(found: Iterable[tuple[str, Any]], source: str, problems: Problems) -> Iterator[Conversation]:
    """The conversations in records, wherever these are from. As `conversations`."""
    seen: dict[str, int] = {}  # id -> a hash of what is said
    again = 0
    for number, (where, record) in enumerate(found):
        try:
            told = conversation_from_record(record, where, number)
            said = hash((told.pictures, *[part.get("text") for m in told.messages for part in m["content"]]))
            if told.id in seen:
                if problems.strict or seen[told.id] == said:
                    raise InputError(
                        f"{where}: the id {excerpt(told.id)} stood there before. Give each record one of its own."
                    )
                told, again = dataclasses.replace(told, id=f"{told.id}#{number}"), again + 1
        except InputError as error:
            problems.add(str(error))
            continue
        seen[told.id] = said
        yield told
    if again:
        problems.note(f"{source}: records whose id stood there before, now ID#NUMBER: {again}.")


def conversation_from_record(record: Any, where: str, number: int) -> Conversation:
    """A record of any of the layouts; without an id it is called `record NUMBER`.

    Raises `InputError` for a record that is wrong, or about a video or a sound.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: {type(record).__name__} instead of an object. Mend the record.")
    if record.get("id") in (None, ""):
        name = f"record {number}"
    else:
        name = word(record, "id", where)
        where = f"{where} (id {excerpt(name)})"
    if media := next((key for key in MEDIA if record.get(key)), ""):
        raise _medium(where, f"`{media}`")
    shown = record.get("image") or record.get("images") or []
    if record.get("images") and record["images"] not in (shown, [shown]):
        raise InputError(f"{where}: `image` and `images` name different pictures. Leave one of them out.")
    shown = [_path(path, where) for path in (shown if isinstance(shown, list) else [shown])]
    messages = _messages(record, where)
    if any(key in record for key in MEDIA) and (mark := _media_mark(messages)):
        raise _medium(where, mark)  # the file of the medium is missing from the record
    free = [p for m in messages if m["role"] == "user" for p in m["content"] if p["type"] == "image" and not p["image"]]
    if len(free) != len(shown):
        raise InputError(
            f"{where}: the text has {len(free)} {MARK} marks and the record {len(shown)} pictures. Make them agree."
        )
    for part, path in zip(free, shown, strict=True):
        part["image"] = path
    return of(name, messages, where)


def _path(named: Any, where: str) -> str:
    """The path of a picture, as a record names it. Raises `InputError` for anything else."""
    if isinstance(named, dict) and isinstance(named.get("url"), str):
        named = named["url"]
    if not isinstance(named, str) or not named:
        raise InputError(f"{where}: `image` must be a path or a list of paths, not {excerpt(named)}. Mend the record.")
    if named[:5].lower() == "data:" or len(named) > LONGEST:
        raise InputError(
            f"{where}: the record holds the picture itself, or a name that is too long ({excerpt(named)}), instead of "
            "a path. Save the picture as a file and name that."
        )
    if re.match("[A-Za-z][A-Za-z0-9+.-]+://", named):
        raise InputError(
            f"{where}: the picture is given as an address ({excerpt(named)}), which is not opened. Download it and "
            "name its path."
        )
    if named.lower().endswith(FILMS):
        raise _medium(where, excerpt(named))
    return named


def _medium(where: str, what: str) -> InputError:
    return InputError(
        f"{where}: is about a video or a sound ({what}), and only pictures are read. Remove the record, as "
        "`linkcontext data --layout conversations` does."
    )


def of(name: str, messages: Sequence[Message], where: str) -> Conversation:
    """A conversation of these messages; texts that follow each other are one. Raises `InputError` for wrong turns."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise InputError(f"{where}: human and gpt must take turns, human first, gpt last. Mend the record.")
    told = [m if len(m["content"]) == 1 else {**m, "content": _joined(m["content"])} for m in messages]
    asked = [message["content"] for message in told if message["role"] == "user"]
    return Conversation(
        name, tuple([p["image"] for parts in asked for p in parts if p["type"] == "image"]), tuple(told)
    )


def _joined(parts: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for part in parts:
        if part["type"] == "text" and found and found[-1]["type"] == "text":
            found[-1] = {"type": "text", "text": found[-1]["text"] + part["text"]}
        else:
            found.append(part)
    return found


def _messages(record: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record, with "" where a picture stands that the record names elsewhere."""
    messages: list[Message] = []
    if record.get("system"):
        messages.append({"role": "system", "content": [_text(get(record, "system", str, where))]})
    if "messages" in record:
        return messages + [_message(turn, "role", "content", where) for turn in get(record, "messages", list, where)]
    if "prompt" in record:
        messages += [_message(turn, "role", "content", where) for turn in get(record, "prompt", list, where)]
        messages = [m | {"loss": False} if m["role"] == "assistant" else m for m in messages]
        completion = get(record, "completion", list, where)
        return messages + [_message(turn, "role", "content", where) | {"loss": True} for turn in completion]
    return messages + [_message(turn, "from", "value", where) for turn in get(record, "conversations", list, where)]


def _message(turn: Any, speaker: str, said: str, where: str) -> Message:
    name, text = (turn.get(speaker), turn.get(said)) if isinstance(turn, dict) else (None, None)
    role = SPEAKERS.get(name) if isinstance(name, str) else None
    if role is None:
        name = get(turn, speaker, str, where)
        raise InputError(
            f"{where}: {excerpt(name)!r} speaks, who is neither human nor gpt (user, assistant). Mend the record."
        )
    if isinstance(text, list):
        parts = [_part(part, where) for part in text]
        words = "".join(part.get("text", MARK) for part in parts)
        pictures = any(part["type"] == "image" for part in parts)
    else:
        words = text if isinstance(text, str) and text else get(turn, said, str, where)
        pictures = MARK in words
        parts = _marked_parts(words, said == "value") if pictures else [{"type": "text", "text": words}]
    if mark := _MEDIA_MARK.search(words) if role == "user" else None:
        raise _medium(where, mark[1])
    if inside := _PICTURE_IN_TEXT.search(words):
        raise InputError(
            f"{where}: a text holds a picture ({excerpt(inside[0])}). Write {MARK} there, and the path of the "
            "picture under `images`."
        )
    if not words or words.isspace():
        raise InputError(f"{where}: a turn is empty. Mend the record.")
    if pictures and role != "user":
        raise InputError(f"{where}: {name} shows {MARK}, and pictures belong to questions. Mend the record.")
    message: Message = {"role": role, "content": parts}
    if role == "assistant" and (learnt := _learnt(turn, where)) is not None:
        message["loss"] = learnt
    return message


def _learnt(turn: dict[str, Any], where: str) -> bool | None:
    """Whether an answer is to be learnt, by its `loss` (ms-swift) or `weight` (OpenAI); None if it has neither."""
    marks = set()
    for key in ("loss", "weight"):
        value = turn.get(key)
        if value is None:
            continue
        mark = _MARKS.get(value.strip().lower()) if isinstance(value, str) else {0: False, 1: True}.get(_scalar(value))
        if mark is None:
            raise InputError(
                f"{where}: `{key}` of an answer must be true or false, and is {quoted(value)}. Mend the record."
            )
        marks.add(mark)
    if len(marks) > 1:
        raise InputError(f"{where}: `loss` and `weight` of an answer contradict each other. Mend the record.")
    return marks.pop() if marks else None


def _scalar(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else None


def _marked_parts(text: str, llava: bool) -> list[dict[str, str]]:
    first, *rest = text.split(MARK)
    parts = [_text(first)] if first else []
    for piece in rest:
        after = _LINE_BREAK.sub("", piece, count=1) if llava else piece
        parts += [{"type": "image", "image": ""}, _text(after)] if after else [{"type": "image", "image": ""}]
    return parts


def _part(part: Any, where: str) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text(get(part, "text", str, where))
    if kind in ("image", "image_url"):
        named = part.get("image") or part.get("image_url")
        return {"type": "image", "image": _path(named, where) if named else ""}
    if isinstance(kind, str) and ("video" in kind or "audio" in kind):
        raise _medium(where, excerpt(kind))
    raise InputError(f"{where}: a part of a message is neither a text nor an image with a path. Mend the record.")


_MARKS = {"false": False, "0": False, "0.0": False, "no": False, "true": True, "1": True, "1.0": True, "yes": True}
_LINE_BREAK = re.compile(r"^(?:\r\n|\n|\r)")
# The form in which Qwen-VL's files name a picture, and that of a picture inside the text.
_PICTURE_IN_TEXT = re.compile(r"<img>[^<\n]{1,4096}</img>|data:image/[\w.+-]{1,40};base64,", re.IGNORECASE)
_MEDIA_MARK = re.compile(r"(?:\A\s*|\n)(<(?:video|audio)>)")  # at the beginning of a line; elsewhere it may be HTML


def _media_mark(messages: Sequence[Message]) -> str:
    """The first mark of a video or a sound anywhere in a question; "" if there is none."""
    words = (p["text"] for m in messages if m["role"] == "user" for p in m["content"] if p["type"] == "text")
    return next((mark[0] for text in words if (mark := re.search("<(?:video|audio|speech|sound)>", text))), "")


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def write_conversations(told: Iterable[Conversation], path: Path, layout: Layout) -> None:
    """Write a list, or JSON lines where the file is called .jsonl; whole, or not at all.

    Raises `InputError` for what the layout cannot say: `<image>` as a word, in LLaVA system messages and answers
    that are not learnt, in TRL some answers that are learnt and others, besides the last, that are not.
    """
    made = {"llava": _as_llava, "messages": _as_messages, "trl": _as_trl}[layout]
    encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make one for each
    rows = (encode(made(each)) for each in told)
    write_lines((f"{row}\n" for row in rows) if path.suffix == ".jsonl" else _list(rows), path)


def _list(rows: Iterable[str]) -> Iterator[str]:
    before = "[\n"
    for row in rows:
        yield before + row
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def _as_llava(told: Conversation) -> dict[str, Any]:
    if told.messages[0]["role"] == "system" or any(m.get("loss") is False for m in told.messages):
        raise InputError(
            f"{told.id}: LLaVA's layout knows no system message, and learns every answer. Export messages, or take "
            "another scaffold and --supervise every."
        )
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[m["role"]], "value": _marked(told, m, f"{MARK}\n")} for m in told.messages]
    shown = {"image": told.pictures[0] if len(told.pictures) == 1 else list(told.pictures)} if told.pictures else {}
    return {"id": told.id, **shown, "conversations": turns}


def _as_messages(told: Conversation) -> dict[str, Any]:
    messages = [{**message, "content": _marked(told, message, MARK)} for message in told.messages]
    return {"id": told.id, "messages": messages, "images": list(told.pictures)}


def _marked(told: Conversation, message: Message, mark: str) -> str:
    if any(part["type"] == "text" and MARK in part["text"] for part in message["content"]):
        raise InputError(f"{told.id}: a text holds {MARK}, which stands for a picture here. Export trl.")
    return "".join(mark if part["type"] == "image" else part["text"] for part in message["content"])


def _as_trl(told: Conversation) -> dict[str, Any]:
    learnt = [message.get("loss") for message in told.messages if message["role"] == "assistant"]
    last = learnt[-1] and not any(learnt[:-1])
    if False in learnt and not last:
        raise InputError(f"{told.id}: TRL learns every answer or the last one. Export messages.")
    messages = [
        {"role": m["role"], "content": [{"type": "image"} if p["type"] == "image" else p for p in m["content"]]}
        for m in told.messages
    ]
    said = {"prompt": messages[:-1], "completion": messages[-1:]} if last else {"messages": messages}
    return {"id": told.id, **said, "images": list(told.pictures)}
