"""What data of a cluster's size costs in this library's own code: bytes and seconds for each picture, class, episode
and prediction, on one core. docs/cluster.md and recipes/cluster_plan.py multiply them.

Run: `python benchmarks/bench_scale.py` (minutes); `--toy` for a dry run in seconds. Pictures are random, features are
random; `mini` alone is run, to tell the host's share of an evaluation. Seconds are of processor time, since others may
share the machine, except where the disk or the store of a launch is waited for (`wall_`). Writes
benchmarks/results/scale.json with the command, the date and the machine.
"""

import dataclasses
import gc
import json
import os
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from machine import RESULTS, machine
from machine import seconds as wall_seconds
from PIL import Image
from torch.distributed import TCPStore

from linkcontext.config import EpisodeConfig
from linkcontext.data.images import summarize
from linkcontext.data.manifest import Dataset, digest
from linkcontext.data.neighbours import NeighbourList, neighbour_lists
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.scaffold import load_scaffold
from linkcontext.evaluation.evaluator import Evaluator, predict_episodes
from linkcontext.evaluation.metrics import metric_rows
from linkcontext.jsonl import read_jsonl, to_json, write_jsonl
from linkcontext.mining.embed import Block, choose_images, mean, units, write_block
from linkcontext.models.feature_store import FeatureStore
from linkcontext.models.loading import load_model
from linkcontext.records import Episode, Item, Prediction, Score
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data

WIDTH = 512  # of features of CLIP ViT-B
POLICIES = ("copy_first", "copy_last", "majority", *(f"nearest_{a}_{b}" for a in ("centroid", "support")
            for b in ("tokens", "pooled")))  # fmt: skip
CORRECT = {"likelihood_sum": True, "likelihood_mean": True, "likelihood_pmi": False}


@dataclass
class Scale:
    """Measure what scale costs."""

    items: int = 200_000
    classes: tuple[int, ...] = (4_000, 8_000, 16_000)
    per_class: int = 100
    blocks: int = 2_000
    episodes: int = 1_000
    pictures: int = 100
    """JPEGs of 500 x 375 that are scanned."""
    toy: bool = False
    out: str = str(RESULTS)


def seconds(run) -> float:
    """The processor time of a call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def held(make):
    """What a call returns, and the bytes that stay taken by it."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, size


def data_set(config: Scale) -> Dataset:
    """Items as a scan of class folders makes them."""
    digits = f"{0:064x}"
    items = (
        Item(f"train/n{n // config.per_class:08}/{n:09}.jpg", f"train/n{n // config.per_class:08}/{n:09}.jpg",
             f"n{n // config.per_class:08}", f"thing {n // config.per_class}", digits[:-9] + f"{n:09x}", "train",
             pixels=digits[:23] + f"{n:09x}")
        for n in range(config.items)
    )  # fmt: skip
    return Dataset(Path("/pictures"), tuple(items))


def manifests(config: Scale, folder: Path) -> dict:
    """A list of pictures: on the disk, in memory, read, and chosen from."""
    dataset, path = data_set(config), folder / "manifest.jsonl"
    writing = seconds(lambda: write_jsonl(dataset.items, path))
    reading = seconds(lambda: list(read_jsonl(Item, path)))
    _, size = held(lambda: list(read_jsonl(Item, path)))
    count = len(dataset.items)
    return {
        "disk_bytes_per_picture": path.stat().st_size / count,
        "memory_bytes_per_picture": size / count,
        "write_s_per_million": 1e6 * writing / count,
        "read_s_per_million": 1e6 * reading / count,
        "digest_s_per_million": 1e6 * seconds(lambda: digest(dataset)) / count,
        "choose_s_per_million": 1e6 * seconds(lambda: choose_images(dataset, config.per_class, None, 0)) / count,
    }


