"""Render messages as text, and tokenize them with labels, which are made together with the tokens.

`linkcontext validate` checks that the tokens of a prompt are a prefix of the conversation with its answer.
"""

import dataclasses
import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from linkcontext.episodes.scaffold import Message, image_ids
from linkcontext.episodes.special_tokens import marked, refuse_marks
from linkcontext.errors import InputError

IGNORE = -100  # the label of a token without loss


class ChatTokenizer(Protocol):
    """The interface of a tokenizer with a chat template, as this module uses it."""

    @property
    def marks(self) -> re.Pattern[str]:
        """A pattern of the model's special tokens, which no text may contain (`episodes.special_tokens`)."""

    @property
    def ends(self) -> dict[int, str]:
        """The tokens that end a reply: token id -> text."""

    @property
    def gap(self) -> str:
        """The white space that the template writes before a given answer, but not at the end of a prompt."""

    @property
    def end_mark(self) -> str:
        """The end token that is added after an answer if the template writes none; "" if the model has none."""

    def apply_chat_template(self, messages: list[Message], *, tokenize: bool, add_generation_prompt: bool) -> str:  # noqa: D102
        ...

    def __call__(self, text: str, *, return_offsets_mapping: bool) -> dict[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a conversation. A label is the token's id if the token carries loss, else IGNORE.

    `pictures` are the item ids of the conversation's pictures, in order.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    pictures: tuple[str, ...]

    def sha256(self) -> str:
        """A hash of token ids and pictures, which are everything that the model reads."""
        return hashlib.sha256(json.dumps([self.ids, self.pictures]).encode()).hexdigest()


def render_text(
    messages: Sequence[Message], tokenizer: ChatTokenizer, *, reply: bool = False
) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation; return the text and the spans of the assistant's answers, with the `gap` before them.

    The template is also rendered with a placeholder instead of each text, so that answers are located exactly: the
    answer "a" is not found in "assistant". Raises `InputError` for a template that changes a text other than by
    stripping it, and for a text that contains a special token of the model.
    """
    texts: list[tuple[str, int]] = []  # every text, and the number of its message
    skeleton: list[Message] = []
    for number, message in enumerate(messages):
        parts = []
        for part in message["content"]:
            if part["type"] == "text":
                refuse_marks(part["text"], tokenizer.marks, _place(messages, number))
                parts.append({"type": "text", "text": f"\ue000{len(texts)}\ue001"})
                texts.append((part["text"], number))
            else:
                parts.append(part)
        skeleton.append({**message, "content": parts})
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply)
    marked_text = tokenizer.apply_chat_template(skeleton, tokenize=False, add_generation_prompt=reply)
    pieces = re.split("\ue000(\\d+)\ue001", marked_text)
    for trim in (str, str.strip):
        whole, spans = pieces[0], []  # of every text: where it stands, and the number of its message
        for place, after in zip(pieces[1::2], pieces[2::2], strict=True):
            written, number = trim(texts[int(place)][0]), texts[int(place)][1]
            spans.append((len(whole), len(whole) + len(written), number))
            whole += written + after
        if whole == text:
            starts = [start for start, _, _ in spans]
            for match in tokenizer.marks.finditer(text):  # this includes marks that two adjacent texts form together
                last = bisect_left(starts, match.end()) - 1  # the last text that begins before the mark ends
                if last >= 0 and spans[last][1] > match.start():
                    raise marked(match[0], _place(messages, spans[last][2]))
            answers = [(start, end) for start, end, n in spans if messages[n]["role"] == "assistant"]
            return text, [
                # A model generates the gap itself, in its first token or as a separate token.
                (start - len(tokenizer.gap) if text.endswith(tokenizer.gap, 0, start) else start, end)
                for start, end in answers
            ]
    raise InputError(
        "the model's chat template changes the texts of messages, so answers cannot be located in prompts."
    )


def _place(messages: Sequence[Message], number: int) -> str:
    return f"message {number + 1} of {len(messages)} ({messages[number]['role']})"


def encode(
    messages: Sequence[Message], tokenizer: ChatTokenizer, supervise: str = "last", *, reply: bool = False
) -> Tokens:
    """Tokenize a conversation, with one placeholder per picture, as in the chat template's text.

    `supervise` says which answers carry loss: `last`, `every` or `none`. The loss covers the text of the answer and its
    end token. With `reply`, the text ends with the generation prompt.
    """
    text, spans = render_text(messages, tokenizer, reply=reply)
    if supervise != "none" and messages[-1]["role"] == "assistant":
        text = end_last_answer(text, spans, tokenizer)
    return tokenize(text, spans, image_ids(messages), tokenizer, supervise)


def end_last_answer(text: str, spans: Sequence[tuple[int, int]], tokenizer: ChatTokenizer) -> str:
    """The text of a conversation with one of the model's end tokens after its last answer.

    If the template writes none there, the text is cut after the last answer, and `end_mark` is added. Earlier answers
    stay as the template renders them.
    """
    end = spans[-1][1]
    behind = text[end:].lstrip()
    if any(text[end:].startswith(mark) or behind.startswith(mark) for mark in tokenizer.ends.values()):
        return text
    return text[:end] + tokenizer.end_mark


def tokenize(
    text: str, spans: Sequence[tuple[int, int]], shown: Sequence[str], tokenizer: ChatTokenizer, supervise: str
) -> Tokens:
    """Tokenize a rendered conversation. `spans` are the assistant's answers, `shown` the ids of its pictures."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
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
        while last < len(ids) and ids[last] not in tokenizer.ends and text[slice(*offsets[last])].isspace():
            last += 1  # some templates write a space before the end token
        if last < len(ids) and ids[last] in tokenizer.ends:  # the end of the answer is part of it
            labels[position : last + 1] = ids[position : last + 1]
            position = last + 1
    return Tokens(tuple(ids), tuple(labels), tuple(shown))


def expand_placeholders(tokens: Tokens, placeholder: int, counts: Callable[[str], int]) -> Tokens:
    """Repeat the placeholder of each picture `counts(item id)` times, which is the picture's number of tokens."""
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


def colour_labels(tokens: Tokens, decode: Callable[[list[int]], str]) -> str:
    """The conversation in rich markup for a terminal: tokens with loss are green, others are dim."""
    pieces = []
    for token, label in zip(tokens.ids, tokens.labels, strict=True):
        word = _visible(decode([token]))
        pieces.append(f"[bold green]{word}[/]" if label != IGNORE else f"[dim]{word}[/]")
    return "".join(pieces)


@lru_cache(maxsize=4096)
def _visible(word: str) -> str:
    return word.replace("[", "\\[").replace("\n", "⏎\n")
