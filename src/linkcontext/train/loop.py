"""`linkcontext train`: the loop. A step depends on nothing but the configuration, its number and the numbers before.

The loss of a step is the sum over all learnt tokens of all its examples divided by how many they are, however they are
split over micro-batches and processes.
"""

import dataclasses
import importlib.util
import json
import logging
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import StatisticsError, fmean
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from linkcontext.config import eval_config
from linkcontext.data.images import open_image, sha256
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import mined
from linkcontext.data.sources import annotations, digest
from linkcontext.episodes.annotations import questions_about
from linkcontext.episodes.plan import TaskPlan
from linkcontext.episodes.pool import LeftOut
from linkcontext.episodes.questions import HELD_OUT, TaskSampler
from linkcontext.episodes.scaffold import SCAFFOLDS, load_scaffold, refuse_scaffold
from linkcontext.episodes.special_tokens import refuse_marked_names, refuse_marked_questions, refuse_marks
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_episodes
from linkcontext.evaluation.evaluator import Evaluator, predict_episodes
from linkcontext.evaluation.metrics import metric_rows
from linkcontext.evaluation.recall import refuse_marked_recall, without_refused_pictures
from linkcontext.evaluation.tasks.question_files import file_recall_test
from linkcontext.inference.memory import free_memory
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.families import parts
from linkcontext.models.loading import device_named, load
from linkcontext.models.model import Model
from linkcontext.models.unreadable import without_refused
from linkcontext.records import cut_log, parse_json, to_json
from linkcontext.scoring.identity import measured
from linkcontext.scoring.local import LocalModel
from linkcontext.seeds import key
from linkcontext.source import open_data
from linkcontext.storage import append_line, held
from linkcontext.train import checkpoint, mixture
from linkcontext.train.config import TrainConfig
from linkcontext.train.model import Trainee, at_rest, choose, read
from linkcontext.train.samplers import Lessons, Strategy, read_questions

log = logging.getLogger("linkcontext")
GRADIENT_NORM = 1.0
# What may change while a run goes on: the losses do not depend on it.
FREE = (
    *("out", "device", "micro_batch", "gradient_checkpointing", "save_every", "keep", "trackers"),
    *("max_new_tokens", "generation_config"),
    *("eval_every", "held_out", "held_out_tasks", "held_out_episodes", "held_out_shots", "until"),
)
Rows = list[dict[str, Any]]


def train(config: TrainConfig) -> Path:
    """Train, and write the run's folder; the last checkpoint. A folder that holds the same run goes on.

    Raises `InputError` for whatever cannot be trained, and where a loss is no number, naming step and examples.
    """
    accelerator = _accelerator(config)
    out = Path(config.out)
    with held(out) if accelerator.is_main_process else nullcontext():
        trainee = _trainee(config, accelerator)
        examples, longest, about = _examples(config, trainee.model)
        for check in examples.checks:
            check(trainee.model.marks)
        for example in longest:
            trainee.check(read(example, trainee.model.chat_template))
        exam = _exam(config)
        if accelerator.is_main_process:
            model = {"model": trainee.model.describe(), "measured": _measured(config, trainee.model)}
            checkpoint.claim(out, {**_told(config, about), **model}, FREE)
        accelerator.wait_for_everyone()
        wrapped, optimizer = accelerator.prepare(trainee, _optimizer(trainee, config))
        start = checkpoint.resume(trainee, optimizer.optimizer, out)
        if accelerator.is_main_process:
            for name in ("log.jsonl", "held_out.jsonl"):
                cut_log(out / name, start)
            if start:  # a run that was stopped, or whose disk failed, may not have come to it
                checkpoint.prune(out, start, config.keep)
        accelerator.init_trackers("linkcontext", {"config": json.dumps(dataclasses.asdict(config))})
        done, steps = start, start if _reached(config, _last(out / "held_out.jsonl")) else config.steps
        with _progress(config.steps, start, accelerator.is_main_process) as show:
            for step in range(start, steps):
                figures = _step(config, accelerator, wrapped, optimizer, examples, step)
                _write(accelerator, out / "log.jsonl", figures)
                accelerator.log({k: v for k, v in figures.items() if k != "step"}, step=step)
                last = step + 1 == config.steps
                if exam is not None and ((step + 1) % config.eval_every == 0 or last):
                    found = exam(accelerator, wrapped)
                    last = last or _reached(config, found)
                    _write(accelerator, out / "held_out.jsonl", {"step": step, "rows": found})
                    told = {f"held_out/{row['shots_per_class']}": row["accuracy"] for row in found}
                    accelerator.log(told, step=step)
                if (step + 1) % config.save_every == 0 or last:
                    checkpoint.save(accelerator, trainee, optimizer.optimizer, step + 1, out, config.keep)
                show({"loss": figures["loss"], "answers/s": figures["answers_per_second"]})
                done = step + 1
                if last:
                    break
        if not trainee.eyes_learn:
            trainee.eyes.save()
        accelerator.end_training()
    return out / f"checkpoint-{done}"


