"""What the experiments share: where results go, training once, figures by row and seed, tables in Markdown."""

import sys
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import COLOURS, machine

from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import train

RESULTS = Path(__file__).parent
__all__ = ["COLOURS", "RESULTS", "Found", "cell", "learnt", "listed", "machine", "slim"]


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
        hits = (r["baselines"][policy] for r in self.rows if all(r.get(k) == v for k, v in wanted.items()))
        return next(hits, None)


def cell(values: list[float]) -> str:
    """The mean, and each seed's."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else ""
    return f"{fmean(values):.3f} ({', '.join(f'{v:.3f}'.lstrip('0') for v in values)})"


def listed(head: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"
