"""The bundled models against what they are meant to reach. Run: `python benchmarks/mini.py --out runs/accept`.

Resumable; needs the real pictures of $LINKCONTEXT_DATA for the rows of real sets, which are left out without it.
Prints a table and writes benchmarks/results/mini.json with the command, the date and the machine.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from linkcontext.config import eval_config
from linkcontext.evaluate.run import evaluate
from linkcontext.models import bundle
from linkcontext.models.load import load

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("model", "data", "task", "names", "shots_per_class", "scoring", "accuracy", "ci95", "n_queries")


@dataclass
class Accept:
    """Measure the bundled models."""

    out: str = "runs/accept"
    episodes: int = 1000
    """Of each likelihood row; generation gets a quarter."""
    seed: int = 9001
    """Of the unseen world."""


def settings(config: Accept) -> list[dict]:
    """What is measured, one evaluation each."""
    world, shots = f"world:{config.seed}", (1, 4, 16)
    images = Path(os.environ.get("LINKCONTEXT_DATA", "nowhere")) / "images"
    real = sorted(str(path) for path in images.iterdir()) if images.is_dir() else []
    few = max(2, config.episodes // 4)
    return [
        {"model": "mini", "data": world, "shots": shots},
        {"model": "mini", "data": world, "shots": shots, "negatives": "neighbours"},
        {"model": "mini", "data": world, "shots": shots, "scoring": "both", "episodes": few},
        {"model": "mini", "data": "world:taught", "shots": (1, 4), "names": "swapped"},
        {"model": "mini-base", "data": "world:taught", "shots": (4,), "names": "swapped"},
        {"model": "mini-base", "data": world, "shots": (4,), "episodes": 2 * config.episodes},
        *({"model": "mini", "data": data, "shots": shots} for data in ("digits", *real)),
        {"model": "mini", "data": world, "shots": (1, 4), "ways": 5, "episodes": few},
    ]


def main() -> None:
    config = tyro.cli(Accept)
    models = {name: load(name) for name in ("mini-base", "mini")}
    rows = []
    for number, setting in enumerate(settings(config)):
        setting = {"episodes": config.episodes, **setting}  # noqa: PLW2901
        words = [setting["model"], Path(setting["data"]).name.replace(":", "-"), str(number)]
        run = evaluate(eval_config(**setting, out=str(Path(config.out) / "-".join(words))), models[setting["model"]])
        rows += [{"model": setting["model"], "data": Path(setting["data"]).name, **row} for row in run["rows"]]
        show(rows[-len(run["rows"]) :])
    print(markdown(rows))
    listing = json.loads((bundle.weights_folder() / "files.json").read_text())
    write(rows, listing)


def show(rows: list[dict]) -> None:
    table = Table(*COLUMNS, "truth", "nearest centroid", "answered")
    for row in rows:
        if row["scoring"] in ("likelihood_sum", "generate"):
            cells = [*(row[c] for c in COLUMNS), row["truth"], row["baselines"]["nearest_centroid"], row["answered"]]
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


def write(rows: list[dict], listing: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "commit": commit.stdout.strip(),
        "size": listing["card"]["size"],
        "weights": listing["sha256"],
        "rows": rows,
    }
    (RESULTS / "mini.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
