"""Write a world as class folders: pictures, and a manifest with the facts about each."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from linkcontext.data.images import hash_image_pixels
from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.errors import InputError
from linkcontext.progress import progress
from linkcontext.records import Item
from linkcontext.seeds import Name
from linkcontext.storage import occupied, replacing
from linkcontext.worlds import concepts, questions, render
from linkcontext.worlds.pseudo_words import pseudo_words

EDGE = 64  # width and height of a picture, in pixels
TAUGHT = 320  # concepts that the bundled models are taught by name
TAUGHT_STREAM: tuple[Name, ...] = ("world", "taught")
REPLAY_STREAM: tuple[Name, ...] = ("world", "replay")  # other pictures of the same concepts


def user_stream(seed: int) -> tuple[Name, ...]:
    """The random stream of a user's world, which no training uses."""
    return ("world", "user", seed)


def taught_names(count: int = TAUGHT) -> list[str]:
    """The names of the concepts that the bundled models are taught."""
    return pseudo_words(count, *TAUGHT_STREAM)


def write_seed(out: Path, classes: int, images: int, seed: int, size: int = EDGE) -> Dataset:
    """Write the world of a seed. Every second class is a hard negative of the class before it."""
    stream = user_stream(seed)
    things = concepts.draw_concepts((classes + 1) // 2, *stream)
    alike = concepts.neighbours(things, concepts.draw_changes(len(things), *stream))
    vectors = torch.stack([things, alike], 1).flatten(0, 1)[:classes]
    names = pseudo_words(classes, *stream)
    near = [[names[i ^ 1]] if i ^ 1 < classes else [] for i in range(classes)]
    return write_world(out, vectors, names, near, images, stream, size)


def write_taught(out: Path, images: int, stream: Sequence[Name] = TAUGHT_STREAM, size: int = EDGE) -> Dataset:
    """Write new pictures of the concepts that the bundled models know by name."""
    return write_world(
        out, concepts.draw_concepts(TAUGHT, *TAUGHT_STREAM), taught_names(), [[]] * TAUGHT, images, stream, size
    )


def write_world(
    out: Path,
    vectors: torch.Tensor,
    names: Sequence[str],
    neighbours: Sequence[Sequence[str]],
    images: int,
    stream: Sequence[Name],
    size: int,
) -> Dataset:
    """Draw `images` pictures of each concept into `out/NAME/`, and write the manifest.

    `vectors` is float32[N, concepts.LENGTH]. Picture i of a class is a function of the stream, the class and i. Raises
    `InputError` if `out` is not empty.
    """
    if occupied(out):
        raise InputError(f"{out}: the folder is not empty. Choose an empty or a new one.")
    all_facts = concepts.facts(concepts.decode(vectors))
    items: list[Item] = []
    with progress("Drawing", len(names)) as advance:
        for vector, name, near, own_facts in zip(vectors, names, neighbours, all_facts, strict=True):
            drawn = render.render(vector.expand(images, -1), render.draw_instances(images, *stream, name), size)
            (out / name).mkdir(parents=True)
            for number, picture in enumerate(drawn):
                path = f"{name}/{number:04d}.png"
                facts = {**facts_json(own_facts), "neighbours": list(near)}
                content, pixels = save_picture(picture, out / path)
                group = f"{number:04d}"
                items.append(Item(path, path, name, name, content, facts=facts, group=group, pixels=pixels))
            advance()
    dataset = Dataset(out, tuple(items))
    write_manifest(dataset)
    return dataset


def facts_json(fact: concepts.Facts) -> dict[str, Any]:
    """Facts as the JSON object of a manifest."""
    parts = [dataclasses.asdict(part) for part in fact.parts]
    return {"family": fact.family, "count": fact.count, "parts": parts, "caption": questions.caption(fact)}


def facts_of(values: dict[str, Any]) -> concepts.Facts:
    """Facts from the JSON object of a manifest."""
    return concepts.Facts(values["family"], values["count"], tuple(concepts.Part(**part) for part in values["parts"]))


def save_picture(picture: torch.Tensor, path: Path) -> tuple[str, str]:
    """Write a picture uint8[H, W, 3] as PNG; return the SHA-256 of the file and the hash of its pixels."""
    file = io.BytesIO()
    image = Image.fromarray(picture.cpu().numpy())
    image.save(file, "PNG")
    path.write_bytes(file.getvalue())
    return hashlib.sha256(file.getvalue()).hexdigest(), hash_image_pixels(image)


def contact_sheet(dataset: Dataset, path: Path, across: int = 8, edge: int = 64) -> None:
    """Write a PNG with a row of pictures for each class."""
    classes = dataset.by_class()
    sheet = Image.new("RGB", (across * edge, len(classes) * edge), "white")
    for row, items in enumerate(classes.values()):
        for column, item in enumerate(items[:across]):
            with Image.open(dataset.root / item.path) as picture:
                sheet.paste(picture.convert("RGB").resize((edge, edge)), (column * edge, row * edge))
    with replacing(path) as new:
        sheet.save(new, "PNG")
