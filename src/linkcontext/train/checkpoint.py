"""A run's folder: held by one process, written so that kill -9 at any moment leaves a whole checkpoint to go on from.

RUN/config.json            what was asked, of which model, on which data
RUN/log.jsonl              a line a step: loss, tokens, answers a second, rates
RUN/held_out.jsonl         a line an evaluation: the rows of metrics.json
RUN/checkpoint-N/          a model folder (adapters merged, no 4 bits), for `linkcontext eval --model RUN/checkpoint-N`
  training.safetensors     the trained parameters, the optimizer's moments and a digest; the rest follows from N
RUN/latest                 the name of the last whole checkpoint
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from linkcontext.errors import InputError
from linkcontext.evaluation.open_run import check_same_measurement
from linkcontext.jsonl import read_json
from linkcontext.models.saving import save_model
from linkcontext.models.tensor_file import DamagedError, checked_tensors, write_tensors
from linkcontext.storage import holds_files, read_errors, replacing, write_errors, write_text
from linkcontext.versions import TRAINING, check_format

STATE, LATEST = "training.safetensors", "latest"
SCALE = 2.0  # of an adapter: alpha over rank


def claim(out: Path, about: dict[str, Any], free: tuple[str, ...]) -> None:
    """Write config.json, or make sure that the folder holds this run. `free` are options that may change."""
    path = out / "config.json"
    if not path.exists():
        if holds_files(out):
            raise InputError(f"{out}: the folder is not empty, and it holds no training. Choose another --out.")
        write_text(json.dumps(about, indent=1) + "\n", path)
        return
    earlier = read_json(path)
    if isinstance(earlier, dict):
        check_format(earlier.get("format"), TRAINING, str(path))
    try:
        a, b = (
            _flat({**earlier["config"], "digest": earlier["data"]}),
            _flat({**about["config"], "digest": about["data"]}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged. Remove {out} or choose another --out.") from error
    differ = [k for k in sorted({*a, *b}) if k not in free and a.get(k) != b.get(k)]
    if differ:
        listed = ", ".join(f"{k} was {a.get(k)} and is {b.get(k)}" for k in differ)
        raise InputError(f"{out}: holds another training ({listed}). Choose another --out, or remove it.")
    check_same_measurement(out, earlier.get("measured"), about["measured"])


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def write_state(state: dict[str, Tensor], path: Path, step: int, model: str) -> None:
    """Write what `state_of` returned, the number of steps taken and the name of the model's class."""
    write_tensors(state, path, {"step": str(step), "model": model})


