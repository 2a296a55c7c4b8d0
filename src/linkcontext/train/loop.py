"""`linkcontext train`: one run. A step depends on nothing but the configuration, its number and the numbers before.

The loss of a step is the sum over all learnt tokens of all its examples divided by how many they are, however they are
split over micro-batches and processes.
"""

import dataclasses
import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from linkcontext.data.images import sha256
from linkcontext.episodes.scaffold import load_scaffold
from linkcontext.errors import InputError
from linkcontext.jsonl import cut_log, to_json
from linkcontext.models.model import Model
from linkcontext.scoring.identity import measured
from linkcontext.seeds import key
from linkcontext.storage import append_line, lock_folder
from linkcontext.train import checkpoint, mixture
from linkcontext.train.config import TrainConfig
from linkcontext.train.examples import open_examples
from linkcontext.train.held_out import HeldOutEvaluation, held_out_evaluation, is_reached, last_rows
from linkcontext.train.model import read
from linkcontext.train.schedule import cosine
from linkcontext.train.setup import check_sharded, deal, lost_processes, make_accelerator, make_optimizer, make_trainee
from linkcontext.train.steps import GRADIENT_NORM, Figures, Steps, run_steps
from linkcontext.versions import TRAINING

# What may change while a run goes on: the losses do not depend on it.
FREE = (
    *("out", "device", "micro_batch", "gradient_checkpointing", "depth_first", "save_every", "keep", "trackers"),
    *("max_new_tokens", "generation_config"),
    *("eval_every", "held_out", "held_out_tasks", "held_out_episodes", "held_out_shots", "until"),
)


def train(config: TrainConfig) -> Path:
    """Train, and write the run's folder; the last checkpoint. A folder that holds the same run goes on.

    Raises `InputError` for whatever cannot be trained, and where a loss is not finite, naming step and examples.
    """
    with lost_processes():
        return _train(config, make_accelerator(config))


def _train(config: TrainConfig, accelerator: Accelerator) -> Path:
    out = Path(config.out)
    with lock_folder(out) if accelerator.is_main_process else nullcontext():
        trainee = make_trainee(config, accelerator)
        data = open_examples(config, trainee.model)
        for check_texts in data.checks:
            check_texts(trainee.model.marks)
        for example in data.longest:
            trainee.check(read(example, trainee.model.chat_template))
        evaluation = held_out_evaluation(config)
        if accelerator.is_main_process:
            model = {"model": trainee.model.describe(), "measured": _measured(config, trainee.model)}
            about = {"data": data.digests, "problems": data.problems}
            checkpoint.claim(out, {**_about(config), **about, **model}, FREE)
        accelerator.wait_for_everyone()
        wrapped, optimizer = accelerator.prepare(trainee, make_optimizer(trainee, config))
        check_sharded(wrapped, accelerator.num_processes)
        start = checkpoint.resume(trainee, optimizer.optimizer, out)
        if accelerator.is_main_process:
            for name in ("log.jsonl", "held_out.jsonl"):
                cut_log(out / name, start)
            if start:  # a run that was stopped, or whose disk failed, may not have come to it
                checkpoint.prune(out, start, config.keep)
        accelerator.init_trackers("linkcontext", {"config": json.dumps(dataclasses.asdict(config))})
        examples = data.mixture(config.steps * config.batch, config.seed)
        run = _Run(config, accelerator, wrapped, optimizer, examples, evaluation)
        steps = start if is_reached(config, last_rows(out / "held_out.jsonl")) else config.steps
        done = run_steps(run.steps(), start, steps)
        if not trainee.eyes_learn:
            trainee.eyes.save()
        accelerator.end_training()
    return out / f"checkpoint-{done}"


def check(config: TrainConfig) -> None:
    """Raise `InputError` for what a training is to learn from or be asked, without a model."""
    open_examples(config)
    held_out_evaluation(config)


