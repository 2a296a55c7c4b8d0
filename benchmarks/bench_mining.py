"""What mining takes: neighbours from stored features, and pictures encoded beside the encoder fed from memory.

Run: `python benchmarks/bench_mining.py`; `--toy` for a dry run in a minute. Features are random, and so are the weights
of the encoder, which has the shape of CLIP ViT-B/16; pictures are JPEGs of 500 x 375 pixels. Prints a table and
writes benchmarks/results/mining.json with the command, the date and the machine.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import tyro
from machine import RESULTS, machine, peak, seconds
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from linkcontext.data.neighbours import neighbour_lists, read_provenance, write_neighbours
from linkcontext.inference.vision import chunks
from linkcontext.mining import embed
from linkcontext.mining.embed import Block, Encoder, encode_blocks, mean, write_block

PAPER = (0.5, 0.8, 0.5)
WIDTH = 512
PIXELS = (500, 375)  # about the median of ImageNet


@dataclass
class Mining:
    """Measure mining."""

    pictures: int = 1_281_167
    """Random features; ImageNet-1k has so many pictures."""
    classes: tuple[int, ...] = (1_000, 21_841)
    """The features are shared out over so many classes; ImageNet-21k has 21,841."""
    encoded: int = 128
    """Pictures that go through the encoder, 32 to a class."""
    repeats: int = 2
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int | None = None
    where: str | None = None
    """A folder for the features, 2.6 GB. Default: the system's own for what may go."""
    toy: bool = False
    """A dry run: little of everything, nothing written to benchmarks/results."""
    out: str = str(RESULTS)


def stored(folder: Path, pictures: int, classes: int) -> list[list[Block]]:
    """Random features of so many pictures on the disk, in the blocks of so many classes."""
    stream, found = np.random.default_rng(0), []
    for number, share in enumerate(np.array_split(np.arange(pictures), classes)):
        parts = []
        for start in range(0, len(share), embed.BLOCK):
            rows = len(share[start : start + embed.BLOCK])
            parts.append(Block(folder / f"{number}-{start}.safetensors"))
            write_block(parts[-1].file, torch.from_numpy(stream.standard_normal((rows, WIDTH), np.float32)))
        found.append(parts)
    return found


