"""What a pack saves: one question about one picture, with the support's keys and values at hand and without.

Run: `python benchmarks/bench_ask.py`; `--toy` for a dry run. mini is taught five things with 16 pictures each. The same
questions are answered turn about from a pack; by a learner that has the features of the support's pictures and runs
the support again; and by one that is taught anew, pictures and all. Their probabilities are compared. Prints a table
and writes benchmarks/results/ask.json with the command, the date and the machine.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table

from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.storage import write_text
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack


@dataclass
class AskBench:
    """Measure asking."""

    data: str = "world:3"
    classes: int = 5
    shots_per_class: int = 16
    questions: int = 20
    toy: bool = False
    """A dry run: nothing written to benchmarks/results."""


def main() -> None:
    bench = tyro.cli(AskBench, description=__doc__)
    if bench.toy:
        bench.shots_per_class, bench.questions = 2, 2
    about, dataset, model = machine("cpu"), open_data(bench.data), LocalModel(load_model("mini"))
    classes = list(dataset.by_class().values())[: bench.classes]
    named = {i[0].name: [dataset.path(one.id) for one in i[: bench.shots_per_class]] for i in classes}
    new = [dataset.path(one.id) for i in classes for one in i[bench.shots_per_class :]][: bench.questions + 1]

    def taught() -> Learner:
        learner = Learner(model)
        learner.teach(named)
        return learner

    with tempfile.TemporaryDirectory() as folder:
        size = write_pack(taught(), Path(folder) / "it.pack").path.stat().st_size
        packed, plain = (read_pack(Path(folder) / "it.pack").learner(model) for _ in range(2))

    def run_again(picture: Path) -> dict[str, float]:
        plain.computed.values.pop("prefix", None)  # the KV cache of the support
        return plain.ask(picture).probabilities

    ways = {
        "pack": lambda picture: packed.ask(picture).probabilities,
        "features kept": run_again,
        "taught anew": lambda picture: taught().ask(picture).probabilities,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    worst = 0.0
    for number, picture in enumerate(new):
        said = {}
        for name, ask in ways.items():
            start = time.perf_counter()
            said[name] = ask(picture)
            if number:  # the first question of each makes plans and buffers
                times[name].append(time.perf_counter() - start)
        worst = max(worst, *(abs(said["pack"][n] - other[n]) for other in said.values() for n in other))
    found = {name: statistics.median(values) for name, values in times.items()}
    table = Table("", "median ms", "fastest ms", "times the pack's")
    for name, values in times.items():
        table.add_row(
            name, f"{1e3 * found[name]:.1f}", f"{1e3 * min(values):.1f}", f"{found[name] / found['pack']:.1f}"
        )
    Console().print(table)
    print(f"probabilities differ by at most {worst:.1g}; the pack has {size / 1e6:.1f} MB")
    if not bench.toy:
        told = {"machine": about, "bench": vars(bench), "seconds": times, "difference": worst, "bytes": size}
        write_text(json.dumps(told, indent=1) + "\n", RESULTS / "ask.json")


if __name__ == "__main__":
    main()
