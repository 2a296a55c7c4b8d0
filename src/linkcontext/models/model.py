"""A vision-language model: a network of transformers with its processor."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from linkcontext.errors import InputError
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.models.families import family_of, setting
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.image_processors import most_pixels_before, picture_treatment
from linkcontext.models.picture_options import AS_LOADED, PictureOptions, reduced, reduced_size
from linkcontext.models.prompting import GENERATION_SETTINGS, USUAL_PROMPTING, Prompting

FILE_KEYS = ("transformers_version", "_name_or_path", "dtype")  # keys that describe a file and not the model


@dataclass(frozen=True)
class Model:
    """A network with its processor. `name` is what the user wrote, `source` the folder or hub id it was loaded from."""

    name: str
    source: str
    network: PreTrainedModel
    processor: Any  # of transformers, whose processors share no type
    adapter: str | None = None
    prompting: Prompting = USUAL_PROMPTING
    pictures: PictureOptions = AS_LOADED

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.network.device)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return self.processor.tokenizer

    @property
    def context(self) -> int:
        """The most tokens of a prompt."""
        return int(self.network.config.get_text_config().max_position_embeddings)

    @cached_property
    def placeholder(self) -> int:
        """The token whose embeddings are replaced by features of a picture."""
        config = self.network.config
        written = setting(self.processor, "image_token") or "<image>"
        known = setting(config, "image_token_id")  # some have it in their tokenizer alone
        return int(known if known is not None else self.tokenizer.convert_tokens_to_ids(written))

    def describe(self) -> dict[str, Any]:
        """What config.json of a run records about the model."""
        config, pictures = self.network.config, picture_treatment(self.processor.image_processor, self.pictures)
        return {
            "name": self.name,
            "source": self.source,
            "class": type(self.network).__name__,
            "parameters": self.network.num_parameters(),
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "device": str(self.device),
            "adapter": self.adapter,
            "image_processor": type(self.processor.image_processor).__name__,
            **({"pictures": pictures} if pictures else {}),
            "context": self.context,
            "model_type": config.model_type,
            **self.chat_template.describe(),
            "generation_config": self.generation or self.prompting.generation_config,
        }

    @property
    def generation(self) -> dict[str, Any]:
        """The settings of the checkpoint's generation config that apply to replies: penalties and suppressed tokens, or
        none with "clean"."""
        if self.prompting.generation_config == "clean":
            return {}
        own = self.network.generation_config.to_dict()
        return {name: own[name] for name in GENERATION_SETTINGS if own.get(name) is not None}

    @property
    def image_processing(self) -> dict[str, Any]:
        """All that the features of a picture depend on besides the network, as JSON values."""
        values: dict[str, Any] = json.loads(self.processor.image_processor.to_json_string())
        most = most_pixels_before(self.processor.image_processor, self.pictures)
        return values | ({"reduced_to_pixels": most} if most is not None else {})

    def reduced(self, image: Image.Image) -> Image.Image:
        """The picture as the image processor gets it."""
        return reduced(image, most_pixels_before(self.processor.image_processor, self.pictures))

    def reduced_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of a picture of `size` as the image processor gets it."""
        return reduced_size(size, most_pixels_before(self.processor.image_processor, self.pictures))

    def processed(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], side: str
    ) -> dict[str, torch.Tensor]:
        """The processor's output for rendered conversations and their pictures, padded on `side`, without labels.

        Raises `InputError` if the processor refuses them, for example because the chat template wrote no mark for a
        picture.
        """
        try:
            inputs = self.processor(
                text=list(texts),
                images=[[self.reduced(image) for image in pictures] for pictures in images] if any(images) else None,
                padding=True,
                padding_side=side,
                add_special_tokens=self.chat_template.adds_special_tokens(texts[0]),
                return_tensors="pt",
                **self.pictures.arguments,
            )
        except ValueError as error:
            raise self._refused(str(error)) from error
        known = setting(self.network.config, "image_token_id")
        if known is not None and any(images) and not (inputs["input_ids"] == known).any():
            raise self._refused("none of its tokens stands for a picture.")  # older processors pass it on
        if why := self.unusable(inputs):
            raise self._refused(why)
        return {name: value for name, value in inputs.items() if name != "labels"}

    def unusable(self, inputs: Mapping[str, torch.Tensor]) -> str:
        """Why the network cannot take processed images, though the processor does; empty if it can."""
        return family_of(self.network.config).unusable(self.network.config, inputs)

    def _refused(self, why: str) -> InputError:
        return InputError(
            f"{self.name}: its processor refuses a conversation that its chat template has written: {why}"
        )

    def place(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs on the network's device, with floats in its precision, because some processors give another."""
        device, dtype = self.device, self.network.dtype
        return {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in inputs.items()}

    @property
    def ends(self) -> list[int]:
        """The ids of the tokens that end a reply."""
        return list(self.chat_template.ends)

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration of network, vision tower and language model, without keys that describe a file."""
        return without_file_keys(self.network.config.to_dict())

    @cached_property
    def identity(self) -> str:
        """A digest (64 hex digits) of weights, configuration, processor and template. Cached keys and values fit only
        models with the same digest."""
        kwargs = self.chat_template.variables
        description = json.dumps(
            {
                **({"template_kwargs": kwargs} if kwargs else {}),
                "class": type(self.network).__name__,
                "config": self.configuration,
                "processor": self.image_processing,
                "template": self.processor.chat_template,
            },
            sort_keys=True,
            default=str,
        )
        return fingerprint(dict(self.network.state_dict()), description)

    @property
    def marks(self) -> re.Pattern[str]:
        """Matches the model's special tokens, which no text may contain (`episodes.special_tokens.refuse_marks`)."""
        return self.chat_template.marks

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The processor's chat template with its tokenizer."""
        return ChatTemplate(self.processor, self.prompting, self.network.generation_config)


def without_file_keys(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the keys of `FILE_KEYS`, at every depth."""
    return {
        key: without_file_keys(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in FILE_KEYS
    }
