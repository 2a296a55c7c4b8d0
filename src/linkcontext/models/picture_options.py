"""How large pictures are when a model reads them: `--max-pixels` and `--processor-kwargs`."""

import json
import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from linkcontext.errors import InputError
from linkcontext.models.prompting import canonical_json

# What linkcontext gives to an image processor itself, or what does not change its output.
RESERVED = ("return_tensors", "data_format", "input_data_format", "device", "disable_grouping")
EXAMPLE = """'{"max_patches": 4}'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions:
    """Bounds and settings of a model's pictures.

    Attributes:
        max_pixels: The most pixels of a picture; a larger one is reduced, and keeps its aspect ratio.
        processor_kwargs: Settings of the image processor as a JSON object.

    Raises:
        InputError: The number is below 1, or the text is not a JSON object.
    """

    max_pixels: int | None = None
    processor_kwargs: str | None = None

    def __post_init__(self) -> None:
        if self.max_pixels is not None and self.max_pixels < 1:
            raise InputError(f"--max-pixels {self.max_pixels}: a picture has at least 1 pixel.")
        if self.processor_kwargs is not None:
            values = canonical_json("--processor-kwargs", self.processor_kwargs, EXAMPLE, RESERVED)
            object.__setattr__(self, "processor_kwargs", values)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the image processor."""
        return dict(json.loads(self.processor_kwargs or "{}"))

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for a call of the processor, which otherwise may prefer defaults of its own to its image
        processor's settings."""
        return {"images_kwargs": self.settings} if self.processor_kwargs else {}


AS_LOADED = PictureOptions()


def reduced_size(size: tuple[int, int], most: int | None) -> tuple[int, int]:
    """Width and height of a picture of `size` after it is reduced to at most `most` pixels, if that is given."""
    width, height = size
    if most is None or width * height <= most:
        return size
    scale = math.sqrt(most / (width * height))
    narrow, low = (min(most, max(1, math.floor(edge * scale))) for edge in size)  # no edge is shorter than one pixel
    return narrow, low


def reduced(image: Image.Image, most: int | None) -> Image.Image:
    """The picture with at most `most` pixels and the same aspect ratio; the same object if it has no more."""
    size = reduced_size(image.size, most)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
