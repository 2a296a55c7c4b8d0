"""Benchmarks of in-context learning beyond linking, after arXiv 2403.12736.

world-icl      all tasks of scenes that nobody was trained on
fewshot        few-shot recognition among the classes of any folder
seed           SEED-Bench, by its types of tasks
vl-checklist   which of two descriptions fits, by kind of attribute and relation
vl-icl         the image-to-text tasks of VL-ICL (arXiv 2403.13164) about one picture, with its efficiency of learning

All are asked openly and as a choice among letters. The last three are folders that `linkcontext data FILE --layout NAME
--out DIR` made of the published files; supports are drawn from them (VL-ICL's own support set), of the query's concept.
Supports and queries are counterbalanced as everywhere (`episodes.sample`, `episodes.talk`), so that copying the first
or the last answer, or always giving one letter, is right by chance only.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

from scipy.special import stdtrit  # type: ignore[import-untyped]

from linkcontext.config import EpisodeConfig, EvalConfig
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.talk import HELD_OUT, with_letters
from linkcontext.errors import InputError
from linkcontext.evaluate.draw import drawn
from linkcontext.evaluate.metrics import Row
from linkcontext.evaluate.run import run_folder
from linkcontext.records import Episode
from linkcontext.source import open_data

Benchmark = Literal["world-icl", "fewshot", "seed", "vl-checklist", "vl-icl"]
SHOTS = (0, 1, 2, 4, 8)
SCENES = "scenes:0"
TASK = re.compile(r"(.*?) (open|choice)(?: .*)?")  # as `episodes.talk` writes a row's task


def settled(config: EvalConfig, benchmark: Benchmark) -> EvalConfig:
    """The configuration as the benchmark reads it. Raises `InputError` for flags that it decides itself."""
    e, default = config.episodes, EpisodeConfig()
    if e.format != default.format:
        raise InputError(f"--format: --benchmark {benchmark} asks openly and as a choice. Leave it out.")
    if benchmark == "fewshot":
        if e.tasks:
            raise InputError("--tasks: --benchmark fewshot asks for classes. Leave it out.")
    else:
        if e.data == default.data and benchmark != "world-icl":
            made = f"linkcontext data FILE --layout {benchmark} --out DIR"
            raise InputError(f"--benchmark {benchmark} needs --data: the folder made by `{made}`.")
        data = SCENES if e.data == default.data else e.data
        shots = SHOTS if e.shots == default.shots else e.shots
        e = dataclasses.replace(e, data=data, shots=shots, tasks=e.tasks or ("all",))
        if benchmark == "vl-icl":
            e = dataclasses.replace(e, support_split="support", query_split="query")
    config = dataclasses.replace(config, episodes=e)
    return dataclasses.replace(config, out=config.out or f"{run_folder(config)}-{benchmark}")


def open_benchmark(config: EvalConfig) -> tuple[Dataset, tuple[Episode, ...], list[str]]:
    """Pictures, the episodes of a settled configuration in both forms, and the classes left out."""
    e = config.episodes
    dataset = open_data(e.data, e.strict)
    sampled = drawn(e, dataset)
    left_out = [f"{c.class_id}: left out, {c.lacks}" for c in sampled.left_out]
    if e.tasks:
        choice = drawn(dataclasses.replace(e, format="choice"), dataset).episodes
    else:
        choice = tuple(with_letters(episode, "fewshot", e.seed) for episode in sampled.episodes)
    both = {"open": sampled.episodes, "choice": choice}
    episodes = [dataclasses.replace(ep, id=f"{form}-{ep.id}") for form, found in both.items() for ep in found]
    return dataset, tuple(episodes), left_out


def summary(rows: Iterable[Row], unseen: Collection[str] = HELD_OUT) -> list[dict[str, Any]]:
    """Means over subjects, each of equal weight: a line for each type of task, form, shots and scoring, and lines for
    all types that are `unseen` and for all others.

    The interval is that of the mean over the subjects, taken as a sample of all subjects (Student's t), and null for a
    single one.
    """
    found: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        subject, form = TASK.fullmatch(row["task"]).groups()  # type: ignore[union-attr]
        task = subject.partition("/")[0]
        for heading in (task, "unseen tasks" if task in unseen else "seen tasks"):
            found.setdefault((heading, form, row["shots_per_class"], row["scoring"]), []).append(row)
    return [_line(*key, mine) for key, mine in sorted(found.items())]


def curves(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of accuracy by shots, after VL-ICL: without any, the highest, and the efficiency of learning in context.

    Here that is the area between the curve and the accuracy without shots, over the most shots; below 0 where shots
    harm, null without a zero-shot line or without shots. A line for each tasks, form and scoring.
    """
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for line in lines:
        found.setdefault((line["tasks"], line["form"], line["scoring"]), {})[line["shots"]] = line["accuracy"]
    made = []
    for (tasks, form, scoring), points in found.items():
        shots = sorted(points)
        zero, area = points.get(0), None
        if zero is not None and len(shots) > 1:
            gains = [points[k] - zero for k in shots]
            area = math.fsum(
                (b - a) * (x + y) / 2 for (a, b), (x, y) in zip(pairwise(shots), pairwise(gains), strict=True)
            )
            area /= shots[-1]
        best = max(shots, key=lambda k: points[k])
        told = {"zero_shot": zero, "peak": points[best], "peak_shots": best, "efficiency": area}
        made.append({"tasks": tasks, "form": form, "scoring": scoring, **told})
    return made


def _line(tasks: str, form: str, shots: int, scoring: str, rows: Sequence[Row]) -> dict[str, Any]:
    n = len(rows)
    values = [row["accuracy"] for row in rows]
    mean = math.fsum(values) / n
    ci95 = None
    if n > 1:
        half = float(stdtrit(n - 1, 0.975)) * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
        ci95 = [max(0.0, mean - half), min(1.0, mean + half)]
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
        "baselines": {name: _mean([row["baselines"][name] for row in rows]) for name in ("copy_first", "copy_last")},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Null where one is: a policy that answers only some subjects would be measured on other ones."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None
