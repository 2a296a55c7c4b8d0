"""One stage of a build: steps that depend on nothing but their number, checkpoints that resume to the same curve."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from linkcontext.errors import InputError
from linkcontext.models.tensor_file import read_tensors, write_tensors
from linkcontext.records import cut_log
from linkcontext.storage import append_line, write_errors

SAVE_EVERY = 60.0  # seconds
GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over a stage: linear warm-up, flat, then linear to 5 % over the last `fall` of it."""

    peak: float
    steps: int
    warmup: int = 100
    fall: float = 0.4

    def at(self, step: int) -> float:
        """The rate of a step."""
        up = min(1.0, (step + 1) / self.warmup)
        down = min(1.0, (self.steps - step) / max(1.0, self.fall * self.steps))
        return self.peak * up * (0.05 + 0.95 * down)


def optimizer(model: nn.Module, weight_decay: float = 0.05) -> torch.optim.AdamW:
    """AdamW; gains, biases and anything else of one dimension do not decay."""
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def run(
    name: str,
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    folder: Path,
    optim: torch.optim.Optimizer | None = None,
) -> None:
    """Train `model` for the schedule's steps, from where `folder` says it stopped.

    `loss(step)` gives the loss and figures to show. A loss that is not finite ends the run with its step. A group of
    `optim` that has a "scale" learns at that share of the schedule's rate. Raises `InputError` for a state that is
    damaged or of another shape, and if the disk fails.
    """
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    state, log = folder / f"{name}.state.safetensors", folder / f"{name}.log.jsonl"
    optim = optim or optimizer(model)
    start = _resume(state, model, optim)
    cut_log(log, start)
    saved = time.monotonic()
    with _progress(name, schedule.steps, start) as advance:
        for step in range(start, schedule.steps):
            for group in optim.param_groups:
                group["lr"] = schedule.at(step) * group.get("scale", 1.0)
            value, figures = loss(step)
            if not math.isfinite(value.item()):
                raise FloatingPointError(
                    f"stage {name}, step {step}: the loss is {value.item()}; lower the learning rate"
                )
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optim.step()
            optim.zero_grad(set_to_none=True)
            figures = {"loss": value.item(), **figures}
            advance(figures)
            append_line(json.dumps({"step": step, **{k: round(v, 5) for k, v in figures.items()}}), log)
            if time.monotonic() - saved > SAVE_EVERY or step + 1 == schedule.steps:
                _save(state, model, optim, step + 1)
                saved = time.monotonic()


def _save(path: Path, model: nn.Module, optim: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"model.{k}": v.clone() for k, v in model.state_dict().items()}
    for i, moments in optim.state_dict()["state"].items():
        tensors |= {f"optim.{i}.{k}": v for k, v in moments.items()}
    write_tensors(tensors, path, {"step": str(step)})


def _resume(path: Path, model: nn.Module, optim: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    about, tensors = read_tensors(path, "Remove it, and the stage begins anew.")
    if not re.fullmatch("[0-9]{1,9}", about.get("step", "")):
        raise InputError(f"{path}: is not the state of a stage. Remove it, and the stage begins anew.")
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise InputError(f"{path}: belongs to a model of another shape. Remove it or choose another --out.")
    model.load_state_dict(weights)
    state = optim.state_dict()
    for key, value in tensors.items():
        if key.startswith("optim."):
            _, i, name = key.split(".")
            state["state"].setdefault(int(i), {})[name] = value
    optim.load_state_dict(state)
    return int(about["step"])


@contextmanager
def _progress(name: str, steps: int, start: int) -> Iterator[Callable[[dict[str, float]], None]]:
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[figures]}")) as bar:
        task = bar.add_task(name, total=steps, completed=start, figures="")

        def advance(figures: dict[str, float]) -> None:
            bar.update(task, advance=1, figures="  ".join(f"{k} {v:.3f}" for k, v in figures.items()))

        yield advance
