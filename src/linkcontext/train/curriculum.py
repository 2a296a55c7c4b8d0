"""A curriculum: trainings one after the other, each from where the one before stopped, as data.

    [{"name": "instruction", "mixture": ["icl=0.8", "taught=0.2"], "turns": [1], "steps": 300, "lr": 1e-3,
      "held_out": "scenes:2", "held_out_tasks": ["attribute"], "until": 0.9},
     {"name": "icl", "mixture": ["icl=0.7", "taught=0.3"], "steps": 600}]

Keys are the flags of `linkcontext train`; what a stage does not say is as it was given there. A stage ends after its
`steps`, or where the held-out accuracy reaches `until`. Each has a folder of its own with everything that a training
has, so that a curriculum goes on wherever it was killed. The optimizer begins anew with a stage.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linkcontext.errors import InputError
from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import train

# Alignment, instruction, in-context tuning with replay, after arXiv 2403.12736; lengths are those of a bundled model.
CURRICULA: dict[str, list[dict[str, Any]]] = {
    "icl": [
        {"name": "alignment", "train": ["projector"], "mixture": ["icl"], "tasks": ["caption"], "format": "caption"}
        | {"turns": [1], "steps": 100},
        {"name": "instruction", "mixture": ["icl=0.7", "taught=0.3"], "turns": [1], "steps": 200},
        {"name": "icl", "mixture": ["icl=0.7", "taught=0.3"], "steps": 400},
    ]
}


def curriculum(config: TrainConfig, stages: Sequence[Mapping[str, Any]]) -> Path:
    """Train all stages; the last checkpoint. Raises `InputError` for a stage that cannot be, before any begins."""
    planned = plan(config, stages)
    model = config.model.model
    for stage in planned:
        last = train(dataclasses.replace(stage, model=dataclasses.replace(config.model, model=model)))
        model = str(last)
    return last


def plan(config: TrainConfig, stages: Sequence[Mapping[str, Any]]) -> list[TrainConfig]:
    """The stages' configurations, each with a folder of its own."""
    if not stages:
        raise InputError("--curriculum: it has no stages. Give a list of at least one.")
    known = {f.name: f for f in dataclasses.fields(TrainConfig)}
    found = []
    for number, stage in enumerate(stages):
        name = stage.get("name")
        where = f"--curriculum, stage {number}"
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"{where}: needs a `name` of letters, figures and dashes.")
        unknown = sorted(set(stage) - set(known) - {"name"} | set(stage) & {"model", "out"})
        if unknown:
            raise InputError(f"{where} ({name}): {unknown[0]} is nothing that a stage can say. Use flags of train.")
        said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stage.items() if k != "name"}
        wrong = [k for k, v in said.items() if not _fits(v, known[k].default)]
        if wrong:
            raise InputError(f"{where} ({name}): {wrong[0]} cannot be {stage[wrong[0]]!r}.")
        found.append(dataclasses.replace(config, **said, out=str(Path(config.out) / f"{number}-{name}")))
    return found


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a flag's default."""
    if default is None or value is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(default))


def read_stages(name: str) -> list[dict[str, Any]]:
    """The stages of a curriculum that is known by name, or of a JSON file."""
    if name in CURRICULA:
        return CURRICULA[name]
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(CURRICULA)
        raise InputError(f"--curriculum {name}: neither {known} nor a file ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"--curriculum {name}: not JSON ({error}).") from error
    if not isinstance(found, list) or not all(isinstance(stage, dict) for stage in found):
        raise InputError(f"--curriculum {name}: a list of stages was expected, each an object.")
    return found
