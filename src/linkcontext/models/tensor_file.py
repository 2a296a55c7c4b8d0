"""Files of tensors with a digest: a file that is cut short or has a flipped bit is refused."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from linkcontext.errors import InputError
from linkcontext.storage import replacing

DIGEST = "digest"


class DamagedError(ValueError):
    """A file of tensors does not match its digest, or cannot be read. The message does not name the file."""


def write_tensors(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, str]) -> None:
    """Write tensors and a few texts about them. Raises `InputError` if they cannot be written."""
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as new:
        save_file(whole, new, {**about, DIGEST: _digest(about, whole, whole.__getitem__)})


@contextmanager
def checked_tensors(path: Path) -> Iterator[Any]:
    """The open file, whose `metadata()` has the texts. Raises `DamagedError` if it does not match its digest.

    A file without a digest, as earlier versions wrote them, is only checked for its length.
    """
    try:
        with safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
            digest = about.pop(DIGEST, None)
            if digest not in (None, _digest(about, file.keys(), file.get_tensor)):
                raise DamagedError("its content is not what was written")
            yield file
    except (OSError, SafetensorError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error


def read_tensors(path: Path, advice: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The texts and the tensors of a file. Raises `InputError`, which ends in `advice`, for a damaged one."""
    try:
        with checked_tensors(path) as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except DamagedError as error:
        raise InputError(f"{path}: damaged ({error}). {advice}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a model's folder. Raises `InputError` for a file that is not there or is cut short."""
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Write the model's folder again.") from error
    return weights


def _digest(about: Mapping[str, str], names: Iterable[str], tensor: Callable[[str], Tensor]) -> str:
    """A digest of texts and tensors; one tensor at a time is in memory."""
    digest = hashlib.sha256(json.dumps(sorted(about.items())).encode())
    for name in sorted(names):
        value = tensor(name)
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
