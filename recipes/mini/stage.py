"""One stage of the recipe: an optimizer, a schedule and a folder for the training loop that `linkcontext train` has."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from linkcontext.errors import InputError
from linkcontext.jsonl import cut_log
from linkcontext.models.tensor_file import DamagedError
from linkcontext.storage import write_errors
from linkcontext.train.checkpoint import read_state, state_of, write_state
from linkcontext.train.schedule import warmup_stable_decay
from linkcontext.train.steps import GRADIENT_NORM, Figures, Steps, run_steps

SAVE_EVERY = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of a stage: a rise over `warmup` steps, `peak`, and a fall over the last two fifths."""

    peak: float
    steps: int
    warmup: int = 100

    def at(self, step: int) -> float:
        """The rate of a step."""
        return self.peak * warmup_stable_decay(step, self.steps, self.warmup)


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

    `loss(step)` returns the loss, a scalar, and figures to log. A group of `optim` that has a "scale" learns at that
    share of the schedule's rate.

    Raises:
        InputError: the state in `folder` is damaged or of another model, the disk fails, or a loss is not finite.
    """
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{name}.state.safetensors", folder / f"{name}.log.jsonl"
    optim = optim or optimizer(model)
    state = model.state_dict(keep_vars=True)  # buffers too, which some stages update
    # Tied weights are there under each of their names, and a file may have them once.
    tensors = dict({id(tensor): (name, tensor) for name, tensor in reversed(state.items())}.values())
    start = 0
    if path.exists():
        try:
            start = read_state(tensors, optim, path)
        except DamagedError as error:
            raise InputError(f"{path}: damaged ({error}). Remove it, and the stage begins anew.") from error
    cut_log(log, start)
    saved = time.monotonic()

    def take(step: int) -> Figures:
        for group in optim.param_groups:
            group["lr"] = schedule.at(step) * group.get("scale", 1.0)
        value, figures = loss(step)
        if not math.isfinite(value.item()):
            raise InputError(f"stage {name}, step {step}: the loss is {value.item()}. Lower the learning rate.")
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optim.step()
        optim.zero_grad(set_to_none=True)
        return {"step": step, "loss": value.item(), **figures}

    def save(step: int) -> None:
        nonlocal saved
        write_state(state_of(tensors, optim), path, step, type(model).__name__)
        saved = time.monotonic()

    run_steps(Steps(name, take, save, lambda step: time.monotonic() - saved > SAVE_EVERY, log), start, schedule.steps)
