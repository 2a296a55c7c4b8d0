"""Pictures and texts as they are sent to a server."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Never

from linkcontext.data.images import data_uri, image_size, open_image, png, portable
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.models.picture_options import reduced, reduced_size
from linkcontext.models.synthetic_images import SYNTHETIC, synthetic_image
from linkcontext.scoring.protocol import Sources

NO_FEATURES = "a server shows no features of pictures"


class RemotePictures:
    """Pictures that only the server encodes."""

    def features(self, items: Sequence[str], alone: bool = False) -> Never:
        """Raises `InputError`."""
        raise InputError(f"{NO_FEATURES}.")

    def pin(self, item: str, features: ImageFeatures) -> Never:
        """Raises `InputError`."""
        raise InputError(f"{NO_FEATURES}.")

    def without_refused(self, dataset: Dataset, items: Iterable[str], strict: bool) -> Dataset:
        """The data set: whether its image processor takes a picture, the server says when it gets one."""
        return dataset

    def save(self) -> None:
        """Nothing: there are no features."""


def sent_message(message: Message, sources: Sources, most: int | None, special: re.Pattern[str]) -> dict[str, Any]:
    """A message in OpenAI's protocol, with pictures of at most `most` pixels.

    Raises `InputError` for a text that holds a special token.
    """
    parts = message["content"]
    for part in parts:
        if part["type"] == "text":
            refuse_marks(part["text"], special, f"a message of the {message['role']}")
    if all(part["type"] == "text" for part in parts):
        return {"role": message["role"], "content": "".join(part["text"] for part in parts)}
    return {"role": message["role"], "content": [_part(part, sources, most) for part in parts]}


def _part(part: dict[str, str], sources: Sources, most: int | None = None) -> dict[str, Any]:
    """A part of a message in OpenAI's protocol, pictures as data URIs of at most `most` pixels."""
    if part["type"] == "text":
        return part
    item = part["image"]
    path = None if item in SYNTHETIC else sources[item][1]
    return {"type": "image_url", "image_url": {"url": _data_uri(item, path, most)}}


@lru_cache(maxsize=256)  # a support's pictures are sent again with every query
def _data_uri(item: str, path: Any, most: int | None) -> str:
    """A picture of at most `most` pixels as a data URI; without a path it is one that is drawn here."""
    if path is not None and reduced_size(size := image_size(path), most) == size:
        kind, content = portable(path)
    else:
        kind, content = "image/png", png(reduced(synthetic_image(item) if path is None else open_image(path), most))
    return data_uri(kind, content)
