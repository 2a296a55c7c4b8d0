"""How the time and the memory of a sweep grow: to 1,000 pictures in the support, 100 ways, 10,000 queries, 1,000 names.

Run: `make bench-growth`, or `python benchmarks/growth.py`, five minutes on 2 cores; `--toy` for a dry run.

One episode of random weights (192 wide, 4 layers, 9 tokens a picture) is scored by `prefix-cache` with the pictures'
features at hand. One of four things grows, the others stay small. Every point is a process of its own, because the peak
of memory is that of a process. Beside each point stands the slope of log seconds over log size since the point before:
1 is linear, 2 quadratic. Writes benchmarks/results/growth.json and .png.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import tyro
from bench_tree import fit
from machine import COLOURS, RESULTS, Random, Setting, machine, peak, seconds, write
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

SHAPE = "llava-192"
AXES = {
    "pictures in the support": [(n, Setting(shots=(n // 2,), queries=8)) for n in (8, 32, 128, 512, 1000)],
    "ways, one picture each": [(n, Setting(n, (1,), 100, n)) for n in (2, 5, 10, 20, 50, 100)],
    "queries": [(n, Setting(queries=n)) for n in (32, 100, 1000, 10_000)],
    "names": [(n, Setting(queries=8, candidates=n)) for n in (2, 10, 100, 1000)],
}


@dataclass
class Growth:
    """Measure how a sweep grows."""

    repeats: int = 3
    """Of a point; the fastest counts."""
    patience: float = 20.0
    """Seconds above which a point is measured once."""
    out: Path = RESULTS
    toy: bool = False
    """The two smallest points of each; nothing is written to benchmarks/results."""
    point: str | None = None
    """Internal: measure one point, in a process of its own."""


def measure(config: Growth) -> dict:
    """One point: seconds of a sweep, peak of memory above the loaded model and its inputs, tokens."""
    subject = Random(SHAPE, "cpu")
    subject.hand = {}
    warm = subject.asks(Setting(shots=(1,), queries=2))
    subject.tree(warm, "prefix-cache")
    asks = subject.asks(Setting(**json.loads(config.point or "{}")))
    subject.hand = subject.features(asks)
    naive = sum(len(line.ids) for line in subject.stream(asks)[0])
    found: list[float] = []
    memory = peak(lambda: found.append(seconds(lambda: subject.tree(asks, "prefix-cache"))), "cpu")
    while len(found) < config.repeats and found[0] < config.patience:
        found.append(seconds(lambda: subject.tree(asks, "prefix-cache")))
    tokens = len(subject_tree(subject, asks))
    return {"branches": len(asks), "naive": naive, "tokens": tokens, "seconds": min(found), "peak": memory["above"]}


def subject_tree(subject: Random, asks: list):
    """The tree of the branches."""
    from linkcontext.inference.prefix_tree import merge  # noqa: PLC0415 - beside the clock

    return merge(subject.stream(asks)[0])


def main() -> None:
    config = tyro.cli(Growth, description=__doc__)
    if config.point is not None:
        print(json.dumps(measure(config)))
        return
    about, found, console = machine("cpu"), {}, Console()
    for axis, points in AXES.items():
        rows = []
        for size, setting in points[: 2 if config.toy else None]:
            command = [sys.executable, __file__, "--point", json.dumps(asdict(setting))]
            command += ["--repeats", str(config.repeats), "--patience", str(config.patience)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"size": size, **json.loads(run.stdout.splitlines()[-1])})
            print(f"  {axis} {size}: {rows[-1]['seconds']:.2f} s, {rows[-1]['peak'] / 1e6:.0f} MB", flush=True)
        sizes = [row["size"] for row in rows]
        fits = {what: fit(sizes, [row[what] for row in rows]) for what in ("seconds", "peak")} if len(rows) > 2 else {}
        found[axis] = {"points": rows, "fits": fits}
    console.print(table(found))
    if not config.toy:
        result = {"machine": about, "shape": SHAPE, "command": "python benchmarks/growth.py", "axes": found}
        write(config.out, "growth", result, plot(found))


def table(found: dict) -> Table:
    """All points, with slopes."""
    shown = Table("", "size", "branches", "tokens naive / tree", "seconds", "slope", "peak MB", "slope")
    for axis, each in found.items():
        before = None
        for row in each["points"]:
            slopes = ["", ""]
            if before is not None:
                ratio = log(row["size"] / before["size"])
                slopes = [f"{log(row[what] / max(before[what], 1e-9)) / ratio:.2f}" for what in ("seconds", "peak")]
            ideal = row["naive"] / row["tokens"]
            shown.add_row(axis if before is None else "", f"{row['size']:,}", f"{row['branches']:,}", f"{ideal:.1f}",
                          f"{row['seconds']:.2f}", slopes[0], f"{row['peak'] / 1e6:.0f}", slopes[1])  # fmt: skip
            before = row
        shown.add_section()
    return shown


def plot(found: dict) -> Figure:
    """Time and memory over size, both axes logarithmic, with straight lines of slope 1 and 2 to compare with."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = figure.subplots(2, len(found))
    for column, (axis, each) in enumerate(found.items()):
        sizes = [row["size"] for row in each["points"]]
        for panel, what, unit, scale in zip(panels[:, column], ("seconds", "peak"), ("s", "MB"), (1, 1e6), strict=True):
            values = [row[what] / scale for row in each["points"]]
            panel.loglog(sizes, values, "o-", color=COLOURS[0])
            for slope, style in ((1, ":"), (2, "--")):
                panel.loglog(sizes, [values[-1] * (size / sizes[-1]) ** slope for size in sizes], style, color="grey")
            panel.set(title=axis if what == "seconds" else "", ylabel=unit if column == 0 else "")
    figure.suptitle("a sweep with features at hand; grey: slopes 1 (dotted) and 2 (dashed)")
    return figure


if __name__ == "__main__":
    main()
