"""A run's folder with drawn pictures, made without a model."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from linkcontext.jsonl import write_jsonl
from linkcontext.records import Candidate, Episode, Prediction, Score, Turn

NAMES = ("plimbo", "tavork")
POLICIES = (
    "copy_first",
    "copy_last",
    "nearest_centroid_tokens",
    "nearest_centroid_pooled",
    "nearest_support_tokens",
    "nearest_support_pooled",
)


def draw(path: Path, class_id: str, number: int) -> None:
    """A circle or a square on a ground of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 64), (230, 240 - 9 * number, 200 + 5 * number))
    shape = ImageDraw.Draw(image).ellipse if class_id == "circle" else ImageDraw.Draw(image).rectangle
    shape((10 + number, 12, 40 + 2 * number, 44 + number), fill=(200, 60 + 15 * number, 40))
    image.save(path)


def an_episode(index: int, names: tuple[str, ...], kind: str) -> Episode:
    """Two queries, four rounds of support; items are numbered 0 to 9 in each class."""
    classes = ("circle", "square") if index % 2 else ("square", "circle")
    called = dict(zip(("circle", "square"), names, strict=True))
    turns = tuple(Turn(f"{class_id}/{k}.png", class_id, called[class_id]) for k in range(4) for class_id in classes)
    queries = tuple(Turn(f"{c}/{4 + index % 6}.png", c, called[c]) for c in classes)
    candidates = tuple(Candidate(class_id, called[class_id], class_id) for class_id in classes)
    return Episode(f"e{index:05d}", "naming", kind, 2, (0, 1, 4), candidates, turns, queries)


def a_prediction(episode: Episode, index: int, shots: int, chance: random.Random) -> Prediction:
    """Right with a probability that grows with the shots; the reply says what the likelihood says."""
    gold = episode.queries[index].class_id
    other = next(c.class_id for c in episode.candidates if c.class_id != gold)
    said = gold if chance.random() < (0.5, 0.7, 0.8)[(0, 1, 4).index(shots)] else other
    name = {c.class_id: c.name for c in episode.candidates}
    scores = tuple(
        Score(c.class_id, c.name, -1.0 - 2 * (c.class_id != said) * (1 + chance.random()), -3.0, 4)
        for c in episode.candidates
    )
    order = [turn.class_id for turn in episode.shown(shots)]
    baselines = dict.fromkeys(POLICIES, gold if order else None)
    baselines |= {"copy_first": order[0], "copy_last": order[-1]} if order else {}
    return Prediction(
        episode.id,
        episode.query_id(index),
        shots,
        scores,
        gold,
        f"It is a {name[said]}.",
        {"likelihood_sum": said == gold},
        "0" * 64,
        tuple(turn.item for turn in episode.shown(shots)),
        baselines,
    )


@pytest.fixture
def make_run(tmp_path):
    """`make_run(name="run", episodes=20, names=..., kind="pseudo")` -> the folder, without metrics.json."""

    def make(name="run", episodes=20, names=NAMES, kind="pseudo"):
        root, run = tmp_path / "pictures", tmp_path / name
        for class_id in ("circle", "square"):
            for number in range(10):
                draw(root / class_id / f"{number}.png", class_id, number)
        chance = random.Random(3)
        made = [an_episode(i, names, kind) for i in range(episodes)]
        predictions = [a_prediction(e, q, k, chance) for e in made for k in (0, 1, 4) for q in (0, 1)]
        run.mkdir()
        write_jsonl(made, run / "episodes.jsonl")
        write_jsonl(predictions, run / "predictions.jsonl")
        config = {
            "command": "linkcontext eval --model mini --data shapes --shots 0 1 4 --out run",
            "config": {"model": "mini", "seed": 0, "ways": 2},
            "model": {"name": "mini", "dtype": "float32"},
            "data": {"spec": "shapes", "root": str(root), "digest": "d" * 16, "problems": ["x.png: 0 bytes"]},
            "versions": {"linkcontext": "0.1.0", "numpy": "2.4"},
        }
        (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return run

    return make
