"""Means over subjects, and curves by shots: the summary of runs that ask about many subjects."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from scipy.special import stdtrit  # type: ignore[import-untyped]

from linkcontext.episodes.ids import drawn_as
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.errors import InputError
from linkcontext.evaluation.intervals import effective_n, wilson
from linkcontext.evaluation.metrics import Key, Pair, Row, credit, query_picture

TASK = re.compile(r"(.*) (open|choice)(?: (?:task|none)-coherent)?")  # as `episodes.questions` writes a row's task


def type_of(task: str) -> tuple[str, str]:
    """Split a row's task into its type and its form: "attribute/colour open" gives ("attribute", "open")."""
    match = TASK.fullmatch(task)
    if match is None:
        raise InputError(
            f"the task {task!r} is neither open nor a choice. The files of this run are of different runs."
        )
    subject, form = match.groups()
    return subject.partition("/")[0], form


def mean_rows(
    rows: Iterable[Row], unseen: Collection[str] = HELD_OUT, groups: Mapping[Key, Sequence[Pair]] | None = None
) -> list[Row]:
    """Means over subjects of equal weight: a row per type of task, form, shots and scoring, and rows over all `unseen`
    types and over all others.

    The 95 % interval is Student's t of the mean over subjects, and null for a single subject. It is never narrower than
    the interval of the mean over the queries in `groups`, clustered by episode and by query picture, because subjects
    with questions about the same few pictures are not independent.
    """
    by_key: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        task, form = type_of(row["task"])
        for heading in (task, "unseen tasks" if task in unseen else "seen tasks"):
            by_key.setdefault((heading, form, row["shots_per_class"], row["scoring"]), []).append(row)
    return [_mean_row(*key, of_key, groups or {}) for key, of_key in sorted(by_key.items())]


def shot_curves(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summaries of accuracy by shots, after VL-ICL: zero-shot accuracy, peak accuracy and ICL efficiency.

    The efficiency is the area between the curve and the zero-shot accuracy, divided by the largest number of shots. It
    is below 0 if shots reduce accuracy, and null without zero-shot rows or without any shots. There is one summary per
    group of tasks, form and scoring.
    """
    by_key: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in rows:
        by_key.setdefault((row["tasks"], row["form"], row["scoring"]), {})[row["shots"]] = row["accuracy"]
    curves = []
    for (tasks, form, scoring), points in by_key.items():
        shots = sorted(points)
        zero, area = points.get(0), None
        if zero is not None and len(shots) > 1:
            gains = [points[k] - zero for k in shots]
            area = math.fsum(
                (b - a) * (x + y) / 2 for (a, b), (x, y) in zip(pairwise(shots), pairwise(gains), strict=True)
            )
            area /= shots[-1]
        best = max(shots, key=lambda k: points[k])
        summary = {"zero_shot": zero, "peak": points[best], "peak_shots": best, "efficiency": area}
        curves.append({"tasks": tasks, "form": form, "scoring": scoring, **summary})
    return curves


def _mean_row(
    tasks: str, form: str, shots: int, scoring: str, rows: Sequence[Row], groups: Mapping[Key, Sequence[Pair]]
) -> Row:
    n = len(rows)
    values = [row["accuracy"] for row in rows]
    mean = math.fsum(values) / n
    keys = [Key(*(row[name] for name in Key._fields)) for row in rows] if groups else []
    pairs = [pair for key in keys for pair in groups.get(key, ())]
    pictures = [query_picture(episode, prediction) for episode, prediction in pairs]
    ci95 = None
    if n > 1:
        low, high = mean, mean
        if pairs:
            credits = [credit(p, scoring, e.candidates) for e, p in pairs]
            clusterings = [drawn_as(e.id) for e, _ in pairs], pictures
            low, high = wilson(mean, min(effective_n(credits, clusters) for clusters in clusterings))
        half = float(stdtrit(n - 1, 0.975)) * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
        ci95 = [max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half))]
    chance = math.fsum(row["chance"] for row in rows) / n
    return {
        "tasks": tasks,
        "form": form,
        "shots": shots,
        "scoring": scoring,
        "accuracy": mean,
        "ci95": ci95,
        "chance": chance,
        "gain": mean - chance,
        "n_subjects": n,
        "n_queries": sum(row["n_queries"] for row in rows),
        "n_pictures": len(set(pictures)) if pairs else None,
        "baselines": {name: _mean([row["baselines"][name] for row in rows]) for name in ("copy_first", "copy_last")},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None if a value is None: a policy that answers only some subjects would be measured on fewer."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None
