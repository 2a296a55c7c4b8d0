"""Idefics, the open Flamingo in transformers: its processor, called as those of other models are.

It wants texts and pictures in one list (given apart it would put the pictures behind the text), writes the first token
itself, and comes without a chat template. The wording here is that of its model card.
"""

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

FAKE, PICTURE, UTTERANCE = "<fake_token_around_image>", "<image>", "<end_of_utterance>"
TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{{- {'user': 'User:', 'assistant': 'Assistant:'}.get(message.role, '') -}}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- picture -}}"
    "{%- else -%}{{- ' ' if loop.first and message.role != 'system' -}}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- end -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)


class Interleaving:
    """An `IdeficsProcessor` that takes texts and their pictures apart, as other models' processors do."""

    image_token, chat_template = PICTURE, TEMPLATE

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.image_processor = processor.image_processor

    @property
    def utterance(self) -> str:
        """What ends a message: the chat models (instruct) have a token for it."""
        return UTTERANCE if UTTERANCE in self.tokenizer.get_vocab() else "\n"

    @property
    def ends(self) -> list[int]:
        """The tokens that end a reply."""
        return [self.tokenizer.eos_token_id, self.tokenizer(f"a{self.utterance}")["input_ids"][-1]]

    def apply_chat_template(
        self, messages: list[dict[str, Any]], tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        """The conversation as text."""
        text: str = self.tokenizer.apply_chat_template(
            messages,
            chat_template=TEMPLATE,
            tokenize=tokenize,
            add_generation_prompt=add_generation_prompt,
            picture=FAKE + PICTURE + FAKE,
            end=self.utterance + "\n" * (self.utterance != "\n"),
        )
        return text

    def __call__(
        self,
        text: Sequence[str],
        images: Sequence[Sequence[Image.Image]] | None = None,
        add_special_tokens: bool = False,  # the processor writes the only one itself
        **options: Any,
    ) -> Any:
        """What the processor makes of texts with marks and the pictures of each."""
        prompts = []
        for words, shown in zip(text, images or [()] * len(text), strict=True):
            first, *rest = re.split(re.escape(FAKE + PICTURE + FAKE), words.removeprefix(self.tokenizer.bos_token))
            prompt = [first, *(part for pair in zip(shown, rest, strict=True) for part in pair)]
            prompts.append([part for part in prompt if part != ""])
        return self.processor(text=prompts, add_special_tokens=False, **options)

    def save_pretrained(self, folder: Any) -> None:
        """The processor's own files."""
        self.processor.save_pretrained(folder)
