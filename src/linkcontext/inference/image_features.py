"""The features of an image, as the language model gets them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from linkcontext.inference.prefix_tree import ImageTokens


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The tokens of an image and the features that replace their embeddings."""

    image_tokens: ImageTokens
    embeddings: Tensor  # float[T, width], one row for each slot of the tokens
    pooled: Tensor | None = None  # float32[vision width]: the vision tower's own summary, if it has one
    deepstack: Tensor | None = None  # float[layers, T, width]: what is added to the states after the first layers

    @property
    def mean(self) -> Tensor:
        """float32[width]: the mean of the embeddings."""
        return self.embeddings.float().mean(0)

    @property
    def nbytes(self) -> int:
        """The bytes of its features."""
        return sum(part.nbytes for part in (self.embeddings, self.pooled, self.deepstack) if part is not None)

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors as they are written to files, on the CPU."""
        features = {"tokens": self.embeddings, "pooled": self.pooled, "deep": self.deepstack}
        tokens = {"ids": self.image_tokens.ids, "slots": self.image_tokens.slots, "shift": self.image_tokens.shift}
        return {
            **{name: value.cpu() for name, value in features.items() if value is not None},
            **{name: torch.from_numpy(values) for name, values in tokens.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "ImageFeatures":
        """The inverse of `to_tensors`. Raises `KeyError` if one is missing."""
        image_tokens = ImageTokens(*(tensors[name].numpy() for name in ("ids", "slots", "shift")))
        pooled, deepstack = (tensors[name].to(device) if name in tensors else None for name in ("pooled", "deep"))
        return cls(image_tokens, tensors["tokens"].to(device), pooled, deepstack)
