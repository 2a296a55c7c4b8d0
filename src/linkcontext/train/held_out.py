"""The evaluation during training: accuracy by likelihood on held-out episodes of invented names."""

from collections.abc import Callable
from pathlib import Path
from statistics import StatisticsError, fmean
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from linkcontext.config import eval_config
from linkcontext.data.images import open_image
from linkcontext.episodes.scaffold import load_scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_configured
from linkcontext.evaluation.evaluator import Evaluator, predict_episodes
from linkcontext.evaluation.metrics import metric_rows
from linkcontext.inference.memory import free_memory
from linkcontext.inference.vision import VisionEncoder
from linkcontext.jsonl import parse_json
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.train.config import TrainConfig
from linkcontext.train.model import at_rest

Rows = list[dict[str, Any]]
HeldOutEvaluation = Callable[[Accelerator, nn.Module], Rows]


def held_out_evaluation(config: TrainConfig) -> HeldOutEvaluation | None:
    """What evaluates a model in training and returns rows as in metrics.json; None without --held-out.

    Every process of a training calls it. Raises `InputError` where the held-out data gives no episodes.
    """
    if config.held_out is None:
        return None
    dataset, wording = open_data(config.held_out), load_scaffold(config.scaffold)
    evaluation = eval_config(
        shots=config.held_out_shots,
        episodes=config.held_out_episodes,
        seed=config.seed,
        **({"tasks": config.held_out_tasks} if config.held_out_tasks else {"ways": config.ways}),
    )
    episodes = draw_configured(evaluation.episodes, dataset).episodes
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}

    def evaluate(accelerator: Accelerator, wrapped: nn.Module) -> Rows:
        trainee = accelerator.unwrap_model(wrapped)
        # FSDP gathers the weights in every forward, so that all processes must run the same forwards.
        together = isinstance(trainee, FSDPModule)
        free = torch.tensor([free_memory(trainee.model.device) / 1e9], device=accelerator.device)
        memory = float(accelerator.gather(free).min())
        # A step changes what a projector makes of a picture, and features from before it no longer hold.
        eyes = VisionEncoder(trainee.model, open_image) if trainee.eyes_learn else trainee.eyes
        evaluator = Evaluator(LocalModel(trainee.model, eyes, sources, memory_gb=memory), dataset, wording, True, False)
        mine = episodes if together else episodes[accelerator.process_index :: accelerator.num_processes]
        with at_rest(trainee):
            predictions = [prediction for episode in mine for prediction in predict_episodes(evaluator, [episode])]
        predictions = predictions if together else gather_object(predictions)
        rows = metric_rows({e.id: e for e in episodes}, predictions)
        return [row for row in rows if row["scoring"] == "likelihood_sum"]

    return evaluate


def is_reached(config: TrainConfig, rows: Rows) -> bool:
    """Whether the mean held-out accuracy is at least `--until`."""
    return config.until is not None and bool(rows) and fmean(row["accuracy"] for row in rows) >= config.until


def last_rows(path: Path) -> Rows:
    """The rows of the last line of held_out.jsonl; none where there is no such file.

    Raises `InputError` for a line without accuracies.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not lines:
        return []
    rows: Any = parse_json(lines[-1], f"{path}:{len(lines)}").get("rows")
    try:
        fmean(row["accuracy"] for row in rows)
    except (KeyError, TypeError, StatisticsError) as error:
        raise InputError(f"{path}:{len(lines)}: holds no rows of held-out figures. Remove the line.") from error
    return list(rows)
