"""Idefics, an open reproduction of Flamingo in transformers: its processor, vision and cross-attention; and Idefics2's
processor.

The processor of Idefics takes texts and pictures in one list (given as two lists it would put the pictures behind the
text), writes the first token itself, and has no chat template. The wording here is that of the model card.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from linkcontext.models.calls import Features, cache_argument

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


class IdeficsChatProcessor:
    """An `IdeficsProcessor` that takes texts and their pictures in two lists, as the processors of other models do."""

    image_token, chat_template = PICTURE, TEMPLATE

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.image_processor = processor.image_processor

    @property
    def utterance(self) -> str:
        """The text that ends a message. The instruct models have a token for it."""
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
        """The processor's output for texts with image marks and the pictures of each text."""
        prompts = []
        for words, shown in zip(text, images or [()] * len(text), strict=True):
            first, *rest = re.split(re.escape(FAKE + PICTURE + FAKE), words.removeprefix(self.tokenizer.bos_token))
            prompt = [first, *(part for pair in zip(shown, rest, strict=True) for part in pair)]
            prompts.append([part for part in prompt if part != ""])
        return self.processor(text=prompts, add_special_tokens=False, **options)

    def save_pretrained(self, folder: Any) -> None:
        """Save the processor that this one wraps."""
        self.processor.save_pretrained(folder)


class Idefics2ChatProcessor:
    """An `Idefics2Processor` whose chat template writes the space that the processor puts between an image and a word.

    Otherwise the tokens of the word would depend on whether its text goes through the tokenizer or the processor.
    """

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.image_processor, self.chat_template = processor.image_processor, processor.chat_template
        self.image_token, self.fake_image_token = processor.image_token, processor.fake_image_token

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """The conversation as text."""
        text: str = self.processor.apply_chat_template(messages, **options)
        return re.sub(rf"({re.escape(self.image_token)})(?=[^\s<])", r"\1 ", text)

    def __call__(self, **options: Any) -> Any:
        """The processor's output."""
        return self.processor(**options)

    def save_pretrained(self, folder: Any) -> None:
        """Save the processor that this one wraps."""
        self.processor.save_pretrained(folder)


def encode_images(core: Any, inputs: Mapping[str, Tensor], count: int, copies: int) -> list[Features]:
    """Features of images for cross-attention, after the resampler if the network has one."""
    pixels = inputs["pixel_values"].flatten(0, 1)
    output = core.vision_model(pixel_values=pixels, interpolate_pos_encoding=False)
    embeddings = output.last_hidden_state
    if core.config.use_resampler:
        embeddings = core.perceiver_resampler(embeddings)
    rows = zip(embeddings, output.pooler_output, strict=True)
    return [Features(row, pooled.float(), None) for row, pooled in rows]


def cross_attention_inputs(core: Any, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The decoder's arguments for images float[rows, images, T, width]; `mask` int64[rows, n, images] says which of
    them a token reads.

    Since transformers 5.24 the decoder takes resampled images as [rows x images, T, width].
    """
    if not core.config.use_resampler:
        return {"image_encoder_embeddings": images, "image_attention_mask": mask}
    decoder: Any = type(core)
    flat = cache_argument(decoder) == "cache"  # renamed in the same version
    return {"perceiver_embeddings": images.flatten(0, 1) if flat else images, "image_attention_mask": mask}
