"""Wording: episodes into messages, messages into tokens with labels. All words that a model reads are made here.

A scaffold is data: what is said around a support picture, its answer and the query. The same renderer serves
training and evaluation: an evaluation prompt is a training conversation without its last answer, and its tokens
are asserted to be the first tokens of that conversation.
"""

import dataclasses
import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from linkcontext.episodes.special_tokens import marked, refuse_marks
from linkcontext.errors import InputError
from linkcontext.records import Episode, Turn, from_dict, read_json

IGNORE = -100  # a token that carries no loss
Message = dict[str, Any]  # {"role": ..., "content": [{"type": "image", "image": id} | {"type": "text", "text": ...}]}


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What is said around the pictures. `{image}`, `{question}` and `{answer}` are filled in;
    `{image}` is all pictures of a turn.

    With `turns` every support picture is a turn of the conversation; without, the whole support stands in
    the user's one message, each picture followed by its answer.
    """

    name: str
    support: str
    support_answer: str
    query: str
    query_answer: str
    question: str = "What is this?"
    system: str = ""
    turns: bool = True


SCAFFOLDS = {
    "turns": Scaffold("turns", "{image}{question}", "{answer}", "{image}{question}", "{answer}"),
    "single_turn": Scaffold(
        "single_turn", "{image}{question} ", "{answer}\n", "{image}{question}", "{answer}", turns=False
    ),
    # The prompts of Link-Context Learning (arXiv 2308.07891).
    "lcl": Scaffold(
        "lcl",
        "[BEGIN EXAMPLE] {question} {image}?",
        'there is "{answer}" in the image. [END EXAMPLE]',
        "[FINAL QUESTION]: Based on the previous examples, {question} {image}?",
        'there is "{answer}" in the image.',
        question="What is in the image",
        system="Look for the causal relation between the examples, and answer the final question from them.",
    ),
}


def scaffold(name: str) -> Scaffold:
    """A scaffold by name, or from a JSON file with the fields of `Scaffold`."""
    if name in SCAFFOLDS:
        return SCAFFOLDS[name]
    path = Path(name)
    if not path.is_file():
        known = ", ".join(SCAFFOLDS)
        raise InputError(f"--scaffold {name}: neither one of {known} nor a file. Name one, or write a JSON file.")
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a JSON object was expected, with the fields of a scaffold. Mend the file.")
    made = from_dict(Scaffold, values, str(path))
    for field, marks in (
        ("support", "{image}"),
        ("query", "{image}"),
        ("support_answer", "{answer}"),
        ("query_answer", "{answer}"),
    ):
        if getattr(made, field).count(marks) != 1:
            raise InputError(f"{path}: `{field}` must hold {marks} exactly once.")
    return made


def refuse_scaffold(scaffold: Scaffold, marks: re.Pattern[str]) -> None:
    """Raise an `InputError` if a scaffold's own words hold one of the model's marks; `{image}` is none."""
    for name in ("support", "support_answer", "query", "query_answer", "question", "system"):
        refuse_marks(getattr(scaffold, name), marks, f"--scaffold {scaffold.name}: its `{name}`")


def _content(text: str, turn: Turn, scaffold: Scaffold) -> list[dict[str, str]]:
    """A user's text as message parts, the turn's pictures where `{image}` stands."""
    filled = text.replace("{question}", turn.question or scaffold.question)
    before, _, after = filled.partition("{image}")
    parts = [{"type": "text", "text": before}] if before else []
    parts += [{"type": "image", "image": item} for item in turn.pictures]
    return [*parts, {"type": "text", "text": after}] if after else parts


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def conversation(
    turns: Sequence[Turn], scaffold: Scaffold, final: Turn | None = None, answer: str | None = None
) -> list[Message]:
    """Messages of support `turns` and, where given, a `final` query. Its answer is written only when `answer` is."""
    messages = [{"role": "system", "content": [{"type": "text", "text": scaffold.system}]}] if scaffold.system else []
    if scaffold.turns:
        for turn in turns:
            messages.append({"role": "user", "content": _content(scaffold.support, turn, scaffold)})
            messages.append(_reply(scaffold.support_answer.replace("{answer}", turn.answer)))
        opening: list[dict[str, str]] = []
    else:
        opening = [
            part
            for turn in turns
            for part in (
                *_content(scaffold.support, turn, scaffold),
                {"type": "text", "text": scaffold.support_answer.replace("{answer}", turn.answer)},
            )
        ]
    if final is not None:
        messages.append({"role": "user", "content": [*opening, *_content(scaffold.query, final, scaffold)]})
    return messages if answer is None else answered(messages, scaffold, answer)


def answered(messages: Sequence[Message], scaffold: Scaffold, answer: str) -> list[Message]:
    """A conversation that ends in a query, with its answer."""
    return [*messages, _reply(scaffold.query_answer.replace("{answer}", answer))]


def prompt(
    episode: Episode, query: int, shots_per_class: int, scaffold: Scaffold, answer: str | None = None
) -> list[Message]:
    """The messages of one query after its support; with `answer`, the assistant's reply is written as well."""
    return conversation(episode.shown(shots_per_class), scaffold, episode.queries[query], answer)