def check(config: TrainConfig) -> None:
    """Raise `InputError` for what a training is to learn from or be asked, without a model."""
    _examples(config)
    _exam(config)


def _reached(config: TrainConfig, found: Rows) -> bool:
    """Whether the held-out accuracy is what was wanted."""
    return config.until is not None and bool(found) and fmean(row["accuracy"] for row in found) >= config.until


def _last(path: Path) -> Rows:
    """The last rows of held-out figures, if there are any."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not lines:
        return []
    rows: Any = parse_json(lines[-1], f"{path}:{len(lines)}").get("rows")
    try:
        fmean(row["accuracy"] for row in rows)
    except (KeyError, TypeError, StatisticsError) as error:
        raise InputError(f"{path}:{len(lines)}: no rows of held-out figures. Remove the line.") from error
    return list(rows)


def rate(step: int, steps: int, warmup: float) -> float:
    """The share of the peak rate: a linear rise over `warmup` of the steps, then a cosine towards 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _step(
    config: TrainConfig,
    accelerator: Accelerator,
    wrapped: nn.Module,
    optimizer: Any,
    examples: mixture.Mixture,
    step: int,
) -> dict[str, float]:
    """One step; what log.jsonl tells of it."""
    begun = time.monotonic()
    torch.manual_seed(key("train", config.seed, "dropout", step, accelerator.process_index) % 2**63)
    numbers = deal(step, config.batch, accelerator.num_processes, config.micro_batch)
    words = accelerator.unwrap_model(wrapped).model.chat_template
    micro = [[read(examples.example(n), words) for n in batch] for batch in numbers[accelerator.process_index]]
    reads = [each for batch in micro for each in batch]
    own = torch.tensor([sum(r.asked for r in reads), sum(len(r.tokens) for r in reads)], device=accelerator.device)
    weight, answers = (int(value) for value in accelerator.reduce(own, "sum"))
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate(step, config.steps, config.warmup)
        rates[f"lr_{group['name']}"] = group["lr"]
    costs, tokens = [], 0
    for place, batch in enumerate(micro):
        with accelerator.no_sync(wrapped) if place + 1 < len(micro) else nullcontext():
            cost, count = wrapped(batch)
            # Gradients are averaged over processes; the sum is wanted.
            accelerator.backward(cost * (accelerator.num_processes / weight))
        costs.append(cost.detach().double())
        tokens += count
    gathered = accelerator.gather(torch.stack(costs))
    norm = accelerator.clip_grad_norm_(wrapped.parameters(), GRADIENT_NORM)
    costs_of = dict(zip((tuple(batch) for mine in numbers for batch in mine), gathered.tolist(), strict=True))
    bad = [n for batch, value in costs_of.items() if not math.isfinite(value) for n in batch]
    if bad or not math.isfinite(float(norm)):  # every process finds the same, so that all of them stop
        which = ", ".join(examples.example(n).id for n in bad or sorted(sum(costs_of, ())))
        raise InputError(
            f"step {step}: the {'loss' if bad else 'gradient'} is no number in the batch of {which}. "
            f"Nothing was changed by it; the last checkpoint in {config.out} is good. Lower --lr or use --precision no."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    took = time.monotonic() - begun
    total = int(accelerator.reduce(torch.tensor(tokens, device=accelerator.device), "sum"))
    return {
        "step": step,
        "loss": float(gathered.sum()) / weight,
        "tokens": total,
        "learnt": weight,
        "answers_per_second": answers / took,
        "gradient": float(norm),
        **rates,
    }


def deal(step: int, batch: int, processes: int, micro_batch: int | None) -> list[list[list[int]]]:
    """For each process its micro-batches of example numbers. Every process has as many, of one size.

    Raises `InputError` where a step cannot be dealt out evenly.
    """
    size = micro_batch or max(1, batch // processes)
    if batch % (processes * size):
        raise InputError(
            f"--batch {batch}: cannot be dealt out to {processes} processes, {size} examples at a time. "
            "Give a multiple of their product."
        )
    rounds = batch // (processes * size)
    first = step * batch
    starts = [[first + (r * processes + p) * size for r in range(rounds)] for p in range(processes)]
    return [[list(range(start, start + size)) for start in mine] for mine in starts]


def _accelerator(config: TrainConfig) -> Accelerator:
    for name in config.trackers:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--trackers {name}: the package is not installed: pip install {name}.")
    unused = DistributedDataParallelKwargs(find_unused_parameters="vision" in config.parts)
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else None,
        cpu=device_named(config.model.device).type == "cpu",  # without it CPUs would not meet
        log_with=list(config.trackers) or None,
        project_dir=config.out,
        kwargs_handlers=[unused],
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        if config.model.load_in_4bit:
            raise InputError("--load-in-4bit: 4 bits are not sharded. Launch without FSDP: every GPU holds the model.")
        accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False  # every process has read the weights
    deal(0, config.batch, accelerator.num_processes, config.micro_batch)
    return accelerator


def _pictures(spec: str, model: Model | None) -> Dataset:
    """A data set, without the pictures that the model's image processor refuses."""
    dataset = open_data(spec)
    return dataset if model is None else without_refused(dataset, [i.id for i in dataset.items], model, strict=False)


def _examples(
    config: TrainConfig, model: Model | None = None
) -> tuple[mixture.Mixture, list[mixture.Example], dict[str, Any]]:
    """The run's examples, the longest example of each task, and the digests and problems of the data."""
    shares = mixture.shares(config.mixture)
    wording = load_scaffold(config.scaffold)
    c = config
    digests: dict[str, str] = {}
    problems: list[str] = []
    strategy = Strategy(c.strategy, c.ways, c.support, c.queries, c.names, c.negatives, c.rule, c.split, c.seed)
    questions = read_questions(Path(config.questions)) if config.questions else ()
    count = config.steps * config.batch
    tasks: list[tuple[float, mixture.Task]] = []
    checks: list[mixture.Check] = [partial(refuse_scaffold, wording)]
    longest: list[mixture.Example] = []
    for name, share in shares.items():
        if name == "link":
            dataset = _pictures(c.data, model)
            near = mined(c.neighbours, dataset)
            lessons = Lessons.of(dataset, strategy, near, questions)
            problems += _problems(dataset, lessons.pool.left_out)
            digests |= {"link": digest(dataset), "link annotations": annotations(dataset)}
            checks += [partial(refuse_marks, text, where=f"{config.questions}") for text in questions]
            if config.names not in ("pseudo", "random"):
                checks.append(partial(refuse_marked_names, dataset.items))
            make = mixture.link(lessons, dataset, wording, c.supervise == "every")
            longest.append(make(0, config.support))
            tasks.append((share, make))
        elif name in ("icl", "letters"):
            pictures = _pictures(c.icl_data, model)
            plan = _talks(config, pictures)
            if name == "letters":
                plan = dataclasses.replace(plan, form="choice", said=True)
            sampler = TaskSampler.of(pictures, plan)
            make_talk = mixture.icl(sampler, pictures, wording, c.supervise != "query", c.turns, c.seed)
            problems += [problem for problem in _problems(pictures, sampler.left_out) if problem not in problems]
            digests |= {name: digest(pictures), f"{name} annotations": annotations(pictures)}
            checks.append(partial(refuse_marked_questions, pictures.items))
            longest.append(make_talk(0, max(c.turns)))
            tasks.append((share, make_talk))
        elif name == "taught":
            tasks.append((share, mixture.taught(config.seed)))
        else:
            exam = file_recall_test(Path(name), SCAFFOLDS["turns"], count, config.seed)
            exam = exam if model is None else without_refused_pictures(exam, LocalModel(model), strict=False)
            problems += exam.dataset.problems
            digests |= {name: digest(exam.dataset)}
            checks.append(partial(refuse_marked_recall, exam.questions))
            tasks.append((share, mixture.from_file(exam, Path(name), config.seed)))
    for problem in problems:
        log.warning(problem)
    mixed = dataclasses.replace(mixture.Mixture.of(tasks, count, config.seed), checks=tuple(checks))
    return mixed, longest, {"data": digests, "problems": problems}


def _problems(dataset: Dataset, left_out: Sequence[LeftOut]) -> list[str]:
    """What is wrong with a data set, and what of it is not trained on."""
    return [*dataset.problems, *(f"{out.class_id}: left out, {out.shortfall}" for out in left_out)]


def _talks(config: TrainConfig, pictures: Dataset) -> TaskPlan:
    """What the conversations are about: never the held-out types of tasks, unless they are named."""
    every = {question.task for item in pictures.items for question in questions_about(item)}
    return TaskPlan(
        tasks=config.tasks or tuple(sorted(every - set(HELD_OUT))),
        coherence=config.coherence,
        form=config.format,
        options=config.options,
        shots=config.turns,
        only=True,
        # Not the seed of an evaluation: its episodes are not to be trained on.
        seed=key("train", config.seed, "icl") % 2**62,
    )


def _trainee(config: TrainConfig, accelerator: Accelerator) -> Trainee:
    c = config.model
    # What is trained whole is kept in float32; under adapters the checkpoint's own numbers do.
    dtype = "float32" if c.dtype == "auto" and not config.lora_rank else c.dtype
    model = load(
        c.model, dtype, str(accelerator.device), c.adapter, c.trust_remote_code, c.load_in_4bit, prompting=c.prompting
    )
    if model.network.dtype != torch.float32 and accelerator.mixed_precision == "no":
        raise InputError(f"weights in {model.network.dtype} need --precision bf16, or --dtype float32.")
    scorer = LocalModel(model, VisionEncoder(model, open_image), {})
    why = scorer.choice.name_and_reason[1] if scorer.choice.whole_prompts else None  # the log says so too
    if why is None:
        scorer.choice.use_flex_attention(learns=True)
    choose(model.network, config.parts, config.lora_rank, config.lora_targets, config.seed)
    if config.gradient_checkpointing:
        _checkpoint_layers(model.network)
    trainee = Trainee(model, why)
    trainee.train()
    return trainee


def _checkpoint_layers(network: nn.Module) -> None:
    """Recompute each layer's activations in the backward pass.

    transformers' own method for it has another name in every version, and so the layers are marked here. Raises
    `InputError` for a transformers without the class of such layers.
    """
    try:
        from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"--gradient-checkpointing: transformers {version('transformers')} has no GradientCheckpointingLayer. "
            "Leave the flag out, or install another version."
        ) from error
    for module in network.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(torch_checkpoint, use_reentrant=False)


def _optimizer(trainee: Trainee, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW, a group for the language model and one for the rest; what has one dimension does not decay."""
    peaks = {"language": config.lr, "projector": config.projector_lr or config.lr}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for part, found in parts(trainee.network).items():
        for p in found.values():
            if p.requires_grad:
                groups.setdefault(("language" if part == "language" else "projector", p.ndim > 1), []).append(p)
    return torch.optim.AdamW(
        {"params": params, "name": name, "peak": peaks[name], "weight_decay": config.weight_decay * decays}
        for (name, decays), params in groups.items()
    )


def _told(config: TrainConfig, about: dict[str, Any]) -> dict[str, Any]:
    """What config.json says besides the model."""
    packages = ("linkcontext", "torch", "transformers", "accelerate", "numpy", "pillow")
    return {
        "command": "linkcontext " + " ".join(sys.argv[1:]),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),  # tuples as JSON has them
        **about,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _measured(config: TrainConfig, model: Model) -> dict[str, Any]:
    """Digests of what a training depends on besides its configuration and its pictures."""
    named = [config.questions, config.neighbours, *mixture.shares(config.mixture)]
    files = {name: sha256(Path(name)) for name in named if name is not None and Path(name).is_file()}
    return {**measured(model), "scaffold": dataclasses.asdict(load_scaffold(config.scaffold)), "files": files}


def _exam(config: TrainConfig) -> Callable[[Accelerator, nn.Module], Rows] | None:
    """The evaluation during training: accuracy by likelihood on held-out episodes of invented names."""
    if config.held_out is None:
        return None
    dataset, wording = open_data(config.held_out), load_scaffold(config.scaffold)
    wanted = eval_config(
        shots=config.held_out_shots,
        episodes=config.held_out_episodes,
        seed=config.seed,
        **({"tasks": config.held_out_tasks} if config.held_out_tasks else {"ways": config.ways}),
    )
    episodes = draw_episodes(wanted.episodes, dataset).episodes
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}

    def ask(accelerator: Accelerator, wrapped: nn.Module) -> Rows:
        trainee = accelerator.unwrap_model(wrapped)
        # Pieces of the model are gathered in every pass, so that every process must make the same passes.
        together = isinstance(trainee, FSDPModule)
        free = torch.tensor([free_memory(trainee.model.device) / 1e9], device=accelerator.device)
        memory = float(accelerator.gather(free).min())
        # What a projector made of a picture is old after a step.
        eyes = VisionEncoder(trainee.model, open_image) if trainee.eyes_learn else trainee.eyes
        evaluator = Evaluator(LocalModel(trainee.model, eyes, sources, memory_gb=memory), dataset, wording, True, False)
        mine = episodes if together else episodes[accelerator.process_index :: accelerator.num_processes]
        with at_rest(trainee):
            found = [prediction for episode in mine for prediction in predict_episodes(evaluator, [episode])]
        found = found if together else gather_object(found)
        return [row for row in metric_rows({e.id: e for e in episodes}, found) if row["scoring"] == "likelihood_sum"]

    return ask


def _write(accelerator: Accelerator, path: Path, figures: Mapping[str, Any]) -> None:
    if accelerator.is_main_process:
        append_line(to_json(figures), path)


@contextmanager
def _progress(steps: int, start: int, visible: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.fields[figures]}")
    with Progress(*columns, text, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task("", total=steps, completed=start, figures="")

        def show(figures: dict[str, float]) -> None:
            bar.update(task, advance=1, figures="  ".join(f"{k} {v:.3f}" for k, v in figures.items()))

        yield show