def features(config: Scale, folder: Path) -> dict:
    """Features of classes: files of `mine`, and those of evaluations."""
    stream = torch.Generator().manual_seed(0)
    rows = torch.randn((config.per_class, WIDTH), generator=stream)
    blocks = [Block(folder / "features" / f"{n:064x}.safetensors") for n in range(config.blocks)]
    writing = wall_seconds(lambda: [write_block(block.file, rows) for block in blocks])
    reading = seconds(lambda: [mean([block]) for block in blocks])
    assert units(blocks[0]).shape == rows.shape
    size = sum(block.file.stat().st_size for block in blocks)
    store = FeatureStore(folder / "store" / ("0" * 64), 2**40)
    picture = {"features": torch.randn((256, 2048)).to(torch.bfloat16)}  # of a model of 3 B: 1 MB
    rounds = max(2, config.blocks // 100)
    putting = wall_seconds(lambda: [store.put({f"{n}-{i}": picture for i in range(16)}) for n in range(rounds)])
    keys = [f"{n}-{i}" for n in range(rounds) for i in range(16)]
    getting = wall_seconds(
        lambda: [FeatureStore(store.folder, 2**40).get(keys[n : n + 16]) for n in range(0, len(keys), 16)]
    )
    return {
        "disk_bytes_per_picture": size / (config.blocks * config.per_class),
        "wall_write_s_per_class": writing / config.blocks,
        "read_s_per_class": reading / config.blocks,
        "wall_put_s_per_mb": putting / len(keys),
        "wall_get_s_per_mb": getting / len(keys),
    }


def search(config: Scale) -> list[dict]:
    """Seconds and bytes of ranking all classes, of which 100 neighbours are kept."""
    found = []
    for count in config.classes:
        stream = np.random.default_rng(0)
        image, text = (stream.standard_normal((count, WIDTH)) for _ in range(2))
        image, text = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text))
        names = {f"n{n:08}": f"thing {n}" for n in range(count)}
        rows: list[NeighbourList] = []
        taken = seconds(
            lambda image=image, text=text, names=names, rows=rows: rows.extend(
                neighbour_lists(names, image, text, (0.5, 0.8, 0.5), "linear", 0)
            )
        )
        few = rows[:500]
        _, size = held(lambda few=few: [_copied(row) for row in few])
        line = sum(len(to_json(row)) + 1 for row in few) / len(few)
        found.append(
            {"classes": count, "seconds": taken, "memory_bytes_per_class": size / len(few), "line_bytes": line}
        )
        print(f"  {count} classes: {taken:.1f} s", flush=True)
    return found


def _copied(row: NeighbourList) -> NeighbourList:
    """The row in memory of its own."""
    near = tuple(dataclasses.replace(near, similarity=near.similarity * 1.5) for near in row.neighbours)
    return dataclasses.replace(row, neighbours=near)


def _prediction(e: Episode, query: int, shots: int, stream: np.random.Generator) -> Prediction:
    """A prediction with likelihoods and baselines, as `eval` writes it."""
    scores = tuple(Score(c.class_id, c.name, *(-20 * stream.random(2)).tolist(), 4) for c in e.candidates)
    support = tuple(turn.item for turn in e.shown(shots))
    baselines = dict.fromkeys(POLICIES, e.candidates[0].class_id)
    gold, name = e.queries[query].class_id, e.query_id(query)
    return Prediction(e.id, name, shots, scores, gold, None, CORRECT, f"{0:064x}", support, baselines, "prefix-cache")


