"""Start a run in a folder, or check that the run in it can be resumed.

config.json records the options (`config`), the data, the model, and what the figures measure (`measured`): digests of
weights, configuration, adapter, processor and chat template, the generation config, the scaffold's text and the
rendered prompts. If any of these has changed, the run is not resumed, because its figures would mix two measurements.
"""

import dataclasses
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from linkcontext.data.manifest import Dataset, digest
from linkcontext.episodes.scaffold import Message, Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.run_dir import flatten_options, measurement_differences
from linkcontext.jsonl import read_json, read_jsonl, write_jsonl
from linkcontext.scoring.connection import PREFIX
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.storage import holds_files, write_text
from linkcontext.versions import RUN, check_format

# Options that may change when a run is resumed, because figures do not depend on them.
FREE = ("out", "batch", "engine", "memory_gb", "explain", "unseen")
PACKAGES = ("linkcontext", "torch", "transformers", "tokenizers", "numpy", "pillow")


def run_identity(model: ScoringModel, scaffold: Scaffold, conversations: Iterable[Sequence[Message]]) -> dict[str, Any]:
    """The content of `measured` in config.json; `conversations` are a sample of the run's prompts."""
    identity = model.card.identity(conversations)
    prompts = identity.pop("prompts")
    return {**identity, "scaffold": dataclasses.asdict(scaffold), "prompts": prompts}


def check_same_measurement(out: Path, earlier: Any, now: dict[str, Any]) -> None:
    """Raise `InputError`, naming the changes, if the model or the prompts have changed since a run began."""
    if not isinstance(earlier, dict) or "weights" not in earlier:
        raise InputError(
            f"{out}: its config.json was written by an earlier version and does not say which weights, processor and "
            "prompts it measured, so they cannot be compared. Choose another --out, or remove it."
        )
    if changed := measurement_differences({"measured": earlier}, {"measured": json.loads(json.dumps(now))}):
        raise InputError(
            f"{out}: holds another run: since it began, {', '.join(changed)} changed. "
            "Give this run a folder of its own with --out, or remove that run."
        )


def check_same_records(path: Path, records: Sequence[Any]) -> None:
    """Raise `InputError` if a file has other episodes or questions: those of a benchmark may have changed."""
    if path.exists() and tuple(read_jsonl(type(records[0]), path)) != tuple(records):
        raise InputError(f"{path.parent}: holds a run with other {path.stem}. Choose another --out, or remove it.")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run and their defaults, as JSON values."""

    values: dict[str, Any]
    defaults: dict[str, Any]

    @classmethod
    def of(cls, config: Any, defaults: Any) -> "RunOptions":
        """From two dataclasses of options."""
        values, usual = (json.loads(json.dumps(dataclasses.asdict(each))) for each in (config, defaults))
        return cls(values, usual)

    def with_defaults(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Options from an earlier version, completed with the defaults of options that were added since."""
        whole = self.defaults | kept | {part: self.defaults[part] | kept[part] for part in ("model", "episodes")}
        return _bound(whole)


def open_run_dir(
    path: Path,
    records: Sequence[Any],
    options: RunOptions,
    model: ScoringModel,
    dataset: Dataset,
    problems: list[str],
    about: dict[str, Any],
) -> None:
    """Write config.json and the episodes or questions (at `path`) of a new run, or check that the folder has this run.

    `about` is its `run_identity`. An option that was added since the run began counts as its default. Raises
    `InputError` if the folder has another run or other files.
    """
    out, config_path = path.parent, path.with_name("config.json")
    data_digest = digest(dataset)
    if config_path.exists():
        kept = read_json(config_path)
        _refuse_other_options(config_path, kept, options, data_digest)
        check_same_records(path, records)
        check_same_measurement(out, kept.get("measured"), about)
        write_jsonl(records, path)
        return
    if holds_files(out):
        raise InputError(f"{out}: holds files that do not belong to a run. Choose another --out.")
    written = {
        "format": RUN,
        "command": "linkcontext " + " ".join(sys.argv[1:]),
        "config": options.values,
        "model": model.card.describe(),
        "measured": about,
        "data": {
            "spec": options.values["episodes"]["data"],
            "root": str(dataset.root),
            "digest": data_digest,
            "problems": problems,
        },
        "versions": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{p: version(p) for p in PACKAGES},
        },
    }
    write_text(json.dumps(written, indent=1) + "\n", config_path)
    write_jsonl(records, path)


def _refuse_other_options(config_path: Path, kept: Any, options: RunOptions, data_digest: str) -> None:
    """Raise `InputError` if the run has other options or other data, or its config.json is damaged."""
    if isinstance(kept, dict):
        check_format(kept.get("format"), RUN, str(config_path))
    out, now = config_path.parent, {"config": _bound(options.values), "data": data_digest}
    try:
        earlier = {"config": options.with_defaults(kept["config"]), "data": kept["data"]["digest"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{config_path}: damaged. Remove {out} or choose another --out.") from error
    if earlier != now:
        raise InputError(
            f"{out}: holds a run with another configuration ({_difference(earlier, now)}). "
            "Choose another --out, or remove it."
        )


def _bound(options: dict[str, Any]) -> dict[str, Any]:
    """The options that must not change when a run is resumed.

    Of a model behind servers the addresses may: what the servers report about it is compared.
    """
    bound = {name: value for name, value in options.items() if name not in FREE}
    if str(bound["model"]["model"]).startswith(PREFIX):
        served = str(bound["model"]["model"]).partition("#")[2]
        bound["model"] = {**bound["model"], "model": f"{PREFIX}#{served}"}
    return bound


def _difference(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    a, b = flatten_options(earlier), flatten_options(now)
    return ", ".join(
        f"{key} was {a.get(key)} and is {b.get(key)}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)
    )
