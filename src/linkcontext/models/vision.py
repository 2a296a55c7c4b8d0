"""What a model sees in a picture, computed once for each picture."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from linkcontext.data.images import open_image
from linkcontext.models.load import Model, grey

GREY = "grey"  # the item id of the picture that shows nothing
BATCH = 32
Thing = TypeVar("Thing")


def chunks(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    """The things in order, so many at a time; the last chunk may be shorter."""
    return (things[start : start + size] for start in range(0, len(things), size))


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture's features: `tokens` float[T, width] for the language model, `pooled` float32[width] of the tower."""

    tokens: Tensor
    pooled: Tensor

    @property
    def mean(self) -> Tensor:
        """float32[width]: the mean of the tokens the language model receives."""
        return self.tokens.float().mean(0)


@dataclass
class Eyes:
    """A model's vision with a memory. `calls` counts the pictures encoded: each distinct one once."""

    model: Model
    seen: dict[str, Seen] = field(default_factory=dict)
    calls: int = 0

    @torch.inference_mode()
    def look(self, pictures: Iterable[tuple[str, str, Path]]) -> None:
        """Encode the pictures, (item id, content hash, path), that were not seen before."""
        new = {content: path for _, content, path in pictures if content not in self.seen}
        for chunk in chunks(list(new.items()), BATCH):
            images = [open_image(path) for _, path in chunk]
            for (content, _), found in zip(chunk, self.encode(images), strict=True):
                self.seen[content] = found

    def nothing(self) -> Seen:
        """What is seen in a picture that shows nothing."""
        if GREY not in self.seen:
            with torch.inference_mode():
                (self.seen[GREY],) = self.encode([grey()])
        return self.seen[GREY]

    def encode(self, images: list[Image.Image]) -> list[Seen]:
        """Features of RGB pictures, in order."""
        network = self.model.network
        pixels = self.model.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(network.device, network.dtype)
        found = network.model.get_image_features(pixel_values=pixels)
        pooled = network.model.vision_tower(pixel_values=pixels).pooler_output.float()
        self.calls += len(images)
        return [Seen(tokens, row) for tokens, row in zip(found.pooler_output, pooled, strict=True)]


def nearest(query: Tensor, supports: list[Tensor], classes: list[str]) -> tuple[str | None, str | None]:
    """The class of the nearest centroid and of the nearest support, by cosine; None where there is no support.

    `query` and each of `supports` are float[width]; `classes` has a class id for each support.
    """
    if not supports:
        return None, None
    query, known = F.normalize(query, dim=-1), F.normalize(torch.stack(supports), dim=-1)
    names = sorted(set(classes))
    centroids = torch.stack([known[[c == name for c in classes]].mean(0) for name in names])
    centroid = names[int((F.normalize(centroids, dim=-1) @ query).argmax())]
    return centroid, classes[int((known @ query).argmax())]
