"""Conversations as text and tokens, rendered with the model's chat template. Texts are kept with their tokens."""

import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

from linkcontext.episodes.render import ChatTokenizer, Tokens, end_last_answer, render_text, tokenize
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.scaffold import image_ids as shown
from linkcontext.errors import InputError, counted
from linkcontext.models.model import Model

# Bytes of texts with their tokens that are kept: an episode has few texts, and what was taught is asked about again.
TEXTS = 128_000_000
TOKEN = 48  # bytes that a token takes in a `Tokens`: its id, a label, and a place for each


@dataclass
class PromptEncoder:
    """Renders and tokenises conversations, each picture one token. Which pictures they are makes no difference."""

    loaded: Model
    _kept: MutableMapping[Any, tuple[str, Tokens]] = field(
        default_factory=lambda: LRUCache(TEXTS, _text_bytes), repr=False
    )

    def encode(self, messages: Sequence[Message], end: str) -> tuple[str, Tokens]:
        """A conversation's text and tokens. `end` is a `PromptEnd`, or which answers are supervised (last, every)."""
        texts = tuple((m["role"], tuple(part.get("text") for part in m["content"])) for m in messages)
        key = (end, texts)
        if (encoded := self._kept.get(key)) is None:
            text, spans = rendered(messages, end, self.loaded.chat_template)
            labelled = "none" if end in ("open", "closed") else end
            encoded = text, tokenize(text, spans, (), self.loaded.chat_template, labelled)
            if len(encoded[1].ids) <= self.loaded.context and _text_bytes(encoded) <= TEXTS:  # else it is refused
                self._kept[key] = encoded
        text, tokens = encoded
        return text, Tokens(tokens.ids, tokens.labels, tuple(shown(messages)))

    def check_length(self, length: int, short: Tokens) -> None:
        """Raise an `InputError` where a prompt of `length` tokens is longer than the model's context."""
        fits(length, short, self.loaded.context)


def rendered(messages: Sequence[Message], end: str, words: ChatTokenizer) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as text, and the spans of its answers. `end` is as in `PromptEncoder.encode`."""
    text, spans = render_text(messages, words, reply=end == "none")
    if end == "open":
        return text[: spans[-1][1]], []
    return (text if end == "none" else end_last_answer(text, spans, words)), spans


def fits(length: int, short: Tokens, context: int) -> None:
    """Raise an `InputError` with the sum where a prompt of `length` tokens is longer than the context.

    `short` are its tokens with one token for each picture.
    """
    if length > context:
        count = len(short.pictures)
        words = len(short.ids) - count
        raise InputError(
            f"the prompt needs {length} tokens ({(length - words) / max(1, count):.4g} a picture x "
            f"{counted(count, 'picture')} + {words} of text), and the model's context is {context}: about "
            f"{counted(int(context * count / length), 'picture')} fit. Use fewer shots per class, fewer ways, "
            "smaller pictures (--max-pixels), or a model with a longer context."
        )


def _text_bytes(encoded: tuple[str, Tokens]) -> int:
    """About how many bytes a text and its tokens take, with the key that repeats the text."""
    text, tokens = encoded
    return 2 * sys.getsizeof(text) + TOKEN * len(tokens.ids)
