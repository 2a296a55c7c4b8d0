"""A run's folder, read back: what was asked of whom, and what came of it.

config.json        command, config, model, data, versions
episodes.jsonl     one Episode a line
predictions.jsonl  one Prediction a line
metrics.json       rows and counters, made from the three
explain.json       what moved some answers, and a prompt token by token; a run may lack it
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linkcontext.errors import InputError
from linkcontext.records import Episode, Prediction, Record, read_jsonl

CONFIG_KEYS = ("command", "config", "model", "data", "versions")
DATA_KEYS = ("spec", "root", "digest", "problems")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run. `config` is the whole of config.json."""

    path: Path
    config: dict[str, Any]
    episodes: dict[str, Episode]
    predictions: tuple[Prediction, ...]


def read_run(run: Path) -> RunFolder:
    """Read config, episodes and predictions; an `InputError` names the file that is missing or damaged."""
    config = read_object(_present(run, "config.json"), CONFIG_KEYS)
    for name in ("config", "model", "data", "versions"):
        if not isinstance(config[name], dict):
            raise InputError(f"{run / 'config.json'}: {name} is no object. Was it edited by hand?")
    data = config["data"]
    if not set(DATA_KEYS) <= set(data):
        raise InputError(f'{run / "config.json"}: "data" must hold {", ".join(DATA_KEYS)}. Was it edited by hand?')
    episodes = _records(Episode, _present(run, "episodes.jsonl"))
    predictions = _records(Prediction, _present(run, "predictions.jsonl"))
    return RunFolder(run, config, {episode.id: episode for episode in episodes}, predictions)


def read_object(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object in a file, which must have these keys."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error}). The file is damaged; evaluate again.") from error
    missing = [key for key in keys if not isinstance(values, dict) or key not in values]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing. Was the file written by another version?")
    return dict(values)


def _present(run: Path, name: str) -> Path:
    if not (run / name).is_file():
        raise InputError(f"{run / name} is not there. Give the folder that `linkcontext eval --out` has written.")
    return run / name


def _records(kind: type[Record], path: Path) -> tuple[Record, ...]:
    try:
        records = tuple(read_jsonl(kind, path))
    except TypeError as error:  # a number where a list belongs
        raise InputError(f"{path}: not a file of {kind.__name__}s ({error}). It is damaged; evaluate again.") from error
    if not records:
        raise InputError(f"{path} is empty. Let `linkcontext eval` finish into this folder first.")
    return records
