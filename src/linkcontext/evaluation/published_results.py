"""Published figures, shown beside those of a run. They were measured on other pictures, so they are only a reference.

Shots in the paper are total support pictures, which is a run's `shots_per_class` times its ways.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from linkcontext.evaluation.metrics import Row

LABEL = "published, other images, total shots"
PUBLISHED, THIS_RUN = "published", "this run"
# Model types that readers could mistake for one of the published models, with a note.
MISTAKEN = {"idefics": "this run is of Idefics (open Flamingo in transformers), not OpenFlamingo"}


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One model's accuracies by total shots. Published lines have no `rows`: the paper gives neither n nor interval."""

    model: str
    origin: str  # PUBLISHED or THIS_RUN
    accuracy: dict[int, float]  # total shots -> share
    rows: dict[int, Row]  # total shots -> the row of this run


@dataclass(frozen=True, slots=True)
class Beside:
    """A published table and the lines of a run below it, in columns of `total_shots`; `label` is its heading."""

    benchmark: str
    label: str
    source: str
    total_shots: tuple[int, ...]
    lines: tuple[PublishedRow, ...]


def benchmark(spec: str, task: str) -> str | None:
    """The published table for a row with that task in a run with `--data spec`, or None.

    The table imagenet-100 is comparable only with the paper's pairs of classes, which are each other's neighbours.
    """
    pairs = spec.startswith("imagenet-100:") and task.startswith("link-neighbours")
    name = "imagenet-100" if pairs else task
    return name if name in _read()["tables"] else None


def published_beside(rows: Sequence[Row], name: str, model_type: str = "") -> Beside:
    """The published table `isekai-10`, `isekai-pair` or `imagenet-100`, followed by the lines of this run.

    There is a line for each names, ways and scoring; cells of shot counts that it lacks are empty.
    """
    table = _read()["tables"][name]
    shots = table["total_shots"]
    lines = [
        PublishedRow(model, PUBLISHED, dict(zip(shots, values, strict=True)), {})
        for model, values in table["accuracy"].items()
    ]
    kinds: dict[str, dict[int, Row]] = {}
    for row in rows:
        kind = f"{row['names']} names, {row['ways']}-way, {row['scoring'].replace('_', ' ')}"
        kinds.setdefault(kind, {})[row["ways"] * row["shots_per_class"]] = row
    for kind, mine in kinds.items():
        ordered = dict(sorted(mine.items()))
        lines.append(PublishedRow(kind, THIS_RUN, {total: row["accuracy"] for total, row in ordered.items()}, ordered))
    every = tuple(sorted({total for line in lines for total in line.accuracy}))
    label = "; ".join([f"{name}: {LABEL}", *([MISTAKEN[model_type]] if model_type in MISTAKEN else [])])
    return Beside(name, label, _read()["source"], every, tuple(lines))


@cache
def _read() -> dict[str, Any]:
    """The content of published.json."""
    text = resources.files("linkcontext.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
