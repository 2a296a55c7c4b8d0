"""Benchmarks of in-context learning beyond linking, after arXiv 2403.12736.

world-icl   all tasks of scenes that nobody was trained on, asked openly and as a choice among letters
fewshot     few-shot recognition among the classes of any folder, asked both ways

Supports and queries are counterbalanced as everywhere (`episodes.sample`, `episodes.talk`), so that copying the first
or the last answer, or always giving one letter, is right by chance only.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
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

Benchmark = Literal["world-icl", "fewshot"]
SHOTS = (0, 1, 2, 4, 8)
SCENES = "scenes:0"
TASK = re.compile(r"(.*?) (open|choice)(?: .*)?")  # as `episodes.talk` writes a row's task


def settled(config: EvalConfig, benchmark: Benchmark) -> EvalConfig:
    """The configuration as the benchmark reads it. Raises `InputError` for flags that it decides itself."""
    e, default = config.episodes, EpisodeConfig()
    if e.format != default.format:
        raise InputError(f"--format: --benchmark {benchmark} asks openly and as a choice. Leave it out.")
    if benchmark == "world-icl":
        data = SCENES if e.data == default.data else e.data
        shots = SHOTS if e.shots == default.shots else e.shots
        e = dataclasses.replace(e, data=data, shots=shots, tasks=e.tasks or ("all",))
    elif e.tasks:
        raise InputError("--tasks: --benchmark fewshot asks for classes. Leave it out.")
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


def summary(rows: Iterable[Row], groups: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
    """Means over subjects, each of equal weight: a line for each group of tasks, form, shots and scoring.

    `groups` maps a heading to tasks; the default tells trained types of tasks from held-out ones. The interval is
    that of the mean over the subjects, taken as a sample of all subjects (Student's t), and null for a single one.
    """
    found: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        subject, form = TASK.fullmatch(row["task"]).groups()  # type: ignore[union-attr]
        task = subject.partition("/")[0]
        for heading, tasks in (groups or {"held-out tasks": HELD_OUT}).items():
            if task in tasks:
                found.setdefault((heading, form, row["shots_per_class"], row["scoring"]), []).append(row)
        if groups is None and task not in HELD_OUT:
            found.setdefault(("tasks", form, row["shots_per_class"], row["scoring"]), []).append(row)
    return [_line(*key, mine) for key, mine in sorted(found.items())]


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
        "baselines": {
            name: math.fsum(row["baselines"][name] or 0.0 for row in rows) / n for name in ("copy_first", "copy_last")
        },
    }
