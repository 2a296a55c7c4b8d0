"""Mine neighbours: encode pictures and class names by a CLIP or SigLIP model, store the features, rank the classes.

Pictures are encoded in blocks of up to 1,024 pictures of one class, or 256 names. A block is one file, named after the
encoder and the contents. It is always encoded in the same batches, so its bytes do not depend on which process made it,
when, or which blocks existed before. When a killed command is run again, it encodes only the missing blocks.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor

from linkcontext.data.copies import label_conflicts
from linkcontext.data.images import READER, open_image
from linkcontext.data.manifest import Dataset, digest
from linkcontext.data.neighbours import (
    Floats,
    RankingRule,
    check_weights,
    draw_sheet,
    neighbour_lists,
    write_neighbours,
)
from linkcontext.episodes.special_tokens import marks_pattern, refuse_marks
from linkcontext.errors import InputError, first_few
from linkcontext.inference.vision import chunks
from linkcontext.launch import count_on_machine
from linkcontext.models import bundled
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.hub import is_local_only
from linkcontext.models.loading import device_named
from linkcontext.processes import Processes, together
from linkcontext.progress import progress
from linkcontext.records import Item
from linkcontext.seeds import rng
from linkcontext.storage import remove_leftovers, replacing
from linkcontext.threads import threads

BATCH = 128  # pictures or names per batch of the encoder
BLOCK, NAMES = 1024, 256  # maximum number of pictures and of names in a block
LOADERS = 16  # maximum number of threads; each holds a batch of pixels, 77 MB at 224 px


@dataclass(frozen=True, slots=True)
class Block:
    """Pictures or names that are encoded together, and the file of their features."""

    file: Path
    pictures: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """A CLIP or SigLIP with its processor. `fingerprint` changes with anything its features depend on."""

    name: str
    network: Any
    processor: Any
    fingerprint: str

    def pixels(self, paths: Sequence[Path]) -> Tensor:
        """The preprocessed pictures: float32[N, 3, H, W]."""
        images = [open_image(path) for path in paths]
        pixels: Tensor = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        return pixels.pin_memory() if self.network.device.type == "cuda" else pixels

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Features of pictures, float32[N, D], on the network's device."""
        output = self.network.get_image_features(pixel_values=pixels.to(self.network.device, non_blocking=True))
        features: Tensor = output.pooler_output
        return features

    @torch.inference_mode()
    def encode_texts(self, names: Sequence[str]) -> Tensor:
        """Features of texts, float32[N, D], on the network's device.

        Texts are padded to full length, as SigLIP was trained. CLIP's attention is causal and ignores the padding.
        """
        text, words = self.network.config.text_config, self.processor.tokenizer
        room = text.max_position_embeddings
        ids: list[list[int]] = words(list(names), truncation=True, max_length=room)["input_ids"]
        if self.network.config.model_type == "clip" and words.eos_token_id not in ids[0]:
            # CLIP pools a text at its end token, which mini-clip's tokenizer does not add.
            ids = [[text.bos_token_id, *row[: room - 2], text.eos_token_id] for row in ids]
        padded = torch.tensor([row + [words.pad_token_id] * (room - len(row)) for row in ids])
        features: Tensor = self.network.get_text_features(input_ids=padded.to(self.network.device)).pooler_output
        return features


