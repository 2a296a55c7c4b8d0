"""How a model is prompted and how it replies: options that change what is measured, besides prompts and weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from linkcontext.errors import InputError
from linkcontext.metavars import OptionalCount, OptionalJson

GenerationChoice = Literal["clean", "model"]
REPLY_TOKENS = 24  # of a name, with some words around it
# The settings that `generation_config="model"` takes from a checkpoint's generation config. Replies are always greedy,
# so temperature and other sampling settings are not used.
GENERATION_SETTINGS = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "sequence_bias",
    "min_length",
    "min_new_tokens",
    "suppress_tokens",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """How a model is prompted and how it replies, loaded here or behind a server."""

    chat_template_kwargs: OptionalJson = None
    """Variables of the model's chat template as a JSON object: '{"enable_thinking": false}' turns reasoning off where
    the template has this variable."""
    max_new_tokens: OptionalCount = None
    """Maximum number of tokens of a reply. Default: 24, or more if a benchmark or a conversation needs it. Models that
    reason before they answer need thousands."""
    generation_config: GenerationChoice = "clean"
    """Replies are always greedy. clean: ignore the checkpoint's generation config; model: apply its penalties and
    suppressed tokens, with every engine."""

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"--max-new-tokens {self.max_new_tokens}: a reply has at least 1 token.")
        if self.chat_template_kwargs is not None:
            flag, example = "--chat-template-kwargs", """'{"enable_thinking": false}'"""
            values = canonical_json(flag, self.chat_template_kwargs, example, RESERVED)
            object.__setattr__(self, "chat_template_kwargs", values)

    @property
    def template_kwargs(self) -> dict[str, Any]:
        """The variables of the chat template."""
        return dict(json.loads(self.chat_template_kwargs or "{}"))

    @property
    def reply_tokens(self) -> int:
        """The maximum number of tokens of a reply about a picture."""
        return self.max_new_tokens or REPLY_TOKENS


RESERVED = ("conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template")


def canonical_json(flag: str, text: str, example: str, reserved: Sequence[str]) -> str | None:
    """The JSON object of an option with sorted keys, so that equal ones are equal texts; None for an empty one.

    Raises `InputError` for another text, and for the keys `reserved`.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{flag} {text[:80]}: not JSON ({error}). Write an object: {example}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{flag} {text[:80]}: not a JSON object. Write one: {example}.")
    if wrong := [name for name in reserved if name in values]:
        raise InputError(f"{flag}: {wrong[0]} is set by linkcontext itself. Leave it out.")
    return json.dumps(values, sort_keys=True) if values else None


USUAL_PROMPTING = Prompting()

THOUGHT = "<think>", "</think>"  # the marks around reasoning, in the models that reason


def without_reasoning(reply: str, prompt: str = "") -> str | None:
    """A reply without the reasoning before it, or None if the reasoning is not finished.

    `prompt` is the text before the reply: some templates write the beginning of the reasoning themselves.
    """
    begin, end = THOUGHT
    if end in reply:
        return reply.rpartition(end)[2].strip()
    begun = prompt.rfind(begin) > prompt.rfind(end) or reply.lstrip().startswith(begin)
    return None if begun else reply
