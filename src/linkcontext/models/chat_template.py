"""The chat template of a model together with its tokenizer."""

import json
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig

from linkcontext.episodes.special_tokens import marks_pattern
from linkcontext.errors import InputError
from linkcontext.models.families import MEDIA_TOKENS, setting
from linkcontext.models.prompting import USUAL_PROMPTING, Prompting

log = logging.getLogger("linkcontext")


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a processor, and its tokenizer with offsets: a `ChatTokenizer` for `render.encode`."""

    processor: Any
    prompting: Prompting = USUAL_PROMPTING
    generation: GenerationConfig | None = None  # may name further tokens that end a reply

    @cached_property
    def source(self) -> str:
        """The template's text: JSON of all templates if there are several, "" if there is none."""
        template = setting(self.processor, "chat_template") or self.processor.tokenizer.chat_template or ""
        return template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)

    @cached_property
    def variables(self) -> dict[str, Any]:
        """The variables of `--chat-template-kwargs` that the template reads."""
        return self.read_of(self.prompting.template_kwargs)

    def read_of(self, values: dict[str, Any]) -> dict[str, Any]:
        """The variables among `values` that the template reads."""
        return {name: value for name, value in values.items() if re.search(rf"\b{re.escape(name)}\b", self.source)}

    def warn(self, name: str) -> None:
        """Warn about variables that are given and that the template does not read."""
        if idle := sorted(self.prompting.template_kwargs.keys() - self.variables.keys()):
            log.warning(
                "--chat-template-kwargs: the chat template of %s does not use %s, which therefore has no effect.",
                name,
                ", ".join(idle),
            )

    @cached_property
    def ends(self) -> dict[int, str]:
        """The tokens that end a reply, with their text: those of the generation config and of the tokenizer."""
        tokenizer = self.processor.tokenizer
        known = self.generation.eos_token_id if self.generation is not None else None
        ids = known if isinstance(known, list) else [known]
        chosen = dict.fromkeys(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)
        return {i: mark for i in chosen if (mark := tokenizer.decode([i]))}

    @cached_property
    def end_mark(self) -> str:
        """The end token to add after an answer if the template writes none.

        Some models end an answer with the mark of the next question, which is only written if one follows.
        """
        if not self.ends:
            return ""
        between = self._behind(followed=True) or ""
        default = self.ends.get(self.processor.tokenizer.eos_token_id, next(iter(self.ends.values())))
        return next((mark for mark in self.ends.values() if between.startswith(mark)), default)

    @cached_property
    def gap(self) -> str:
        """The white space that the template writes before a given answer but not at the end of a prompt: a space if
        prompts end in `ASSISTANT:` and answers are written as `ASSISTANT: answer`."""
        question = [{"role": "user", "content": [{"type": "text", "text": "\ue000"}]}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": "\ue001"}]}
        try:
            prompt = self.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
            text = self.apply_chat_template([*question, answer], tokenize=False, add_generation_prompt=False)
        except InputError:
            return ""
        before = text.partition("\ue001")[0]
        gap = before.removeprefix(prompt)
        return gap if before != gap and gap.isspace() else ""

    def _behind(self, followed: bool) -> str | None:
        """What the template writes after an answer, up to the end or to the next question. None if it refuses
        conversations without pictures."""
        texts = {"user": "\ue000", "assistant": "\ue001"}
        roles = ("user", "assistant", "user") if followed else ("user", "assistant")
        messages = [{"role": role, "content": [{"type": "text", "text": texts[role]}]} for role in roles]
        try:
            text = self.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except InputError:
            return None
        return text.partition(texts["assistant"])[2].partition(texts["user"])[0]

    @property
    def end_of_answer(self) -> str:
        """How an answer ends, in words."""
        written = self._behind(followed=False)
        if written is None:
            return "one of the model's end tokens, written by the chat template or added"
        if not self.ends:
            return "nothing: the model has no end token"
        mark = next((mark for mark in self.ends.values() if written.lstrip().startswith(mark)), None)
        if mark is not None or any(written.startswith(each) for each in self.ends.values()):
            return f"{mark!r}, as the chat template writes it"
        instead = f"writes {written[:40]!r}" if written else "writes nothing"
        return (
            f"{self.end_mark!r}, added: the chat template {instead} behind an answer, which is none of the model's "
            f"end tokens"
        )

    def describe(self) -> dict[str, Any]:
        """What config.json of a run records about the template."""
        return {"chat_template_kwargs": self.variables, "end_of_answer": self.end_of_answer}

    @cached_property
    def marks(self) -> re.Pattern[str]:
        """Matches the tokenizer's special tokens, the processor's marks for pictures, and tokens that were added to the
        vocabulary and that the template writes, like `<think>`."""
        tokenizer = self.processor.tokenizer
        added = tokenizer.added_tokens_decoder.values()
        special = [str(token) for token in added if token.special]
        other = [token for token in map(str, added) if not token.isspace() and not token.isalnum()]
        own = [setting(self.processor, name) for name in MEDIA_TOKENS]
        return marks_pattern(
            [
                *tokenizer.all_special_tokens,
                *special,
                *(token for token in other if token in self.source),
                *(mark for mark in own if isinstance(mark, str)),
            ]
        )

    def apply_chat_template(
        self, messages: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The conversation as text. Raises `InputError` if there is no template or it refuses the conversation."""
        if not self.source:
            raise InputError("the model has no chat template. Choose an instruction-tuned model.")
        try:
            text: str = self.processor.apply_chat_template(
                messages,
                tokenize=tokenize,
                add_generation_prompt=add_generation_prompt,
                **self.variables,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            # A template is a program by the model's author, and can raise anything of these.
            raise InputError(f"the model's chat template refuses the conversation: {error}") from error
        return text

    def adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer has to add its special tokens: not if the template has already written the first."""
        first = self.processor.tokenizer.bos_token
        return first is not None and not text.startswith(first)

    def __call__(self, text: str, *, return_offsets_mapping: bool) -> dict[str, Any]:
        """Token ids and their offsets in the text."""
        encoding: dict[str, Any] = self.processor.tokenizer(
            text,
            add_special_tokens=self.adds_special_tokens(text),
            return_offsets_mapping=return_offsets_mapping,
            verbose=False,  # a text longer than the context is refused with a sentence of our own
        )
        return encoding