@dataclasses.dataclass
class _Run:
    """A prepared training in one process."""

    config: TrainConfig
    accelerator: Accelerator
    wrapped: nn.Module
    optimizer: Any  # of accelerate
    examples: mixture.Mixture
    evaluation: HeldOutEvaluation | None

    def steps(self) -> Steps:
        """What the training loop calls."""
        out = Path(self.config.out)
        return Steps(
            name="training",
            take=self.step,
            save=self._save,
            is_save_due=lambda step: (step + 1) % self.config.save_every == 0,
            log=out / "log.jsonl" if self.accelerator.is_main_process else None,
            after=self._evaluate,
            shown=("loss", "answers_per_second"),
        )

    def step(self, step: int) -> Figures:
        """Update the parameters; what log.jsonl records of it."""
        config, accelerator = self.config, self.accelerator
        begun = time.monotonic()
        torch.manual_seed(key("train", config.seed, "dropout", step, accelerator.process_index) % 2**63)
        numbers = deal(step, config.batch, accelerator.num_processes, config.micro_batch)
        template = accelerator.unwrap_model(self.wrapped).model.chat_template
        micro = [[read(self.examples.example(n), template) for n in b] for b in numbers[accelerator.process_index]]
        reads = [each for batch in micro for each in batch]
        own = torch.tensor([sum(r.learnt for r in reads), sum(len(r.tokens) for r in reads)], device=accelerator.device)
        weight, answers = (int(value) for value in accelerator.reduce(own, "sum"))
        rates = self._set_rates(step)
        losses, tokens = self._backward(micro, weight)
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), GRADIENT_NORM)
        self._refuse_not_finite(step, numbers, losses, float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        took = time.monotonic() - begun
        return {
            "step": step,
            "loss": float(losses.sum()) / weight,
            "tokens": int(accelerator.reduce(torch.tensor(tokens, device=accelerator.device), "sum")),
            "learnt": weight,
            "answers_per_second": answers / took,
            "gradient": float(norm),
            **rates,
        }

    def _set_rates(self, step: int) -> dict[str, float]:
        """Give each group of parameters its learning rate of this step; the rates by the groups' names."""
        rates = {}
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * cosine(step, self.config.steps, self.config.warmup)
            rates[f"lr_{group['name']}"] = group["lr"]
        return rates

    def _backward(self, micro: list[list[Any]], weight: int) -> tuple[torch.Tensor, int]:
        """Gradients of all micro-batches. Their losses (sums of nats) of all processes, and this one's tokens."""
        losses, tokens = [], 0
        for place, batch in enumerate(micro):
            is_last = place + 1 == len(micro)
            if self.config.depth_first:
                with self.accelerator.autocast():
                    loss, count = self.accelerator.unwrap_model(self.wrapped).add_gradients(batch, 1 / weight)
            else:
                with nullcontext() if is_last else self.accelerator.no_sync(self.wrapped):
                    loss, count = self.wrapped(batch)
                    # Gradients are averaged over processes, and the loss of a step is a sum over them.
                    self.accelerator.backward(loss * (self.accelerator.num_processes / weight))
            losses.append(loss.detach().double())
            tokens += count
        return self.accelerator.gather(torch.stack(losses)), tokens

    def _refuse_not_finite(self, step: int, numbers: list[list[list[int]]], losses: torch.Tensor, norm: float) -> None:
        """Raise `InputError` for a loss or gradient that is not finite. All processes see the same losses and stop."""
        loss_of = dict(zip((tuple(b) for batches in numbers for b in batches), losses.tolist(), strict=True))
        bad = [n for batch, value in loss_of.items() if not math.isfinite(value) for n in batch]
        if bad or not math.isfinite(norm):
            which = ", ".join(self.examples.example(n).id for n in bad or sorted(sum(loss_of, ())))
            raise InputError(
                f"step {step}: the {'loss' if bad else 'gradient'} is not finite in the batch of {which}. The "
                f"parameters were not updated, and the last checkpoint in {self.config.out} is good. Lower --lr or "
                "use --precision no."
            )

    def _evaluate(self, step: int, figures: Figures) -> bool:
        """Track the figures, and evaluate the model where it is due; whether it is as good as was wanted."""
        self.accelerator.log({k: v for k, v in figures.items() if k != "step"}, step=step)
        is_last = step + 1 == self.config.steps
        if self.evaluation is None or not (is_last or (step + 1) % self.config.eval_every == 0):
            return False
        rows = self.evaluation(self.accelerator, self.wrapped)
        _append(self.accelerator, Path(self.config.out) / "held_out.jsonl", {"step": step, "rows": rows})
        accuracies = {f"held_out/{row['shots_per_class']}": row["accuracy"] for row in rows}
        self.accelerator.log(accuracies, step=step)
        return is_reached(self.config, rows)

    def _save(self, step: int) -> None:
        trainee = self.accelerator.unwrap_model(self.wrapped)
        optimizer, out = self.optimizer.optimizer, Path(self.config.out)
        checkpoint.save_checkpoint(self.accelerator, trainee, optimizer, step, out, self.config.keep)


def _append(accelerator: Accelerator, path: Path, figures: Mapping[str, Any]) -> None:
    if accelerator.is_main_process:
        append_line(to_json(figures), path)


def _about(config: TrainConfig) -> dict[str, Any]:
    """What config.json says besides the data and the model."""
    packages = ("linkcontext", "torch", "transformers", "accelerate", "numpy", "pillow")
    return {
        "format": TRAINING,
        "command": "linkcontext " + " ".join(sys.argv[1:]),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),  # tuples as JSON has them
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _measured(config: TrainConfig, model: Model) -> dict[str, Any]:
    """Digests of what a training depends on besides its configuration and its pictures."""
    named = [config.questions, config.neighbours, *mixture.shares(config.mixture)]
    files = {name: sha256(Path(name)) for name in named if name is not None and Path(name).is_file()}
    return {**measured(model), "scaffold": dataclasses.asdict(load_scaffold(config.scaffold)), "files": files}
