"""The training loop: steps that are logged, checkpointed and resumed. `linkcontext train` and recipes/mini share it.

A step depends on nothing but its number and on the parameters and moments that a checkpoint keeps, so that a run which
was stopped anywhere goes on to the same figures.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from linkcontext.jsonl import to_json
from linkcontext.storage import append_line

GRADIENT_NORM = 1.0  # gradients are scaled down to this 2-norm where theirs is larger

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Steps:
    """What a training does at each step.

    Attributes:
        name: what the progress bar is called.
        take: takes the step of this number, updates the parameters, and returns the step's figures.
        save: writes the checkpoint after so many steps.
        is_save_due: whether a checkpoint is written after the step of this number. After the last step one always is.
        log: the file that each step's figures are appended to, a JSON line a step; None in processes that write none.
        after: is called after each step with its number and figures; True ends the training.
        shown: the figures that the progress bar shows.
    """

    name: str
    take: Callable[[int], Figures]
    save: Callable[[int], None]
    is_save_due: Callable[[int], bool]
    log: Path | None
    after: Callable[[int, Figures], bool] = lambda step, figures: False
    shown: tuple[str, ...] = ("loss",)


def run_steps(run: Steps, start: int, steps: int) -> int:
    """Take the steps from `start` up to `steps`; how many have been taken when the training ends."""
    with _progress(run, start, steps) as advance:
        for step in range(start, steps):
            figures = run.take(step)
            if run.log is not None:
                append_line(to_json(figures), run.log)
            is_last = run.after(step, figures) or step + 1 == steps
            if is_last or run.is_save_due(step):
                run.save(step + 1)
            advance(figures)
            if is_last:
                return step + 1
    return start


@contextmanager
def _progress(run: Steps, start: int, steps: int) -> Iterator[Callable[[Figures], None]]:
    columns = (TextColumn(run.name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.fields[figures]}")
    with Progress(*columns, text, console=Console(stderr=True), disable=run.log is None) as bar:
        task = bar.add_task("", total=steps, completed=start, figures="")

        def advance(figures: Figures) -> None:
            values = {name.replace("_per_second", "/s"): figures[name] for name in run.shown if name in figures}
            bar.update(task, advance=1, figures="  ".join(f"{name} {value:.3f}" for name, value in values.items()))

        yield advance
