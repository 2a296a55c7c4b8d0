"""How built pictures lie on the disk, and how a training run reads them.

A source is a folder:

    pictures.npy    uint8[N, S, S, 4]    red, green, blue, alpha. Colours are multiplied by alpha already.
                                         S is 64, and 96 where a class has a single picture that training will crop
    class_id.npy    int32[N]             index into classes.json
    origin_id.npy   int32[N]             index into origins.json: whose picture this is
    classes.json    [{"name": "arrow left", "pictures": 31, ...}, ...]
    origins.json    [{"name": "Lucide", "author": "...", "licence": "ISC", "url": "...", "pictures": 1203}, ...]
    source.json     what was built, by which version of the recipe, from which packages, in how many seconds

Pictures of one class lie together. Colours are premultiplied because then a picture can be turned, scaled and
blurred like any four channels, and `over(picture, background)` shows no dark rim.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 64
MARGIN = 2  # pixels left free on each side of a picture

Pixels = NDArray[np.uint8]


class Source(NamedTuple):
    """A built source; `pictures` stays on the disk until it is indexed."""

    pictures: Pixels
    class_id: NDArray[np.int32]
    origin_id: NDArray[np.int32]
    classes: list[dict[str, Any]]
    origins: list[dict[str, Any]]
    info: dict[str, Any]


@dataclass
class Writer:
    """Collects the pictures of a source; `build_source` hands it out and puts the folder in its place."""

    folder: Path
    classes: list[dict[str, Any]]
    origins: list[dict[str, Any]]
    class_ids: list[int]
    origin_ids: list[int]
    size: int

    def add(self, picture: Pixels, class_id: int, origin_id: int) -> None:
        """Append one premultiplied picture, uint8[size, size, 4]."""
        assert picture.shape == (self.size, self.size, 4) and picture.dtype == np.uint8, (picture.shape, picture.dtype)
        with (self.folder / "pictures.raw").open("ab") as file:
            file.write(picture.tobytes())
        self.class_ids.append(class_id)
        self.origin_ids.append(origin_id)


@contextmanager
def build_source(folder: Path, size: int = SIZE, **info: Any) -> Iterator[Writer]:
    """A writer for the source `folder`, which appears complete at the end or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / "pictures.raw").touch()
    start = time.perf_counter()
    writer = Writer(part, [], [], [], [], size)
    yield writer
    _finish(writer, info | {"seconds": round(time.perf_counter() - start, 1)})
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _finish(writer: Writer, info: dict[str, Any]) -> None:
    """Give the raw pictures a header and count what each class and origin has."""
    n = len(writer.class_ids)
    raw, shape = writer.folder / "pictures.raw", (n, writer.size, writer.size, 4)
    with (writer.folder / "pictures.npy").open("wb") as out, raw.open("rb") as pictures:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        shutil.copyfileobj(pictures, out, 1 << 24)
    raw.unlink()
    np.save(writer.folder / "class_id.npy", np.array(writer.class_ids, np.int32))
    np.save(writer.folder / "origin_id.npy", np.array(writer.origin_ids, np.int32))
    for name, entries, ids in (
        ("classes", writer.classes, writer.class_ids),
        ("origins", writer.origins, writer.origin_ids),
    ):
        count = Counter(ids)
        listed = [entry | {"pictures": count[i]} for i, entry in enumerate(entries)]
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in listed)
        (writer.folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    info |= {"pictures": n, "classes": len(writer.classes)}
    (writer.folder / "source.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def open_source(folder: Path) -> Source:
    """Read a built source; the pictures are mapped, not loaded."""
    read = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("classes", "origins", "source")}
    return Source(
        np.load(folder / "pictures.npy", mmap_mode="r"),
        np.load(folder / "class_id.npy"),
        np.load(folder / "origin_id.npy"),
        read["classes"],
        read["origins"],
        read["source"],
    )


def premultiplied(image: Image.Image) -> Pixels:
    """uint8[H, W, 4] of a picture with or without transparency, its colours multiplied by alpha."""
    return np.asarray(image.convert("RGBA").convert("RGBa"))


def fitted(picture: Pixels, size: int = SIZE, margin: int = MARGIN) -> Pixels | None:
    """Crop a premultiplied uint8[H, W, 4] to what is visible and scale it into uint8[size, size, 4].

    The proportions stay and the content is centred. None if nothing is visible.
    """
    rows, columns = (np.flatnonzero((picture[..., 3] > 8).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    crop = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = (size - 2 * margin) / max(crop.shape[:2])
    height, width = (max(1, round(scale * side)) for side in crop.shape[:2])
    # RGBa is PIL's mode for premultiplied colours; RGBA would be multiplied a second time by resize.
    small = np.asarray(
        Image.frombuffer("RGBa", crop.shape[1::-1], crop.tobytes(), "raw", "RGBa", 0, 1).resize(
            (width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        )
    )
    whole = np.zeros((size, size, 4), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    whole[top : top + height, left : left + width] = np.minimum(small, small[..., 3:])
    return whole


def over(pictures: Pixels, background: Pixels) -> Pixels:
    """Premultiplied uint8[..., H, W, 4] over an opaque uint8[..., H, W, 3] (or any shape that broadcasts to it)."""
    alpha = pictures[..., 3:].astype(np.uint16)
    # (255 - a) * b / 255, rounded; the sum cannot pass 255, because a premultiplied colour is at most its alpha.
    return (pictures[..., :3] + ((255 - alpha) * background + 127) // 255).astype(np.uint8)


def backgrounds(ink: NDArray[np.floating], rng: np.random.Generator, size: int) -> Pixels:
    """Plain, graded and cloudy backgrounds for pictures of mean colours [n, 3], a third of each: uint8[n, H, H, 3].

    Of eight pairs of colours the first is taken whose mean is at least 60 (of 255 a channel, root mean square) from
    the picture's, else the farthest.
    """
    n = len(ink)
    kind = rng.integers(3, size=n)
    pairs = rng.uniform(0, 255, (2, 8, n, 3)).astype(np.float32)
    pairs[1][:, kind == 0] = pairs[0][:, kind == 0]
    distance = np.sqrt(((pairs.mean(0) - ink) ** 2).mean(-1))
    chosen = np.minimum(distance, 60).argmax(0)  # the first of equals
    first, second = pairs[:, chosen, np.arange(n), None, None]
    line = np.linspace(0, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
    mix = np.clip(0.5 + (line[:, None] - 0.5) * np.sin(angle) + (line - 0.5) * np.cos(angle), 0, 1)
    nearest = np.maximum(1 - np.abs(4 * line[:, None] - np.arange(5)), 0).astype(np.float32)  # of five points, two
    cloudy = kind == 2
    mix[cloudy] = nearest @ rng.uniform(0, 1, (cloudy.sum(), 5, 5)).astype(np.float32) @ nearest.T
    return (first + (second - first) * mix[..., None]).astype(np.uint8)


def composite(pictures: Pixels, rng: np.random.Generator) -> Pixels:
    """Premultiplied uint8[B, H, H, 4] over random backgrounds from which they stand out: uint8[B, H, H, 3]."""
    covered = pictures[..., 3].sum((1, 2)) / 255
    ink = pictures[..., :3].sum((1, 2)) / np.maximum(covered, 1)[:, None]
    return over(pictures, backgrounds(ink, rng, pictures.shape[1]))


def sheet(pictures: Pixels, columns: int, rng: np.random.Generator) -> Image.Image:
    """A contact sheet of premultiplied pictures on random backgrounds, to look at."""
    shown = composite(pictures, rng)
    rows = -(-len(shown) // columns)
    size = shown.shape[1]
    grid = np.zeros((rows * columns, size, size, 3), np.uint8)
    grid[: len(shown)] = shown
    grid = grid.reshape(rows, columns, size, size, 3).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * size, columns * size, 3))