def pictures(messages: Sequence[Message]) -> list[str]:
    """The item ids of a conversation's pictures, in order."""
    return [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]


class Words(Protocol):
    """The part of a tokenizer that is used here: a chat template, and tokens that know where they came from."""

    @property
    def marks(self) -> re.Pattern[str]:
        """The model's own marks, which no text may hold (`episodes.marks`)."""

    @property
    def ends(self) -> dict[int, str]:
        """The tokens at which the model ends a reply, and what they are as text."""

    @property
    def gap(self) -> str:
        """The white space that the template writes before a given answer and not where the model is to speak."""

    @property
    def end_mark(self) -> str:
        """The end token that is added after an answer where the template writes none; "" if the model has none."""

    def apply_chat_template(self, messages: list[Message], *, tokenize: bool, add_generation_prompt: bool) -> str:  # noqa: D102
        ...

    def __call__(self, text: str, *, return_offsets_mapping: bool) -> dict[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Tokens:
    """A conversation in tokens. `labels` repeat the ids where the loss is, and are IGNORE elsewhere."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    pictures: tuple[str, ...]

    def sha256(self) -> str:
        """What the model read: a hash of ids and pictures."""
        return hashlib.sha256(json.dumps([self.ids, self.pictures]).encode()).hexdigest()


def render(messages: Sequence[Message], words: Words, *, reply: bool = False) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and where the assistant's answers stand in it, with the `gap` before them.

    The template is rendered a second time with a mark in place of every text, so that an answer is found where
    it was put, whatever else looks like it: "a" is no part of "assistant". Raises `InputError` for a template that
    does anything to a text but strip it, and for a text that holds one of the model's own marks.
    """
    texts: list[tuple[str, int]] = []  # every text, and the number of its message
    skeleton: list[Message] = []
    for number, message in enumerate(messages):
        parts = []
        for part in message["content"]:
            if part["type"] == "text":
                refuse_marks(part["text"], words.marks, _place(messages, number))
                parts.append({"type": "text", "text": f"\ue000{len(texts)}\ue001"})
                texts.append((part["text"], number))
            else:
                parts.append(part)
        skeleton.append({**message, "content": parts})
    text = words.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply)
    marked_text = words.apply_chat_template(skeleton, tokenize=False, add_generation_prompt=reply)
    pieces = re.split("\ue000(\\d+)\ue001", marked_text)
    for trim in (str, str.strip):
        whole, spans = pieces[0], []  # of every text: where it stands, and the number of its message
        for place, after in zip(pieces[1::2], pieces[2::2], strict=True):
            written, number = trim(texts[int(place)][0]), texts[int(place)][1]
            spans.append((len(whole), len(whole) + len(written), number))
            whole += written + after
        if whole == text:
            starts = [start for start, _, _ in spans]
            for match in words.marks.finditer(text):  # also a mark that two neighbouring texts form together
                last = bisect_left(starts, match.end()) - 1  # the last text that begins before the mark ends
                if last >= 0 and spans[last][1] > match.start():
                    raise marked(match[0], _place(messages, spans[last][2]))
            answers = [(start, end) for start, end, n in spans if messages[n]["role"] == "assistant"]
            return text, [
                # A model generates the gap itself, as part of its first token or as a token of its own.
                (start - len(words.gap) if text.endswith(words.gap, 0, start) else start, end)
                for start, end in answers
            ]
    raise InputError("the model's chat template changes what is said, so that answers cannot be told from prompts.")


