"""The bundled models against what they are meant to reach. Run: `python experiments/mini.py --out runs/accept`.

Resumable; needs the real pictures of $LINKCONTEXT_DATA for the rows of real sets, which are left out without it.
Prints a table and writes experiments/mini.json with the command, the date and the machine.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from linkcontext.config import eval_config
from linkcontext.demo import built_in, teach
from linkcontext.episodes.scaffold import load_scaffold, query_messages
from linkcontext.evaluation.compare import paired_interval
from linkcontext.evaluation.draw import draw_configured
from linkcontext.evaluation.metrics import BASELINES
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.jsonl import read_jsonl
from linkcontext.models import bundled
from linkcontext.models.loading import load_model
from linkcontext.records import Episode, Prediction
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.source import open_data

RESULTS = Path(__file__).parent
COLUMNS = ("model", "data", "task", "names", "shots_per_class", "scoring", "accuracy", "ci95", "n_queries")


TALK = (
    ("Good evening.", "Good evening."),
    ("Did you sleep well?", "Yes, thank you."),
    ("I have to go to the market later.", "I see."),
    ("The bus was late again.", "I am sorry."),
    ("Please keep all of that in mind.", "Yes."),
    ("We had soup for lunch.", "That is good."),
    ("My neighbour has bought a new bicycle.", "I see."),
    ("It may snow tomorrow.", "Yes."),
    ("I like this work.", "Good."),
    ("Give me a minute.", "Yes."),
    ("Where were we?", "You showed me pictures."),
    ("All right, here comes a question.", "Yes."),
)


@dataclass
class Accept:
    """Measure the bundled models."""

    out: str = "runs/accept"
    episodes: int = 1000
    """Of each likelihood row, each with two queries; generation gets a quarter."""
    seed: int = 9001
    """Of the unseen world."""
    mini: str = "mini"
    base: str = "mini-base"
    toy: bool = False
    """Two episodes of each row and one demo, to see that it runs."""


def settings(config: Accept) -> list[dict]:
    """What is measured, one evaluation each."""
    world, shots = f"world:{config.seed}", (1, 4, 16)
    images = Path(os.environ.get("LINKCONTEXT_DATA", "nowhere")) / "images"
    real = ["digits", *(sorted(str(path) for path in images.iterdir()) if images.is_dir() else ())]
    few = max(2, config.episodes // 4)
    mini, base = {"model": config.mini}, {"model": config.base}
    return [
        *(mini | {"data": data, "shots": shots} for data in (world, *real)),
        *(mini | {"data": data, "shots": shots, "names": "real"} for data in real),
        mini | {"data": world, "shots": shots, "negatives": "neighbours"},
        *(mini | {"data": data, "shots": shots, "scoring": "both", "episodes": few} for data in (world, "digits")),
        mini | {"data": "world:taught", "shots": (1, 4), "names": "swapped"},
        *(one | {"data": "world:taught", "shots": (0,), "names": "real", "ways": 10} for one in (mini, base)),
        base | {"data": "world:taught", "shots": (4,), "names": "swapped"},
        base | {"data": world, "shots": (4,), "episodes": 2 * config.episodes},
        mini | {"data": world, "shots": (1, 4), "ways": 5, "episodes": few},
    ]


def beside_nearest(folder: Path) -> dict[int, tuple[float, float, float]]:
    """By shots per class: how far a model is above the better nearest centroid on the same questions, with 95 %."""
    found = {}
    predictions = [*read_jsonl(Prediction, folder / "predictions.jsonl")]
    pictures = {
        episode.query_id(q): episode.queries[q].item
        for episode in read_jsonl(Episode, folder / "episodes.jsonl")
        for q in range(len(episode.queries))
    }
    for shots in sorted({p.shots_per_class for p in predictions} - {0}):
        rows = [p for p in predictions if p.shots_per_class == shots]
        right = np.array([float(p.correct["likelihood_sum"]) for p in rows])
        nearest = max(
            (np.array([float(p.baselines[kind] == p.gold) for p in rows]) for kind in BASELINES["nearest_centroid"]),
            key=np.mean,
        )
        difference = right - nearest
        low, high = paired_interval(difference, [p.episode_id for p in rows], [pictures[p.query_id] for p in rows])
        found[shots] = (float(difference.mean()), low, high)
    return found


def by_length(folder: Path) -> dict[int, dict[str, tuple[float, int]]]:
    """By shots per class: accuracy where the right name is the longer one, in characters, and where it is the shorter;
    with the number of questions."""
    right: dict[int, dict[str, list[float]]] = {}
    for prediction in read_jsonl(Prediction, folder / "predictions.jsonl"):
        lengths = {score.class_id: len(score.name) for score in prediction.candidates}
        others = [length for class_id, length in lengths.items() if class_id != prediction.gold]
        if len(others) == 1 and others[0] != lengths[prediction.gold]:
            kind = "longer" if lengths[prediction.gold] > others[0] else "shorter"
            kinds = right.setdefault(prediction.shots_per_class, {"longer": [], "shorter": []})
            kinds[kind].append(float(prediction.correct["likelihood_sum"]))
    return {shots: {kind: (fmean(v), len(v)) for kind, v in kinds.items()} for shots, kinds in sorted(right.items())}


def small_talk(model: ScoringModel, data: str, episodes: int) -> dict:
    """Two-way questions at 4 per class, with and without 12 turns of small talk between teaching and asking."""
    config = eval_config(data=data, shots=(4,), episodes=episodes, names="pseudo")
    dataset = open_data(data)
    talk = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for turn in TALK
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
    scorer = model.with_pictures(sources)
    right: dict[int, list[float]] = {0: [], len(TALK): []}
    for episode in draw_configured(config.episodes, dataset).episodes:
        for query, turn in enumerate(episode.queries):
            asks = []
            for between in ([], talk):

                def with_talk(answer: str | None, query: int = query, between: list = between) -> list:
                    messages = query_messages(episode, query, 4, load_scaffold(config.scaffold), answer)  # noqa: B023
                    at = -1 if answer is None else -2
                    return [*messages[:at], *between, *messages[at:]]

                asks.append(ScoringRequest(with_talk(None), tuple(with_talk(c.name) for c in episode.candidates)))
            for count, scores in zip(right, scorer.score(asks), strict=True):
                best = max(range(len(scores)), key=lambda i: scores[i][0])
                right[count].append(float(episode.candidates[best].class_id == turn.class_id))
    ids = [str(i // 2) for i in range(len(right[0]))]
    difference = np.array(right[len(TALK)]) - np.array(right[0])
    return {
        "data": data,
        "without": fmean(right[0]),
        "after": fmean(right[len(TALK)]),
        "ci95": paired_interval(difference, ids),
        "n": len(ids),
    }


def demo_questions(model: ScoringModel, seeds: int = 20) -> dict:
    """The questions of `linkcontext demo` with other seeds."""
    by_seed = []
    for seed in range(seeds):
        lessons = [teach(model, subject) for subject in built_in(seed)]
        by_seed.append(sum(lesson.right for lesson in lessons) / sum(len(lesson.queries) for lesson in lessons))
    return {"right": fmean(by_seed), "by_seed": by_seed}


def main() -> None:
    config = tyro.cli(Accept, description=__doc__)
    if config.toy:
        config = replace(config, out=config.out + "-toy", episodes=2)
    models = {name: LocalModel(load_model(name)) for name in (config.base, config.mini)}
    rows = []
    for number, setting in enumerate(settings(config)):
        setting = {"episodes": config.episodes, "explain": 0, **setting}  # noqa: PLW2901
        name = "mini" if setting["model"] == config.mini else "mini-base"
        out = Path(config.out) / "-".join([name, Path(setting["data"]).name.replace(":", "-"), str(number)])
        run = run_evaluation(eval_config(**setting, out=str(out)), models[setting["model"]])
        gaps, lengths = beside_nearest(out), by_length(out)
        for row in run["rows"]:
            gap = gaps.get(row["shots_per_class"]) if row["scoring"] == "likelihood_sum" else None
            rows.append(
                {
                    "model": name,
                    "data": Path(setting["data"]).name,
                    **row,
                    "beside_nearest": gap,
                    "by_length": lengths.get(row["shots_per_class"]),
                }
            )
        show(rows[-len(run["rows"]) :])
    talks = [
        small_talk(models[config.mini], d, max(2, config.episodes // 4)) for d in (f"world:{config.seed}", "digits")
    ]
    questions = demo_questions(models[config.mini], 1 if config.toy else 20)
    print(markdown(rows))
    for row in (*talks, questions):
        print(row)
    write(rows, {"small_talk": talks, "demo": questions}, Path(config.out) if config.toy else RESULTS)


def show(rows: list[dict]) -> None:
    table = Table(*COLUMNS, "truth", "nearest centroid", "less nearest", "shorter", "answered")
    for row in rows:
        if row["scoring"] in ("likelihood_sum", "generate"):
            gap = row["beside_nearest"]
            told = "" if gap is None else f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
            shorter = "" if row["shorter"] is None else f"{row['shorter']['chosen']:.2f}/{row['shorter']['right']:.2f}"
            nearest = row["baselines"]["nearest_centroid"]
            cells = [*(row[c] for c in COLUMNS), row["truth"], nearest, told, shorter, row["answered"]]
            table.add_row(*(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells))
    Console(width=160).print(table)


def markdown(rows: list[dict]) -> str:
    """The same as a table for the documents: accuracy [95 %] / nearest centroid, by shots per class."""
    chosen = [row for row in rows if row["scoring"] in ("likelihood_sum", "generate")]
    shots = sorted({row["shots_per_class"] for row in chosen})
    lines = ["| model | pictures | ways, names, score | n | " + " | ".join(f"{k} per class" for k in shots) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(shots))
    groups: dict[tuple, dict[int, dict]] = {}
    for row in chosen:
        what = f"{row['ways']}-way, {row['names']}, {'generation' if row['scoring'] == 'generate' else 'likelihood'}"
        where = row["data"] + (", hard neighbours" if "neighbours" in row["task"] else "")
        groups.setdefault((row["model"], where, what, row["n_queries"]), {})[row["shots_per_class"]] = row
    for (model, where, what, n), found in groups.items():
        cells = [cell(found[k]) if k in found else "" for k in shots]
        lines.append(f"| {model} | {where} | {what} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: dict) -> str:
    low, high = row["ci95"]
    nearest = row["baselines"]["nearest_centroid"]
    truth = "" if row["truth"] is None else f", true name {row['truth']:.3f}"
    beside = "" if nearest is None else f" / {nearest:.3f}"
    return f"{row['accuracy']:.3f} [{low:.3f}, {high:.3f}]{beside}{truth}"


def write(rows: list[dict], others: dict, folder: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "commit": commit.stdout.strip(),
        "weights": json.loads((bundled.weights_folder() / bundled.LISTING).read_text())["sha256"],
        "rows": rows,
        **others,
    }
    (folder / "mini.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
