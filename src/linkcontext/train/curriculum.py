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
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from linkcontext.errors import InputError
from linkcontext.jsonl import read_json
from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import check, train
from linkcontext.train.mixture import FILES, shares

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
    for stage, given in zip(planned[1:], stages[1:], strict=True):  # the first one's turn comes at once
        with _of(given["name"]):
            check(stage)
    model = config.model.model
    for stage in planned:
        last = train(dataclasses.replace(stage, model=dataclasses.replace(config.model, model=model)))
        model = str(last)
    return last


def plan(config: TrainConfig, stages: Sequence[Mapping[str, Any]]) -> list[TrainConfig]:
    """The stages' configurations, each with a folder of its own."""
    if not stages:
        raise InputError("--curriculum: it has no stages. Give a list of at least one.")
    known = get_type_hints(TrainConfig)
    configs: list[TrainConfig] = []
    for number, stage in enumerate(stages):
        name = stage.get("name")
        where = f"--curriculum, stage {number}"
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"{where}: needs a `name` of letters, figures and dashes.")
        unknown = sorted(set(stage) - set(known) - {"name"} | set(stage) & {"model", "out"})
        if unknown:
            raise InputError(f"{where} ({name}): {unknown[0]} is not an option of a stage. Use the flags of train.")
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stage.items() if k != "name"}
        for key, value in options.items():
            if not _fits(value, known[key]):
                can = ", ".join(map(repr, get_args(known[key]))) if get_origin(known[key]) is Literal else ""
                advice = f"It is one of {can}." if can else "See linkcontext train --help."
                raise InputError(f"{where} ({name}): {key} cannot be {json.dumps(stage[key])}. {advice}")
        with _of(name):
            configs.append(dataclasses.replace(config, **options, out=str(Path(config.out) / f"{number}-{name}")))
            for part in shares(configs[-1].mixture):
                if part.endswith(FILES) and not Path(part).is_file():
                    raise InputError(f"--mixture {part}: there is no such file. Check the path.")
    return configs


@contextmanager
def _of(name: str) -> Iterator[None]:
    """Say of which stage an error is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--curriculum, stage {name}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is one of a flag's; `true` is no number."""
    if any(isinstance(each, bool) for each in (value if isinstance(value, tuple) else (value,))) and hint is not bool:
        return False
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return False
    return True


def read_stages(name: str) -> list[dict[str, Any]]:
    """The stages of a curriculum that is known by name, or of a JSON file."""
    if name in CURRICULA:
        return CURRICULA[name]
    if not os.path.isfile(name):  # noqa: PTH113 - False for a name of 5,000 letters too, where a Path raises
        raise InputError(f"--curriculum {name}: neither {', '.join(CURRICULA)} nor a file. Check the path.")
    stages = read_json(Path(name))
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError(f"--curriculum {name}: a list of stages was expected, each an object.")
    return stages