def _place(messages: Sequence[Message], number: int) -> str:
    return f"message {number + 1} of {len(messages)} ({messages[number]['role']})"


def encode(messages: Sequence[Message], words: Words, supervise: str = "last", *, reply: bool = False) -> Tokens:
    """Tokens of a conversation, each picture one placeholder as in the chat template's text.

    `supervise` says which answers carry the loss: `last`, `every` or `none`. An answer's loss covers its
    words and the token that ends it. With `reply` the text ends where the assistant is to speak.
    """
    text, spans = render(messages, words, reply=reply)
    if supervise != "none" and messages[-1]["role"] == "assistant":
        text = closed(text, spans, words)
    return tokenize(text, spans, pictures(messages), words, supervise)


def closed(text: str, spans: Sequence[tuple[int, int]], words: Words) -> str:
    """A conversation whose last answer is followed by one of the model's end tokens.

    If the template writes none there, the text is cut after the last answer and `end_mark` is added. Earlier answers
    stay as the template renders them.
    """
    end = spans[-1][1]
    behind = text[end:].lstrip()
    if any(text[end:].startswith(mark) or behind.startswith(mark) for mark in words.ends.values()):
        return text
    return text[:end] + words.end_mark


def tokenize(text: str, spans: Sequence[tuple[int, int]], shown: Sequence[str], words: Words, supervise: str) -> Tokens:
    """Tokens of a rendered conversation, in which the assistant's answers stand at `spans`."""
    found = words(text, return_offsets_mapping=True)
    ids, offsets = found["input_ids"], found["offset_mapping"]
    chosen = {"last": spans[-1:], "every": spans, "none": []}[supervise]
    labels = [IGNORE] * len(ids)
    position = 0
    for start, end in chosen:
        while offsets[position][1] <= start:
            position += 1
        while position < len(ids) and offsets[position][0] < end:
            labels[position] = ids[position]
            position += 1
        last = position
        while last < len(ids) and ids[last] not in words.ends and text[slice(*offsets[last])].isspace():
            last += 1  # some templates write a space before the end token
        if last < len(ids) and ids[last] in words.ends:  # the end of the answer is part of it
            labels[position : last + 1] = ids[position : last + 1]
            position = last + 1
    return Tokens(tuple(ids), tuple(labels), tuple(shown))


def expand(tokens: Tokens, placeholder: int, counts: Callable[[str], int]) -> Tokens:
    """Every picture's one placeholder repeated as often as the picture has tokens."""
    seen = iter(tokens.pictures)
    ids: list[int] = []
    labels: list[int] = []
    for token, label in zip(tokens.ids, tokens.labels, strict=True):
        times = counts(next(seen)) if token == placeholder else 1
        ids += [token] * times
        labels += [label] * times
    if next(seen, None) is not None:
        raise InputError(
            "the chat template left out a picture: it has fewer placeholders than the messages have pictures."
        )
    return dataclasses.replace(tokens, ids=tuple(ids), labels=tuple(labels))


def coloured(tokens: Tokens, decode: Callable[[list[int]], str]) -> str:
    """The conversation for the terminal (rich markup): what carries loss is green, the rest is dim."""
    pieces = []
    for token, label in zip(tokens.ids, tokens.labels, strict=True):
        word = _visible(decode([token]))
        pieces.append(f"[bold green]{word}[/]" if label != IGNORE else f"[dim]{word}[/]")
    return "".join(pieces)


@lru_cache(maxsize=4096)
def _visible(word: str) -> str:
    return word.replace("[", "\\[").replace("\n", "⏎\n")