def load_encoder(name: str, device: torch.device | str = "cpu") -> Encoder:
    """Load `mini-clip`, a folder or a Hub id in float32. Raises `InputError` unless it is a complete CLIP or SigLIP."""
    source = str(bundled.folder(name)) if name == "mini-clip" else name
    try:
        where = {"local_files_only": is_local_only(source)}
        config = AutoConfig.from_pretrained(source, **where)
        if config.model_type not in ("clip", "siglip"):
            raise InputError(
                f"--encoder {name}: a {config.model_type} model, but a CLIP or SigLIP with a text and a vision tower "
                "is needed. Choose one, for example openai/clip-vit-base-patch16."
            )
        processor = AutoProcessor.from_pretrained(source, **where)
        network, info = AutoModel.from_pretrained(source, dtype="float32", output_loading_info=True, **where)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"--encoder {name}: neither mini-clip nor a folder or hub id that can be loaded ({why}). Check the name, "
            "the network, and that the folder has config, weights, tokenizer and image processor."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"--encoder {name}: weights are missing: {first_few(missing)}.")
    settings = [processor.image_processor.to_json_string(), sorted(processor.tokenizer.get_vocab().items()), READER]
    settings += [network.config.to_json_string(), BATCH, BLOCK, NAMES]
    mark = fingerprint(network.state_dict(), json.dumps(settings))
    return Encoder(name, network.to(device).eval(), processor, mark)


def choose_images(dataset: Dataset, images_per_class: int, split: str | None, seed: int) -> dict[str, tuple[Item, ...]]:
    """Class id -> up to `images_per_class` different random pictures, by id. The order of the data set is irrelevant.

    Pictures with copies in classes of another name are left out. Raises `InputError` for a class without pictures.
    """
    chosen, contradicted = {}, label_conflicts(dataset.items)
    for class_id, items in dataset.by_class().items():
        good = (item for item in items if split in (None, item.split) and item.content not in contradicted)
        there = sorted(good, key=lambda item: item.id)
        first = list({item.content: item for item in reversed(there)}.values())[::-1]  # the first of copies, by id
        drawn = rng("mining", seed, "pictures", class_id).permutation(len(first))[:images_per_class]
        chosen[class_id] = tuple(first[place] for place in sorted(drawn))
    if bare := [class_id for class_id, items in chosen.items() if not items]:
        of_split = f" of the split {split!r}" if split else ""
        raise InputError(
            f"{dataset.root}: classes without a picture{of_split}: {first_few(bare)}. "
            "Choose another split, or give them some."
        )
    return chosen


def blocks(
    folder: Path, mark: str, items: Sequence[Item] = (), root: Path = Path(), names: Sequence[str] = ()
) -> list[Block]:
    """The blocks of a class's pictures or of names, for the encoder with the fingerprint `mark`."""

    def file(*contents: str) -> Path:
        return folder / f"{hashlib.sha256(json.dumps([mark, contents]).encode()).hexdigest()}.safetensors"

    pictures = [
        Block(file("pictures", *(item.sha256 for item in part)), tuple(root / item.path for item in part))
        for part in chunks(items, BLOCK)
    ]
    return pictures + [Block(file("names", *part), names=tuple(part)) for part in chunks(names, NAMES)]


def encode_blocks(encoder: Encoder, wanted: Iterable[Block], loaders: int) -> None:
    """Encode blocks and write their files. Other threads read pictures and write files while the encoder works."""
    ahead, wanted = tee(wanted)
    with threads(loaders) as readers, ThreadPoolExecutor(1) as writer:
        parts = (part for block in ahead for part in chunks(block.pictures, BATCH))
        pixels = _ahead(readers, encoder, parts, loaders + 1)
        writes: deque[Future[None]] = deque()
        for block in wanted:
            features = [encoder.encode_images(next(pixels)) for _ in chunks(block.pictures, BATCH)]
            features += [encoder.encode_texts(part) for part in chunks(block.names, BATCH)]
            writes.append(writer.submit(write_block, block.file, torch.cat(features)))
            while len(writes) > 1:  # one is pending, so that a GPU gets the next batch before this one is copied
                writes.popleft().result()
        for last in writes:
            last.result()


def _ahead(
    readers: ThreadPoolExecutor, encoder: Encoder, parts: Iterable[Sequence[Path]], count: int
) -> Iterator[Tensor]:
    """The pixels of each part, in order; `count` parts are read ahead."""
    waiting: deque[Future[Tensor]] = deque()
    for part in parts:
        waiting.append(readers.submit(encoder.pixels, part))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def write_block(file: Path, features: Tensor) -> None:
    """Write the features of a block, float32[N, D]. The file appears whole or not at all."""
    with replacing(file) as new:
        save_file({"features": features.float().cpu().numpy()}, new)


