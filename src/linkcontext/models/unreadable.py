"""Pictures that a model's image processor refuses, detected before a long run.

Processors refuse shapes. Some take no picture that is 200 times as wide as it is high.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from linkcontext.data import images
from linkcontext.data.manifest import Dataset
from linkcontext.errors import InputError, excerpt
from linkcontext.models.image_processors import REFUSALS
from linkcontext.models.model import Model

EDGE, SHAPE = 64, 8  # every processor takes pictures with edges of at least 64 pixels, of less than 8 to 1


def refused(model: Model, pictures: Mapping[str, Path]) -> dict[str, str]:
    """The pictures, by id, that the image processor refuses, and why. Each unusual shape is tried once.

    Raises `InputError` for a picture that cannot be read.
    """
    reasons: dict[tuple[int, int], str] = {}
    wrong: dict[str, str] = {}
    for item, path in pictures.items():
        size = model.reduced_size(images.image_size(path))
        if min(size) >= EDGE and max(size) < SHAPE * min(size):
            continue
        if size not in reasons:
            reasons[size] = _reason(model, size)
        if reasons[size]:
            wrong[item] = reasons[size]
    return wrong


def without_refused(dataset: Dataset, items: Iterable[str], model: Model, strict: bool) -> Dataset:
    """The data set without those of `items` that the image processor refuses; the same object if it takes them all.

    With `strict`, raises `InputError` for the first.
    """
    reasons = refused(model, {item: dataset.path(item) for item in items})
    if not reasons:
        return dataset
    left = dataset.without(reasons)
    if strict:
        raise InputError(left.problems[len(dataset.problems)])
    return left


def _reason(model: Model, size: tuple[int, int]) -> str:
    try:
        inputs = model.processor.image_processor([Image.new("RGB", size, "grey")], return_tensors="pt")
        if why := model.unusable(inputs):
            raise ValueError(why)
    except REFUSALS as error:
        return _sentence(size, error)
    return ""


def _sentence(size: tuple[int, int], error: Exception) -> str:
    why = excerpt(" ".join(str(error).split()) or type(error).__name__)
    return f"the model's image processor refuses a picture of {size[0]} x {size[1]} pixels ({why})"


@contextmanager
def naming(path: object, image: Image.Image) -> Iterator[None]:
    """Raise an `InputError` that names the picture if the image processor refuses it in the block."""
    try:
        yield
    except InputError:
        raise
    except REFUSALS as error:
        raise InputError(f"{path}: {_sentence(image.size, error)}. Crop it, or leave it out.") from error
