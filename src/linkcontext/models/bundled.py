"""The bundled weights: how they lie in the package, and how they become standard Hugging Face folders.

    weights/vision.safetensors      the vision tower, stored once
    weights/mini-clip.safetensors   the text tower and the projections
    weights/mini-base.safetensors   projector and language model after stage 2
    weights/mini.safetensors        the same after stage 3
    weights/files.json              every other file of the folders, and the SHA-256 of all weights

At first use a folder is put together in the user's cache: `mini-clip` a CLIPModel, `mini-base` and `mini` a
LlavaForConditionalGeneration, each with tokenizer and image processor.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from linkcontext.errors import InputError
from linkcontext.models.tensor_file import read_weights
from linkcontext.records import read_json
from linkcontext.storage import cache_dir, read_errors, replacing, write_text, written_once

NAMES = ("mini-clip", "mini-base", "mini")
VISION_IN = {"mini-clip": "vision_model.", "mini-base": "vision_tower.", "mini": "vision_tower."}


def weights_folder() -> Path:
    """The folder of the package with its weights."""
    return Path(str(files("linkcontext.models"))) / "weights"


def available() -> tuple[str, ...]:
    """The names of the bundled models in this installation."""
    listed = weights_folder() / "files.json"
    return tuple(json.loads(listed.read_text(encoding="utf-8"))["models"]) if listed.is_file() else ()


def pack(folders: dict[str, Path], out: Path, card: dict[str, Any]) -> None:
    """Split standard model folders into the bundle, in bfloat16. `card` describes how the weights were made."""
    models: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for name, folder in folders.items():
        tensors = {k: v.to(torch.bfloat16) for k, v in read_weights(folder / "model.safetensors").items()}
        prefix = VISION_IN[name]
        vision = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        rest = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
        if "vision" not in hashes:
            hashes["vision"] = _save(vision, out / "vision.safetensors")
        elif _digest(vision) != _digest(load_file(out / "vision.safetensors")):
            raise InputError(f"{folder}: its vision tower is not mini-clip's. Build all stages from one mini-clip.")
        hashes[name] = _save(rest, out / f"{name}.safetensors")
        others = [path for path in sorted(folder.iterdir()) if path.suffix in {".json", ".jinja", ".txt"}]
        models[name] = {path.name: path.read_text(encoding="utf-8") for path in others}
    listing = {"models": models, "sha256": hashes, "card": card}
    write_text(json.dumps(listing, indent=1, sort_keys=True) + "\n", out / "files.json")


def folder(name: str) -> Path:
    """The standard Hugging Face folder of a bundled model, which is assembled in the cache at first use."""
    source = weights_folder()
    listed = source / "files.json"
    if not listed.is_file():
        raise InputError(
            f"{name}: this installation carries no bundled weights ({listed} is missing). Install it again."
        )
    listing = read_json(listed)
    if name not in listing["models"]:
        raise InputError(f"{name}: not among the bundled models ({', '.join(listing['models'])}).")
    version = hashlib.sha256((listing["sha256"]["vision"] + listing["sha256"][name]).encode()).hexdigest()[:12]
    kept = cache_dir() / "models" / f"{name}-{version}"
    return written_once(kept, lambda out: _assemble(name, listing, source, out), durable=True)


def _assemble(name: str, listing: dict[str, Any], source: Path, out: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for part, prefix in (("vision", VISION_IN[name]), (name, "")):
        path = source / f"{part}.safetensors"
        with read_errors(path):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != listing["sha256"][part]:
            raise InputError(f"{path}: damaged (its SHA-256 is not the one that files.json names). Install it again.")
        tensors |= {prefix + k: v for k, v in load_file(path).items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for file, text in listing["models"][name].items():
        (out / file).write_text(text, encoding="utf-8")


def _save(tensors: dict[str, Tensor], path: Path) -> str:
    with replacing(path) as new:
        save_file({k: v.contiguous() for k, v in tensors.items()}, new)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
