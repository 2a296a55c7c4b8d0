"""What a model's processor makes of an image: inputs of the vision tower, and the image's tokens in a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from linkcontext.errors import InputError
from linkcontext.inference.prefix_tree import ImageTokens, Ints
from linkcontext.models.families import IMAGE_TOKENS, Family, family_of, setting
from linkcontext.models.model import Model
from linkcontext.models.synthetic_images import blank_image

# Keys of a processor's output that belong to the text.
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "image_attention_mask")


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """The processor's output for one image."""

    ids: list[int]  # the tokens that stand for the image in a prompt
    inputs: dict[str, Tensor]  # what the vision tower takes

    @property
    def nbytes(self) -> int:
        """The bytes of the inputs."""
        return sum(part.nbytes for part in self.inputs.values())


@dataclass(frozen=True, slots=True)
class _Frame:
    """A short text with one image, or the same image several times, as the chat template writes it."""

    text: str
    image_token: int
    ids: list[int]


@dataclass
class ImagePreprocessor:
    """Calls the processor of a model with single images. Needs no weights."""

    model: Model
    _frames: dict[int, _Frame] = field(default_factory=dict, repr=False)
    _in_prompt: dict[tuple[ImageTokens, int], ImageTokens] = field(default_factory=dict, repr=False)

    @cached_property
    def family(self) -> Family:
        """What is known of the model's family."""
        return family_of(self.model.network.config)

    @property
    def core(self) -> Any:
        """The module that encodes images."""
        return self.model.network.get_submodule(self.family.core)

    def preprocess(self, image: Image.Image, alone: bool = False) -> Preprocessed:
        """The processor's output for an RGB image, which is `alone` in its prompt or one of several."""
        image = self.model.reduced(image)
        if self.family.fixed_resolution:  # all images have the same tokens
            inputs = dict(self.model.processor.image_processor([image], return_tensors="pt"))
            return Preprocessed(self._fixed_ids, inputs)
        return self._in_frame(image, self.copies(alone))

    def copies(self, alone: bool) -> int:
        """How often an image is given to the processor at once: twice where it treats one of several differently."""
        return 2 if self.family.resolution_depends_on_count and not alone else 1

    @property
    def image_token(self) -> int:
        """The one token that the chat template writes for an image."""
        return self._frame(1).image_token

    @property
    def frame_ids(self) -> list[int]:
        """The tokens of a short text with one image, before the image is expanded."""
        return self._frame(1).ids

    def image_tokens(self, picture: Preprocessed, features: int) -> ImageTokens:
        """The tokens of an image with `features` features.

        Raises `InputError` if the processor leaves room for more or fewer.
        """
        ids = np.array(picture.ids, np.int64)
        return ImageTokens(ids, self._slots(ids, features), self._positions(ids, picture.inputs))

    def in_prompt(self, images: Sequence[ImageTokens]) -> tuple[ImageTokens, ...]:
        """The tokens of a prompt's images, in order: some processors write which image of the prompt each is."""
        if self.family.image_number_marks is None:
            return tuple(images)
        return tuple(self._numbered(tokens, number) for number, tokens in enumerate(images))

    def _numbered(self, tokens: ImageTokens, number: int) -> ImageTokens:
        """The tokens of an image with this number written between the family's marks."""
        if (known := self._in_prompt.get((tokens, number))) is not None:
            return known
        assert self.family.image_number_marks is not None
        words, names = self.model.tokenizer, self.family.image_number_marks
        start, end = (words.convert_tokens_to_ids(setting(self.model.processor, name)) for name in names)
        ids, numbered = tokens.ids.tolist(), tokens
        if start in ids:  # else the processor is set not to number images
            span = slice(ids.index(start) + 1, ids.index(end))
            ids[span] = written = words(str(number), add_special_tokens=False)["input_ids"]
            slots = np.concatenate([tokens.slots[: span.start], [-1] * len(written), tokens.slots[span.stop :]])
            numbered = ImageTokens(np.array(ids), slots, np.arange(len(ids))[None])
        self._in_prompt[tokens, number] = numbered
        return numbered

    def _slots(self, ids: Ints, features: int) -> Ints:
        """int64[n]: which feature replaces the embedding of each token, -1 where none does."""
        is_placeholder = ids == self.model.placeholder
        if self.family.cross_attention is not None:  # none is replaced; the tokens after the mark read the features
            return np.where(is_placeholder, 0, -1)
        if is_placeholder.sum() != features:
            raise InputError(
                f"its processor writes {is_placeholder.sum()} placeholders for a picture, and its vision "
                f"tower gives {features} features"
            )
        return np.where(is_placeholder, np.cumsum(is_placeholder) - 1, -1)

    def _positions(self, ids: Ints, inputs: dict[str, Tensor]) -> Ints:
        """int64[axes, n]: positions of an image's tokens relative to the first."""
        core = self.core
        if not hasattr(core, "get_rope_index"):  # one axis: positions count tokens
            return np.arange(len(ids))[None]
        tokens = torch.from_numpy(ids)[None]
        kinds = (tokens == self.model.placeholder).int()
        positions = core.get_rope_index(tokens, mm_token_type_ids=kinds, image_grid_thw=inputs["image_grid_thw"])[0]
        return np.asarray(positions[:, 0].cpu().numpy(), np.int64)

    @cached_property
    def _fixed_ids(self) -> list[int]:
        """The tokens of any image, for a processor that brings all images to one size."""
        return self._in_frame(blank_image(), 1).ids

    def _frame(self, copies: int) -> _Frame:
        if copies not in self._frames:
            template, processor = self.model.chat_template, self.model.processor
            message = {"role": "user", "content": [{"type": "image", "image": ""}, {"type": "text", "text": "?"}]}
            text = template.apply_chat_template([message] * copies, tokenize=False, add_generation_prompt=False)
            ids: list[int] = template(text, return_offsets_mapping=True)["input_ids"]
            names = [name for attribute in IMAGE_TOKENS if (name := setting(processor, attribute))]
            candidates = [*map(self.model.tokenizer.convert_tokens_to_ids, names), self.model.placeholder]
            marks = [token for token in candidates if ids.count(token) == copies]
            if not marks:
                raise InputError("its chat template writes no placeholder for a picture")
            self._frames[copies] = _Frame(text, marks[0], ids)
        return self._frames[copies]

    def _in_frame(self, image: Image.Image, copies: int) -> Preprocessed:
        """The processor's output for an image, so many times in a short text."""
        frame = self._frame(copies)
        output = self.model.processor(
            text=[frame.text],
            images=[[image] * copies],
            padding=True,
            padding_side="right",
            add_special_tokens=self.model.chat_template.adds_special_tokens(frame.text),
            return_tensors="pt",
            **self.model.pictures.arguments,
        )
        ids = output["input_ids"][0].tolist()
        start, length = frame.ids.index(frame.image_token), (len(ids) - len(frame.ids)) // copies + 1
        own = ids[start : start + length]
        if ids != [t for token in frame.ids for t in (own if token == frame.image_token else [token])]:
            raise InputError("its processor changes the text around a picture")
        if why := self.model.unusable(output):
            raise ValueError(why)
        return Preprocessed(own, {name: value for name, value in output.items() if name not in TEXT_INPUTS})