def evaluations(config: Scale, folder: Path) -> dict:
    """Episodes of 2 ways and 0 to 16 shots, and predictions about them: files, memory, reading, metrics."""
    shots = (0, 1, 2, 4, 8, 16)
    dataset = data_set(dataclasses.replace(config, items=min(config.items, 20_000)))
    plan = EpisodeConfig(shots=shots, episodes=config.episodes).plan()
    episodes: list[Episode] = []
    drawing = seconds(lambda: episodes.extend(sample_episodes(dataset, plan).episodes))
    stream = np.random.default_rng(0)
    made = [_prediction(e, q, k, stream) for e in episodes for k in shots for q in range(len(e.queries))]
    paths = folder / "episodes.jsonl", folder / "predictions.jsonl"
    write_jsonl(episodes, paths[0])
    writing = seconds(lambda: write_jsonl(made, paths[1]))
    reading = seconds(lambda: list(read_jsonl(Prediction, paths[1])))
    _, episode_bytes = held(lambda: list(read_jsonl(Episode, paths[0])))
    read, prediction_bytes = held(lambda: list(read_jsonl(Prediction, paths[1])))
    by_id = {e.id: e for e in episodes}
    return {
        "predictions_per_episode": len(made) / len(episodes),
        "draw_s_per_million_episodes": 1e6 * drawing / len(episodes),
        "episode_disk_bytes": paths[0].stat().st_size / len(episodes),
        "episode_memory_bytes": episode_bytes / len(episodes),
        "prediction_disk_bytes": paths[1].stat().st_size / len(made),
        "prediction_memory_bytes": prediction_bytes / len(made),
        "write_s_per_million_predictions": 1e6 * writing / len(made),
        "read_s_per_million_predictions": 1e6 * reading / len(made),
        "metrics_s_per_million_predictions": 1e6 * seconds(lambda: metric_rows(by_id, read)) / len(read),
        "store_round_trips_per_second": round_trips(sum(len(to_json(p)) for p in made) // len(episodes)),
    }


def round_trips(size: int) -> float:
    """Results of an episode that pass through the store of a launch in a second: claimed, put, looked for and taken."""
    store, text, count = TCPStore("127.0.0.1", 0, is_master=True), "x" * size, 2_000

    def run() -> None:
        for n in range(count):
            store.add("next", 1)
            store.set(f"1/{n}", text)
            assert store.check([f"1/{n}"])
            store.get(f"1/{n}")
            store.delete_key(f"1/{n}")

    return count / wall_seconds(run)


def host_work(episodes: int) -> dict:
    """Seconds of an episode outside of the network's own modules: prompts, tokens, trees, scores, records."""
    model = LocalModel(load_model("mini", device="cpu"))
    dataset = open_data("world:7")
    shots = (0, 1, 2, 4, 8, 16)
    drawn = sample_episodes(dataset, EpisodeConfig(shots=shots, episodes=episodes + 2).plan()).episodes
    bound = model.with_pictures({item.id: (item.content, dataset.path(item.id)) for item in dataset.items})
    evaluator = Evaluator.of(bound, dataset, load_scaffold("turns"), "likelihood")
    inside, begun = [0.0], [0.0]

    def before(*_) -> None:
        begun[0] = time.process_time()

    def after(*_) -> None:
        inside[0] += time.process_time() - begun[0]

    network = model.loaded.network
    parts = (
        network.model.language_model,
        network.model.vision_tower,
        network.model.multi_modal_projector,
        network.lm_head,
    )
    for part in parts:
        part.register_forward_pre_hook(before)
        part.register_forward_hook(after)
    list(predict_episodes(evaluator, drawn[:2]))
    inside[0] = 0.0
    total = seconds(lambda: [list(predict_episodes(evaluator, [episode])) for episode in drawn[2:]])
    assert inside[0] > 0
    return {"s_per_episode": total / episodes, "s_outside_of_the_network": (total - inside[0]) / episodes}


def listing(config: Scale, folder: Path) -> float:
    """Seconds of listing a folder, by million entries; each atomic write into it does so."""
    (folder / "many").mkdir()
    count = 10 * config.blocks
    for number in range(count):
        (folder / "many" / f"{number:064x}").touch()
    return 1e6 * seconds(lambda: [os.listdir(folder / "many") for _ in range(5)]) / 5 / count  # noqa: PTH208


def scanning(config: Scale, folder: Path) -> float:
    """Seconds of looking through a picture: reading, decoding, hashes."""
    stream, paths = np.random.default_rng(0), []
    for number in range(config.pictures):
        smooth = Image.fromarray(stream.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375))
        paths.append(folder / f"{number}.jpg")
        smooth.save(paths[-1], quality=90)
    return seconds(lambda: [summarize(path) for path in paths]) / len(paths)


def main() -> None:
    config = tyro.cli(Scale)
    torch.set_num_threads(1)
    if config.toy:
        config = dataclasses.replace(config, items=2_000, classes=(200, 400), blocks=20, episodes=20, pictures=4)
    found: dict = {"machine": machine("cpu")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["manifest"] = manifests(config, folder)
        found["features"] = features(config, folder)
        found["search"] = search(config)
        found["evaluation"] = evaluations(config, folder)
        found["host_work"] = host_work(max(2, config.episodes // 50))
        found["listing_s_per_million_files"] = listing(config, folder)
        found["scan_s_per_picture"] = scanning(config, folder)
    found["load_after"] = round(os.getloadavg()[0], 2)
    print(json.dumps(found, indent=1))
    if not config.toy:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        beside = out / f".{os.getpid()}.scale.json"
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(out / "scale.json")


if __name__ == "__main__":
    main()
