"""The bundled weights: how they lie in the package, and how they become standard Hugging Face folders.

    weights/weights.safetensors.xz  every tensor in half precision, under the start of its SHA-256
    weights/files.json              which tensors and texts make up each folder, and how the weights were made

What several models have in common (the vision tower, the parts of the language model that link-context tuning keeps)
is stored once. At first use a folder is put together in the user's cache: `mini-clip` a CLIPModel, `mini-base` and
`mini` a LlavaForConditionalGeneration, each with tokenizer and image processor.
"""

import hashlib
import json
import lzma
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save, save_file
from torch import Tensor

from linkcontext.errors import InputError
from linkcontext.jsonl import read_json
from linkcontext.models.tensor_file import read_weights
from linkcontext.storage import cache_dir, read_errors, replacing, write_text, written_once

NAMES = ("mini-clip", "mini-base", "mini")
WEIGHTS, LISTING = "weights.safetensors.xz", "files.json"
TEXTS = {".json", ".jinja", ".txt", ".md"}


def weights_folder() -> Path:
    """The folder of the package with its weights."""
    return Path(str(files("linkcontext.models"))) / "weights"


def available() -> tuple[str, ...]:
    """The names of the bundled models in this installation."""
    listed = weights_folder() / LISTING
    return tuple(json.loads(listed.read_text(encoding="utf-8"))["models"]) if listed.is_file() else ()


def write_bundle(folders: dict[str, Path], out: Path, card: dict[str, Any]) -> None:
    """Put standard model folders into the bundle, in float16. `card` describes how the weights were made."""
    models: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for name, folder in folders.items():
        models[name] = {"tensors": {}, "files": {}}
        for key, tensor in sorted(read_weights(folder / "model.safetensors").items()):
            half = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
            digest = _digest(half)
            tensors[digest] = half.contiguous().clone()
            models[name]["tensors"][key] = digest
        for path in sorted(folder.iterdir()):
            if path.suffix in TEXTS:
                text = path.read_text(encoding="utf-8")
                digest = hashlib.sha256(text.encode()).hexdigest()[:16]
                texts[digest] = text
                models[name]["files"][path.name] = digest
    compressed = lzma.compress(save(tensors), preset=9)
    with replacing(out / WEIGHTS) as new:
        new.write_bytes(compressed)
    listing = {"models": models, "texts": texts, "sha256": hashlib.sha256(compressed).hexdigest(), "card": card}
    write_text(json.dumps(listing, indent=1, sort_keys=True) + "\n", out / LISTING)


def folder(name: str) -> Path:
    """The standard Hugging Face folder of a bundled model, which is assembled in the cache at first use."""
    source = weights_folder()
    listed = source / LISTING
    if not listed.is_file():
        raise InputError(
            f"{name}: this installation carries no bundled weights ({listed} is missing). Install it again."
        )
    listing = read_json(listed)
    if name not in listing["models"]:
        raise InputError(f"{name}: not among the bundled models ({', '.join(listing['models'])}).")
    made_of = json.dumps(listing["models"][name], sort_keys=True)
    kept = cache_dir() / "models" / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    return written_once(kept, lambda out: _assemble(name, listing, source / WEIGHTS, out), durable=True)


def _assemble(name: str, listing: dict[str, Any], path: Path, out: Path) -> None:
    with read_errors(path):
        compressed = path.read_bytes()
    if hashlib.sha256(compressed).hexdigest() != listing["sha256"]:
        raise InputError(f"{path}: damaged (its SHA-256 is not the one that files.json names). Install it again.")
    tensors = load(lzma.decompress(compressed))
    parts = listing["models"][name]
    chosen = {key: tensors[digest].clone() for key, digest in parts["tensors"].items()}
    save_file(chosen, out / "model.safetensors", metadata={"format": "pt"})
    for file, digest in parts["files"].items():
        (out / file).write_text(listing["texts"][digest], encoding="utf-8")


def _digest(tensor: Tensor) -> str:
    about = json.dumps([str(tensor.dtype), list(tensor.shape)]).encode()
    return hashlib.sha256(about + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:24]
