"""Figures that a paper printed, to be laid beside a run's. They were measured on other pictures: a landmark, no rival.

Shots in the paper are total support pictures; a run's `shots_per_class` times its ways is the same number.
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
# Of model types that could be taken for one of the published models.
MISTAKEN = {"idefics": "this run is of Idefics (open Flamingo in transformers), not OpenFlamingo"}


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One model's accuracies by total shots. A published line has no `row`: neither n nor interval was printed."""

    model: str
    origin: str  # PUBLISHED or THIS_RUN
    accuracy: dict[int, float]  # total shots -> share
    rows: dict[int, Row]  # total shots -> the row of this run, with all that belongs to its accuracy


@dataclass(frozen=True, slots=True)
class Beside:
    """A published table and the lines of a run, in columns of `total_shots`; to be headed by `label`."""

    benchmark: str
    label: str
    source: str
    total_shots: tuple[int, ...]
    lines: tuple[PublishedRow, ...]


def benchmark(spec: str, task: str) -> str | None:
    """Which published table a row belongs beside, told by its task and by the `--data` of its run; None for most.

    ImageNet-100 is the paper's only with the paper's pairs, which are each other's neighbours.
    """
    pairs = spec.startswith("imagenet-100:") and task.startswith("link-neighbours")
    found = "imagenet-100" if pairs else task
    return found if found in _read()["tables"] else None


def published_beside(rows: Sequence[Row], name: str, model_type: str = "") -> Beside:
    """The published table `isekai-10`, `isekai-pair` or `imagenet-100`, and below it a line of each kind of row.

    A run's lines are told apart by names, ways and scoring; shot counts that only one side has stay empty on the other.
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
    """The tables as the package has them."""
    text = resources.files("linkcontext.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