def clocks(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processor time: where others share the machine the second says more."""
    begun = time.process_time()
    return seconds(run), time.process_time() - begun


def neighbours(config: Mining, classes: int, folder: Path) -> list[dict]:
    """From features on the disk to the file of neighbours, by two rules."""
    blocks = stored(folder / "features", config.pictures, classes)
    names = {f"{number:05}": f"thing {number}" for number in range(classes)}
    text = np.random.default_rng(1).standard_normal((classes, WIDTH))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    out, found = folder / "neighbours.jsonl", []
    told = {"data": "", "encoder": {}, "weights": PAPER, "images_per_class": config.pictures, "split": None, "seed": 0}

    def run(rule) -> None:
        rows = list(neighbour_lists(names, np.stack([mean(parts) for parts in blocks]), text, PAPER, rule, 0))
        write_neighbours(rows, out, rule=rule, **told)

    for rule in ("linear", "intervals"):
        taken: list[tuple[float, float]] = []
        memory = peak(lambda rule=rule, taken=taken: taken.append(clocks(lambda: run(rule))), "cpu")
        assert read_provenance(out).classes == classes
        total = memory["before"] + memory["above"]
        row = {"pictures": config.pictures, "classes": classes, "rule": rule, "bytes": total}
        found.append(row | {"seconds": taken[0][0], "cpu_seconds": taken[0][1]})
        print(f"  {classes} classes, {rule}: {taken[0][0]:.1f} s, {total / 1e9:.2f} GB", flush=True)
    return found


def vit(config: Mining) -> Encoder:
    """CLIP ViT-B/16 with random weights, or something tiny."""
    shape = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    if config.toy:
        shape = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
    told = CLIPConfig(vision_config=shape | {"image_size": 224, "patch_size": 16}, projection_dim=WIDTH)
    torch.manual_seed(0)

    class Processor:
        image_processor = CLIPImageProcessorPil()

    return Encoder("ViT-B/16", CLIPModel(told).to(config.device).eval(), Processor, "0" * 64)


def pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs that take about as long to read as photographs: smooth, with some grain."""
    stream, found = np.random.default_rng(0), []
    folder.mkdir()
    for number in range(count):
        smooth = Image.fromarray(stream.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            PIXELS, Image.Resampling.BICUBIC
        )
        grain = np.asarray(smooth, np.int16) + stream.normal(0, 8, (*PIXELS[::-1], 3)).astype(np.int16)
        found.append(folder / f"{number}.jpg")
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(found[-1], quality=90)
    return found


def encoding(config: Mining, folder: Path) -> dict:
    """Pictures a second: the encoder fed from memory, and all of it from JPEG to stored features."""
    encoder, paths = vit(config), pictures(folder / "pictures", config.encoded)
    loaders = max(1, min(embed.LOADERS, os.cpu_count() or 1))
    size = 32
    wanted = [Block(folder / "encoded" / f"{n}", tuple(part)) for n, part in enumerate(chunks(paths, size))]
    kept = [encoder.pixels(part) for part in chunks(paths, size)]
    encoder.encode_images(kept[0])
    runs = {
        "bare": lambda: [encoder.encode_images(pixels).cpu() for pixels in kept],
        "mined": lambda: encode_blocks(encoder, wanted, loaders, lambda: None),
        "reading": lambda: [encoder.pixels(part) for part in chunks(paths, size)],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for repeat in range(config.repeats):
        for name, run in runs.items():
            times[name].append(clocks(run))
            print(f"  {repeat + 1}/{config.repeats} {name}: {times[name][-1][0]:.2f} s", flush=True)
    rates = {name: len(paths) / statistics.median(wall for wall, _ in row) for name, row in times.items()}
    cpu = {name: statistics.median(cpu for _, cpu in row) / len(paths) for name, row in times.items()}
    return {
        "pictures": len(paths),
        "batch": size,
        "loaders": loaders,
        "jpeg_kb": sum(path.stat().st_size for path in paths) / len(paths) / 1e3,
        "seconds": times,
        "pictures_per_second": rates,
        "cpu_seconds_per_picture": cpu,
        "share_of_bare": rates["mined"] / rates["bare"],
    }


def main() -> None:
    config = tyro.cli(Mining)
    if config.toy:
        config.pictures, config.classes, config.encoded, config.repeats = 20_000, (50, 500), 128, 1
    if config.threads:
        torch.set_num_threads(config.threads)
    found: dict = {"machine": machine(config.device), "load": [os.getloadavg()[0]], "neighbours": []}
    for classes in config.classes:
        with tempfile.TemporaryDirectory(dir=config.where) as folder:
            found["neighbours"] += neighbours(config, classes, Path(folder))
    with tempfile.TemporaryDirectory(dir=config.where) as folder:
        found["encoding"] = encoding(config, Path(folder))
    found["load"].append(os.getloadavg()[0])
    table = Table("pictures", "classes", "rule", "seconds", "of processor time", "peak memory, GB")
    for row in found["neighbours"]:
        table.add_row(
            f"{row['pictures']:,}",
            f"{row['classes']:,}",
            row["rule"],
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['bytes'] / 1e9:.2f}",
        )
    console, rates = Console(), found["encoding"]["pictures_per_second"]
    console.print(table)
    console.print(
        f"pictures a second: encoder alone {rates['bare']:.1f}, mining {rates['mined']:.1f} "
        f"({found['encoding']['share_of_bare']:.0%}), reading alone on one thread {rates['reading']:.1f}"
    )
    console.print(f"load before and after: {found['load']}, on {psutil.cpu_count()} cores")
    if not config.toy:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        beside = out / f".{os.getpid()}.mining.json"
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(out / "mining.json")


if __name__ == "__main__":
    main()
