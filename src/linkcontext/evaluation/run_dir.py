"""Read the folder of a run, and check that its files are sound and belong together.

config.json        command, config, model, measured, data, versions
episodes.jsonl     one Episode per line
predictions.jsonl  one Prediction per line
metrics.json       rows and counters, computed from the three files above
explain.json       attributions of some answers, and a prefix tree; a run may lack it
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linkcontext.errors import InputError
from linkcontext.evaluation import checks
from linkcontext.jsonl import Record, read_json, read_jsonl, typed
from linkcontext.python_words import did_you_mean_path
from linkcontext.records import Episode, Prediction
from linkcontext.versions import RUN, check_format

# The required keys of config.json with their types. OPTIONS, EPISODE_OPTIONS and MODEL, of its parts, are optional.
CONFIG = {
    "command": str,
    "config": dict[str, Any],
    "model": dict[str, Any],
    "data": dict[str, Any],
    "versions": dict[str, str],
}
MEASURED = {"measured": dict[str, Any]}  # earlier versions did not write it
# The parts of `measured`, in words for messages.
WORDS = {
    "weights": "the model's weights",
    "configuration": "the model's configuration (config.json)",
    "adapter": "the adapter",
    "processor": "the processor (pictures or tokenizer)",
    "chat_template": "the chat template as it renders",
    "generation": "the generation config",
    "server": "what the server reports about itself",
    "scaffold": "the text of the scaffold",
    "prompts": "the rendered prompts",
    "pictures": "what is done to pictures before they are sent",
    "files": "the files that it learns from",
}
UNKNOWN = "unknown"  # the prefix of `weights` in `measured` for unknown weights
UNKNOWN_WEIGHTS = (
    "The model's weights are unknown: the model is behind a server, or an earlier version wrote the run and did not "
    "record them. Two such runs may have used different weights."
)
DATA = {"spec": str, "root": str, "digest": str, "problems": tuple[str, ...]}
OPTIONS = {"episodes": dict[str, Any], "scoring": str, "unseen": tuple[str, ...]}
EPISODE_OPTIONS = {"tasks": tuple[str, ...]}
MODEL = {"name": str, "class": str, "model_type": str}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run. `config` is the content of config.json."""

    path: Path
    config: dict[str, Any]
    episodes: dict[str, Episode]
    predictions: tuple[Prediction, ...]

    @property
    def unfinished(self) -> str:
        """A sentence about the missing predictions; "" if the run is complete."""
        return checks.unfinished(self.episodes.values(), self.predictions)

    @property
    def weights_unknown(self) -> bool:
        """Whether the run does not record what identifies the model's weights."""
        return str(self.config.get("measured", {}).get("weights", UNKNOWN)).startswith(UNKNOWN)

    @property
    def served(self) -> bool:
        """Whether the model was behind a server."""
        return bool(self.config["model"].get("class") == "served")


def read_run(run: Path) -> RunFolder:
    """Read config, episodes and predictions. An incomplete last prediction is skipped.

    Raises `InputError`, naming the file, for one that is missing or damaged, and for predictions that do not belong to
    the episodes or do not have the scores of the configuration.
    """
    config = read_config(_present(run, "config.json"))
    path = _present(run, "episodes.jsonl")
    episodes = checks.episodes_by_id(_records(Episode, path), str(path))
    path = _present(run, "predictions.jsonl")
    predictions = checks.check_predictions(episodes, _records(Prediction, path, whole_lines=True), str(path))
    folder = RunFolder(run, config, episodes, predictions)
    _check_scoring(folder)
    return folder


def measurement_differences(a: Mapping[str, Any], b: Mapping[str, Any], but: Collection[str] = ()) -> list[str]:
    """The parts of `measured`, in words, in which the config.json of two runs differ, except those in `but`."""
    mine, other = a.get("measured", {}), b.get("measured", {})
    names = [name for name in {**WORDS, **mine, **other} if name not in but]
    return [WORDS.get(name, name) for name in names if mine.get(name) != other.get(name)]


def option_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The options other than `out` in which two configurations differ, with both values."""
    mine, other = flatten_options(a), flatten_options(b)
    return [
        f"{name} ({mine.get(name)}, {other.get(name)})"
        for name in sorted({*mine, *other} - {"out"})
        if mine.get(name) != other.get(name)
    ]


def flatten_options(tree: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a nested configuration by their names."""
    options: dict[str, Any] = {}
    for name, value in tree.items():
        options |= flatten_options(value) if isinstance(value, dict) else {name: value}
    return options


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json and check the types of its parts. Raises `InputError` for a damaged file."""
    config = read_object(path, tuple(CONFIG))
    check_format(config.get("format"), RUN, str(path))
    parts: tuple[tuple[dict[str, Any], Mapping[str, Any]], ...] = (
        (config, {**CONFIG, **MEASURED}),
        (read_keys(config, "data", DATA, path), DATA),
        (read_keys(config, "config", {}, path), OPTIONS),
        (read_keys(config, "model", {}, path), MODEL),
        (read_keys(config["config"], "episodes", {}, path), EPISODE_OPTIONS),
    )
    for values, hints in parts:
        check_types(values, hints, path)
    return config


def read_keys(values: dict[str, Any], name: str, keys: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The object `name` in another object, or {}. Raises `InputError` if it lacks one of `keys`."""
    part: dict[str, Any] = typed(dict[str, Any], values.get(name, {}), str(path), name)
    if missing := sorted({*keys} - {*part}):
        raise InputError(f"{path}: {name} has no {', '.join(missing)}. Was it edited by hand?")
    return part


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` for a value that exists and does not have its type."""
    for name, hint in hints.items():
        if name in values:
            typed(hint, values[name], str(path), name)


def read_object(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read the JSON object in a file. Raises `InputError` if it lacks one of `keys`."""
    values = read_json(path)
    missing = [key for key in keys if not isinstance(values, dict) or key not in values]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing. Was the file written by another version?")
    return dict(values)


def _check_scoring(folder: RunFolder) -> None:
    """Raise `InputError` if predictions lack the scores of --scoring in config.json; a server may give replies only."""
    scoring, first = folder.config["config"].get("scoring"), folder.predictions[0]
    wanted = {"likelihood": (True, False), "both": (True, True), "generate": (False, True), "lcl-legacy": (False, True)}
    there = bool(first.candidates), first.reply is not None
    if scoring not in wanted or there == wanted[scoring] or (folder.served and there == (False, True)):
        return
    raise InputError(
        f"{folder.path / 'predictions.jsonl'}: has {'no ' * (not there[0])}likelihoods and "
        f"{'no ' * (not there[1])}replies, but config.json has --scoring {scoring}. "
        "The files are of different runs."
    )


def _present(run: Path, name: str) -> Path:
    if not (run / name).is_file():
        beside = [each for each in run.parent.iterdir() if each.is_dir()] if run.parent.is_dir() else []
        hint = "" if run.is_dir() else did_you_mean_path(run, beside)
        raise InputError(f"{run / name} is not there.{hint} Give the folder that `linkcontext eval --out` has written.")
    return run / name


def _records(kind: type[Record], path: Path, whole_lines: bool = False) -> tuple[Record, ...]:
    records = tuple(read_jsonl(kind, path, whole_lines))
    if not records:
        raise InputError(f"{path} is empty. Let `linkcontext eval` finish into this folder first.")
    return records
