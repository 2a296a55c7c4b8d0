"""The training loop: steps that are logged, checkpointed and resumed. `linkcontext train` and recipes/mini share it.

A step depends on nothing but its number and on the parameters and moments that a checkpoint keeps, so that a run which
was stopped anywhere goes on to the same figures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from linkcontext.jsonl import to_json
from linkcontext.progress import progress
from linkcontext.storage import append_line

GRADIENT_NORM = 1.0  # gradients are scaled down to this 2-norm where theirs is larger

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Steps:
    """What a training does at each step.

    Attributes:
        name: what the progress is called.
        take: takes the step of this number, updates the parameters, and returns the step's figures.
        save: writes the checkpoint after so many steps.
        is_save_due: whether a checkpoint is written after the step of this number. After the last step one always is.
        log: the file that each step's figures are appended to, a JSON line a step; None in processes that write none.
        after: is called after each step with its number and figures; True ends the training.
        shown: the figures that the progress shows.
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
    with progress(run.name, steps, start, stays=True) as advance:
        for step in range(start, steps):
            figures = run.take(step)
            if run.log is not None:
                append_line(to_json(figures), run.log)
            is_last = run.after(step, figures) or step + 1 == steps
            if is_last or run.is_save_due(step):
                run.save(step + 1)
            advance(_note(run, figures))
            if is_last:
                return step + 1
    return start


def _note(run: Steps, figures: Figures) -> str:
    """The figures that the progress shows, as text."""
    values = {name.replace("_per_second", "/s"): figures[name] for name in run.shown if name in figures}
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