def state_of(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a training goes on from: `tensors`, which are parameters and buffers, and the optimizer's moments of them.

    The keys are "weights.NAME" and "optim.KIND.NAME". Every process of a sharded model has to call it.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        state[f"weights.{name}"] = _full(tensor)
        state |= {f"optim.{kind}.{name}": _full(value) for kind, value in optimizer.state.get(tensor, {}).items()}
    return state


def read_state(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Put the state at `path` into `tensors` and the optimizer; the number of steps taken.

    Raises:
        DamagedError: the file is cut short, damaged, or holds something else.
        InputError: the state is of tensors with other names or shapes.
    """
    try:
        with checked_tensors(path) as file:
            step, keys = int(file.metadata()["step"]), list(file.keys())
            weights = [k for k in keys if k.startswith("weights.")]
            shapes = {k.removeprefix("weights."): file.get_slice(k).get_shape() for k in weights}
            if shapes != {name: list(tensor.shape) for name, tensor in tensors.items()}:
                raise InputError(f"{path}: belongs to another model, or to other parts of it. Choose another --out.")
            for name, tensor in tensors.items():
                with torch.no_grad():
                    tensor.copy_(_like(tensor, file.get_tensor(f"weights.{name}")))
                kinds = [k.split(".")[1] for k in keys if k.startswith("optim.") and k.split(".", 2)[2] == name]
                if kinds:
                    moments = {kind: _like(tensor, file.get_tensor(f"optim.{kind}.{name}")) for kind in kinds}
                    optimizer.state[tensor] = moments
    except (InputError, DamagedError):
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(str(error)) from error
    return step


def save_checkpoint(accelerator: Accelerator, trainee: Any, optimizer: Any, step: int, out: Path, keep: int) -> None:
    """Write checkpoint-`step`. Every process takes part; the main one writes."""
    state = state_of(learning(trainee), optimizer)
    weights = _merged(trainee.network)
    if accelerator.is_main_process:
        folder = out / f"checkpoint-{step}"
        with replacing(folder) as new:
            save_model(trainee.network, trainee.model.processor, new, weights)
            write_state(state, new / STATE, step, type(trainee.network).__name__)
        write_text(folder.name + "\n", out / LATEST)
        prune(out, step, keep)
        with write_errors(out):
            for given_up in (path for path in checkpoints(out) if _step(path) > step):
                shutil.rmtree(given_up)  # of a run that went on from an earlier step
    accelerator.wait_for_everyone()


def prune(out: Path, step: int, keep: int) -> None:
    """Of the checkpoints up to a step, keep the last ones alone."""
    with write_errors(out):
        for old in [path for path in checkpoints(out) if _step(path) <= step][:-keep]:
            shutil.rmtree(old)


def resume(trainee: Any, optimizer: Any, out: Path) -> int:
    """Put the last checkpoint back; the step to go on with, 0 where there is none.

    Raises `InputError` for a checkpoint that is not there, cut short, or of another model.
    """
    pointer = out / LATEST
    if not pointer.exists():
        return 0
    with read_errors(pointer):
        last = out / pointer.read_text(encoding="utf-8", errors="replace").strip()
    try:
        if last not in checkpoints(out):
            raise DamagedError(f"{pointer} names no checkpoint")
        return read_state(learning(trainee), optimizer, last / STATE)
    except DamagedError as error:
        good = [other.name for other in checkpoints(out) if other != last and _is_good(other)]
        advice = f"No other checkpoint in {out} is good: remove {pointer} to begin anew, or choose another --out."
        if good:
            advice = f"{good[-1]} is good: write its name into {pointer} to go on from there."
        raise InputError(f"{last / STATE}: cut short or damaged ({error}). {advice}") from error


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints in a run's folder, the earliest first."""
    named = (path for path in out.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal())
    return sorted(named, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_good(folder: Path) -> bool:
    """Whether a checkpoint's state matches its digest."""
    try:
        with checked_tensors(folder / STATE):
            return True
    except DamagedError:
        return False


def learning(trainee: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by name; what is shared, once."""
    return {name: p for name, p in trainee.named_parameters() if p.requires_grad}


def _full(value: Tensor) -> Tensor:
    """The tensor on the CPU: gathered if it is sharded, dequantized if it is in 4 bits."""
    whole: Tensor = value.full_tensor() if isinstance(value, DTensor) else value
    if type(whole).__module__.startswith("bitsandbytes"):  # a private function of transformers, for 4 bits alone
        from transformers.integrations.bitsandbytes import dequantize_bnb_weight  # noqa: PLC0415

        whole = dequantize_bnb_weight(whole)
    return whole.detach().cpu()


def _like(p: Tensor, value: Tensor) -> Tensor:
    """Where `p` is, in pieces as `p` is; a number that counts steps stays where it is."""
    if value.shape != p.shape:
        return value
    value = value.to(p.device)
    return distribute_tensor(value, p.device_mesh, p.placements) if isinstance(p, DTensor) else value


def _merged(network: nn.Module) -> dict[str, Tensor]:
    """The network's numbers under their own names, W + SCALE B A where an adapter is."""
    whole: dict[int, Tensor] = {}  # tied weights stay tied
    state, given = {}, network.state_dict(keep_vars=True)
    for name, value in given.items():
        if name.rpartition(".weight.")[0] + ".weight" in given:
            continue  # the scales of a weight in 4 bits
        if id(value) not in whole:
            whole[id(value)] = _full(value)
        state[name] = whole[id(value)]
    for name in [name for name in state if ".base_layer." in name]:
        value, (at, kind) = state.pop(name), name.split(".base_layer.")
        if kind == "weight":
            a, b = (state.pop(f"{at}.lora_{side}.default.weight") for side in "AB")
            value = (value.float() + SCALE * (b @ a)).to(value.dtype)
        state[f"{at}.{kind}"] = value
    return state
