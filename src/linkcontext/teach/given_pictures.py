"""Pictures as a caller in Python gives them: paths, PIL images, arrays, tensors, bytes, and lists and folders of these.

Each becomes a path, or an `Upload` that holds the picture. Nothing is ever fetched from an address.
"""

import io
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from linkcontext.data.images import DAMAGE, MAX_PIXELS, Upload, png, thumbnail_png, upright_rgb
from linkcontext.data.problems import Problems
from linkcontext.data.scan import scan
from linkcontext.errors import InputError, excerpt
from linkcontext.python_words import did_you_mean_path

log = logging.getLogger("linkcontext")
Picture: TypeAlias = str | os.PathLike[str] | bytes | bytearray | Image.Image | NDArray[Any] | Tensor
Source: TypeAlias = Path | Upload  # a file, or a picture in memory
THUMBNAIL_EDGE = 96  # pixels
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
KINDS = "a path, a PIL image, a NumPy array, a torch tensor or the bytes of a file"


def is_single(given: object) -> bool:
    """Whether a caller gives one picture, and not several."""
    return isinstance(given, str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray | Tensor | Upload)


def picture_source(given: Any, what: str = "the picture") -> Source:
    """One picture (`Picture`). `what` is its name in messages if it has no path.

    Arrays are [height, width], or have a last axis of 1, 3 or 4 channels; tensors have their channels first. Values are
    uint8, or floats from 0 to 1.

    Raises:
        InputError: An address, a folder, a missing file, an array of another shape or range, or something else.
    """
    match given:
        case Upload():
            return given
        case str() | os.PathLike():
            return _existing(os.fspath(given))
        case bytes() | bytearray():
            return Upload(what, bytes(given))
        case Image.Image():
            return _upload(given, what)
        case np.ndarray():
            return _upload(_image(given, what, "array"), what)
        case Tensor():
            return _upload(_image(_channels_last(given, what), what, "tensor"), what)
    if isinstance(given, io.IOBase):
        raise InputError(f"{what} is an open file. Give its path, or its bytes: file.read().")
    raise InputError(f"{what} is of the type {type(given).__name__}. Give {KINDS}.")


def picture_sources(given: Any, what: str = "") -> list[Source]:
    """One picture or several; a folder stands for the pictures in it. `what` follows their numbers in messages.

    Raises `InputError` as `picture_source`, and for a folder without pictures.
    """
    if is_single(given):
        return pictures_in_folder(given) or [picture_source(given, f"picture 1{what}")]
    if isinstance(given, Mapping):
        raise InputError(f"the pictures{what} are a dictionary. Give a list of pictures.")
    if isinstance(given, io.IOBase) or not isinstance(given, Iterable):
        return [picture_source(given, f"picture 1{what}")]  # it raises
    sources: list[Source] = []
    for number, one in enumerate(given, 1):
        sources += pictures_in_folder(one) or [picture_source(one, f"picture {number}{what}")]
    return sources


def small_picture(source: Source) -> bytes:
    """A PNG of at most `THUMBNAIL_EDGE` pixels a side. Raises `InputError` for a picture that cannot be read."""
    return thumbnail_png(source, THUMBNAIL_EDGE)


def existing(path: Path) -> Path:
    """The path itself. Raises `InputError` if there is no such file."""
    if not path.is_file():
        hint = did_you_mean_path(path, path.parent.iterdir()) if path.parent.is_dir() else ""
        raise InputError(f"{path}: no such picture.{hint}")
    return path


def _existing(text: str) -> Path:
    if ADDRESS.match(text):
        raise InputError(
            f"{excerpt(text)}: an address. Pictures are never fetched: save the picture, and give the path of its file."
        )
    path = Path(text)
    if "*" in text and not path.exists():
        raise InputError(f"{text}: a pattern. Give the folder, or the list that glob.glob({text!r}) returns.")
    if path.is_dir():
        raise InputError(f"{path}: a folder, where one picture is expected. For all pictures in it give [{text!r}].")
    return existing(path)


def pictures_in_folder(given: Any) -> list[Source]:
    """The pictures that lie in a folder, sorted by name; an empty list if a folder is not what is given."""
    if not isinstance(given, str | os.PathLike) or ADDRESS.match(os.fspath(given)) or not Path(given).is_dir():
        return []
    folder, problems = Path(given), Problems(strict=False)
    files = any(path.is_file() for path in folder.iterdir())
    names = [path for path in scan(folder, problems) if "/" not in path] if files else []
    if not names:
        folders = any(path.is_dir() for path in folder.iterdir())
        inner = "To teach a folder of class folders, give teach the folder alone; to ask, name the folders in it."
        advice = inner if folders else "Give another."
        raise InputError(f"{folder}: there is no picture directly in this folder. {advice}")
    for sentence in problems.sentences:
        log.warning("%s", sentence)
    return [folder / name for name in names]


def _upload(image: Image.Image, name: str) -> Upload:
    """A picture in memory as a PNG file, with the pixels that it would have if it were opened from a file."""
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(
            f"{name} has {width:,} x {height:,} pixels, but must have 1 to {MAX_PIXELS:,} pixels. Resize it."
        )
    try:
        rgb = upright_rgb(image, [])
    except DAMAGE as error:
        raise InputError(f"{name} cannot be converted to RGB ({excerpt(str(error))}). Give another.") from error
    return Upload(name, png(rgb, compress_level=1))


def _channels_last(tensor: Tensor, what: str) -> NDArray[Any]:
    """A tensor [channels, height, width] or [height, width] as an array with the channels last."""
    shape = tuple(tensor.shape)
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        raise InputError(f"{what} is a tensor of the shape {shape}. Channels come first: tensor.permute(2, 0, 1).")
    values = tensor.detach().cpu()
    values = values.float() if values.is_floating_point() else values
    array: NDArray[Any] = (values.permute(1, 2, 0) if len(shape) == 3 else values).numpy()
    return array


def _image(array: NDArray[Any], what: str, kind: str) -> Image.Image:
    """An array [height, width], or [height, width, channels], as an image."""
    shape = array.shape
    if array.ndim == 4:
        raise InputError(f"{what} is a batch of the shape {shape}. Give a list of pictures: list(batch).")
    if array.ndim == 3 and shape[2] not in CHANNELS and shape[0] in CHANNELS:
        raise InputError(f"{what} is an array of the shape {shape}. Channels come last: array.transpose(1, 2, 0).")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in CHANNELS):
        axes = "[channels, height, width]" if kind == "tensor" else "[height, width, channels]"
        raise InputError(f"{what} has {array.ndim} axes, {shape}. A picture is {axes} with 1, 3 or 4 channels.")
    if array.size == 0:
        raise InputError(f"{what} has no pixels, {shape}.")
    return Image.fromarray(_eight_bits(array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array, what))


def _eight_bits(array: NDArray[Any], what: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"{what} has values of the type {array.dtype}. Give uint8 from 0 to 255, or floats from 0 to 1."
        )
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise InputError(
            f"{what} has floats from {array.min():.4g} to {array.max():.4g}. Give floats from 0 to 1 (without the "
            "normalization of a model), or uint8 from 0 to 255."
        )
    pixels: NDArray[np.uint8] = (array.astype(np.float32) * 255).round().astype(np.uint8)
    return pixels
