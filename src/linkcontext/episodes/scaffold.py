"""Scaffolds: the wording around pictures, and the messages that they make of episodes.

A scaffold is data: the text around a support picture, its answer and the query. Training and evaluation build their
messages here, so an evaluation prompt is a training conversation without its last answer. `episodes.render` turns
messages into text and tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.jsonl import from_dict, read_json
from linkcontext.records import Episode, Turn

Message = dict[str, Any]  # {"role": ..., "content": [{"type": "image", "image": id} | {"type": "text", "text": ...}]}


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The wording around pictures. `{image}`, `{question}` and `{answer}` are placeholders; `{image}` stands for all
    pictures of a turn.

    With `turns`, every support turn is a user message and an assistant message. Without, the whole support is in the
    user's message before the query, each picture followed by its answer.
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

# One question about two pictures, for naming by pairs.
PAIRS = Scaffold(
    "pairs",
    "{image}{question}",
    "{answer}",
    "{image}{question}",
    "{answer}",
    question="Do these two pictures show the same kind of thing? Answer yes or no.",
)


def load_scaffold(name: str) -> Scaffold:
    """A scaffold by name, or from a JSON file with the fields of `Scaffold`. Raises `InputError` for a bad file."""
    if name in SCAFFOLDS:
        return SCAFFOLDS[name]
    path = Path(name)
    if not path.is_file():
        known = ", ".join(SCAFFOLDS)
        raise InputError(f"--scaffold {name}: neither one of {known} nor a file. Name one, or write a JSON file.")
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object with the fields of a scaffold. Correct the file.")
    scaffold = from_dict(Scaffold, values, str(path))
    for field, marks in (
        ("support", "{image}"),
        ("query", "{image}"),
        ("support_answer", "{answer}"),
        ("query_answer", "{answer}"),
    ):
        if getattr(scaffold, field).count(marks) != 1:
            raise InputError(f"{path}: `{field}` must contain {marks} exactly once.")
    return scaffold


def refuse_scaffold(scaffold: Scaffold, marks: re.Pattern[str]) -> None:
    """Raise `InputError` if a text of the scaffold contains a special token of the model."""
    for name in ("support", "support_answer", "query", "query_answer", "question", "system"):
        refuse_marks(getattr(scaffold, name), marks, f"--scaffold {scaffold.name}: its `{name}`")


def _content(text: str, turn: Turn, scaffold: Scaffold) -> list[dict[str, str]]:
    """A user's text as message parts, with the turn's pictures at `{image}`."""
    filled = text.replace("{question}", turn.question or scaffold.question)
    before, _, after = filled.partition("{image}")
    parts = [{"type": "text", "text": before}] if before else []
    parts += [{"type": "image", "image": item} for item in turn.pictures]
    return [*parts, {"type": "text", "text": after}] if after else parts


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def build_messages(
    turns: Sequence[Turn], scaffold: Scaffold, final: Turn | None = None, answer: str | None = None
) -> list[Message]:
    """The messages of support `turns` and of a `final` query, with its `answer` if that is given."""
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
    return messages if answer is None else with_answer(messages, scaffold, answer)


def with_answer(messages: Sequence[Message], scaffold: Scaffold, answer: str) -> list[Message]:
    """The conversation, which ends with a query, and its answer."""
    return [*messages, _reply(scaffold.query_answer.replace("{answer}", answer))]


def query_messages(
    episode: Episode, query: int, shots_per_class: int, scaffold: Scaffold, answer: str | None = None
) -> list[Message]:
    """The messages of a support and the query with index `query`, with its `answer` if that is given."""
    return build_messages(episode.shown(shots_per_class), scaffold, episode.queries[query], answer)


def image_ids(messages: Sequence[Message]) -> list[str]:
    """The item ids of a conversation's pictures, in order."""
    return [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]
