"""What the experiments share: where results go, training once, figures by row and seed, tables in Markdown."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import COLOURS, machine

from linkcontext.models import bundled
from linkcontext.storage import write_text
from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import train

RESULTS = Path(__file__).parent
ASIDE = ("out", "seeds", "only", "tables_only", "toy")  # options that change which rows there are, not their figures
__all__ = ["COLOURS", "RESULTS", "Found", "Results", "cell", "check_rows", "learnt", "listed", "machine", "refuse"]


def check_rows(only: tuple[str, ...], names: list[str]) -> None:
    """End with a sentence if `--only` has a row that is none."""
    for name in only:
        if name not in names:
            refuse(f"--only {name}: the rows are {', '.join(names)}.")


def refuse(sentence: str) -> NoReturn:
    """End with a sentence and the exit code of wrong input."""
    print(sentence, file=sys.stderr)
    sys.exit(2)


def learnt(config: TrainConfig) -> str:
    """The last checkpoint of a training."""
    last = Path(config.out) / f"checkpoint-{config.steps}"
    return str(last if (last / "config.json").exists() else train(config))


def slim(rows: list[dict]) -> list[dict]:
    """Rows as a file keeps them: without what is null, numbers to four places."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(each) for key, each in value.items() if each is not None}
        if isinstance(value, list):
            return [kept(each) for each in value]
        return round(value, 4) if isinstance(value, float) else value

    return [kept(row) for row in rows]


class Results:
    """The published results of a table, to which one machine after another adds rows.

    Rows that are there are not made again, as long as the options are those they were made with, and the bundled model
    too that a row began with: `began` tells its name.
    """

    def __init__(self, name: str, table: Any, began: Callable[[str], str]) -> None:
        self.file, self.options, self.began = f"{name}.json", json.loads(json.dumps(vars(table))), began
        listing = json.loads((bundled.weights_folder() / bundled.LISTING).read_text())["models"]
        self.models = {model: sha256(json.dumps(listing[model]["tensors"], sort_keys=True)) for model in listing}
        path = RESULTS / self.file
        kept = json.loads(path.read_text()) if path.is_file() else {}
        same = "models" in kept and self._figures(kept["table"]) == self._figures(self.options)
        self.machines: list[dict] = kept["machines"] if same else []
        self.rows = [{"seed": None} | row for row in kept["rows"] if self._is_of(kept, row)] if same else []

    @staticmethod
    def _figures(options: dict) -> dict:
        return {key: value for key, value in options.items() if key not in ASIDE}

    def _is_of(self, kept: dict, row: dict) -> bool:
        model = self.began(row["name"])
        return model in self.models and kept["models"].get(model) == self.models[model]

    def of(self, name: str, seed: int | None) -> list[dict]:
        """The figures of one row, none if it is not there."""
        return [row for row in self.rows if (row["name"], row["seed"]) == (name, seed)]

    def write(
        self, rows: list[dict], about: dict, folder: Path, shorter: Callable[[list[dict]], list[dict]] = list
    ) -> None:
        """Put rows into the folder's file, with those of other names and seeds, and the machines that made some."""
        given = {(row["name"], row["seed"]) for row in rows}
        others = [row for row in self.rows if (row["name"], row["seed"]) not in given]
        new = given - {(row["name"], row["seed"]) for row in self.rows}
        machines = [*self.machines, about] if new else self.machines
        used = {model: self.models.get(model) for model in {self.began(row["name"]) for row in rows + others}}
        made = {"machines": machines, "models": used, "table": self.options}
        write_text(json.dumps(made | {"rows": slim(shorter(rows + others))}) + "\n", folder / self.file)


def sha256(text: str) -> str:
    """The start of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Found:
    """All rows, to be asked for one figure at a time."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows
        self.names = list(dict.fromkeys(row["name"] for row in rows))

    def values(self, name: str, figure: str = "accuracy", **wanted: Any) -> list[float]:
        """A figure with each seed, in their order."""
        return [r[figure] for r in self.rows if r["name"] == name and all(r.get(k) == v for k, v in wanted.items())]

    def policy(self, policy: str, **wanted: Any) -> float | None:
        """What a baseline gives, which is the same in all rows: they share their pictures and mini-base's eyes."""
        hits = (r["baselines"].get(policy) for r in self.rows if all(r.get(k) == v for k, v in wanted.items()))
        return next(hits, None)


def cell(values: list[float]) -> str:
    """The mean, and each seed's."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else ""
    return f"{fmean(values):.3f} ({', '.join(f'{v:.3f}'.lstrip('0') for v in values)})"


def listed(head: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"