def units(block: Block) -> Floats:
    """Read the features of a block as unit vectors, float64[N, D]. Raises `InputError` for a damaged file."""
    try:
        features = load_file(block.file)["features"].astype(np.float64)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{block.file}: cannot be read ({error}). Delete it and start again; several processes must share one disk."
        ) from error
    if not np.isfinite(features).all():
        raise InputError(f"{block.file}: some of the encoder's features are not finite. Are its weights complete?")
    return _unit(features)


def mean(parts: Sequence[Block]) -> Floats:
    """The unit vector of a class, float64[D]: the normalised mean of its pictures' unit vectors, summed in order."""
    return _unit(np.sum([units(part).sum(0) for part in parts], axis=0))


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.sqrt(np.square(rows).sum(-1, keepdims=True)), np.float64)


def mine(
    dataset: Dataset,
    out: Path,
    encoder: str = "mini-clip",
    images_per_class: int = 100,
    weights: Sequence[float] = (0.5, 0.8, 0.5),
    rule: RankingRule = "linear",
    split: str | None = None,
    seed: int = 0,
    picture: Path | None = None,
) -> bool:
    """Write the neighbours of each class to `out`, and a picture of classes beside their neighbours to `picture`.

    Features are stored in OUT.features. Several processes divide the work; the one that writes the files returns True.
    Raises `InputError` unless there are three weights, for a bad encoder, and for a class without pictures.
    """
    three = check_weights(weights)
    if images_per_class < 1:
        raise InputError(f"--images-per-class {images_per_class}: at least 1 is needed.")
    chosen, names = choose_images(dataset, images_per_class, split, seed), dataset.names()
    loaded, folder = load_encoder(encoder, device_named(None)), out.with_suffix(".features")
    marks = marks_pattern(loaded.processor.tokenizer.all_special_tokens)
    for class_id, name in names.items():
        refuse_marks(name, marks, f"the name of class {class_id}")
    image_blocks = {c: blocks(folder, loaded.fingerprint, items, dataset.root) for c, items in chosen.items()}
    name_blocks = blocks(folder, loaded.fingerprint, names=list(names.values()))
    every = [*(b for parts in image_blocks.values() for b in parts), *name_blocks]
    with together() as processes:
        _encode_missing(loaded, every, folder, processes)
    if processes.is_main:
        image = np.stack([mean(parts) for parts in image_blocks.values()])
        text = np.concatenate([units(block) for block in name_blocks])
        rows = list(neighbour_lists(names, image, text, three, rule, seed))
        network = {"name": encoder, "class": type(loaded.network).__name__, "fingerprint": loaded.fingerprint}
        made = {"weights": three, "rule": rule, "images_per_class": images_per_class, "split": split, "seed": seed}
        write_neighbours(rows, out, data=digest(dataset), encoder=network, **made)
        if picture:
            draw_sheet(dataset, rows, picture)
    return processes.is_main


def _encode_missing(encoder: Encoder, wanted: Sequence[Block], folder: Path, processes: Processes) -> None:
    """Encode this process's share of the blocks without a file, and wait until all processes have done so."""
    blocks_by_name = {block.file.name: block for block in wanted}

    def missing_names() -> list[str]:
        with suppress(OSError):  # there may be no features yet, or no permission to write
            remove_leftovers(folder)
        return [name for name, block in blocks_by_name.items() if not block.file.exists()]

    processes.same("the encoder and the pictures", lambda: list(blocks_by_name))
    missing = [blocks_by_name[name] for name in processes.from_main(missing_names)]
    loaders = max(1, min(LOADERS, (os.cpu_count() or 1) // count_on_machine()))
    with progress("Encoding", len(missing)) as advance:
        encode_blocks(encoder, processes.share(missing, advance), loaders)
    processes.wait()
