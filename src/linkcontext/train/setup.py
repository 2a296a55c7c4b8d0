"""What a training prepares: the accelerator, the model, and an optimizer for the parts that learn."""

import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint as torch_checkpoint
from transformers import PreTrainedModel

from linkcontext.data.images import open_image
from linkcontext.errors import InputError
from linkcontext.inference.cascade_attention import attention_named
from linkcontext.inference.vision import VisionEncoder
from linkcontext.launch import process_count
from linkcontext.models.families import parts
from linkcontext.models.loading import device_named, load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.train.config import TrainConfig
from linkcontext.train.model import Trainee, train_parts

log = logging.getLogger("linkcontext")


SHARDING = 2  # the version of FSDP that shards parameters as DTensors, which checkpoints gather
# In the messages of Gloo, NCCL and the launch's store.
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|MASTER_ADDR|client socket", re.IGNORECASE)


@contextmanager
def lost_processes() -> Iterator[None]:
    """Raise `InputError` if the block fails because another process has ended or cannot be reached."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:  # ValueError: a launch without an address
        if process_count() == 1 or not LOST.search(str(error)):
            raise
        why = re.sub(r"^\[[^]]*\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise InputError(
            f"another of the {process_count()} processes has ended, or cannot be reached ({why}). Run the same command "
            "again to resume from the last checkpoint."
        ) from error


def make_accelerator(config: TrainConfig) -> Accelerator:
    """The processes, precision and trackers of a training. Raises `InputError` for what is not there."""
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
    if wants_sharding() and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on GPUs only, and says nothing; what it does there runs on CPUs too.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    if accelerator.distributed_type == DistributedType.FSDP:
        if config.model.load_in_4bit:
            raise InputError(
                "--load-in-4bit: weights in 4 bits cannot be sharded. Launch without FSDP; "
                "every GPU then holds the model."
            )
        if accelerator.state.fsdp_plugin.fsdp_version != SHARDING:
            raise InputError(f"the launch asks for FSDP 1, and only FSDP 2 is supported. Set fsdp_version: {SHARDING}.")
        accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False  # every process has read the weights
    deal(0, config.batch, accelerator.num_processes, config.micro_batch)
    return accelerator


def wants_sharding() -> bool:
    """Whether the launch asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_sharded(model: nn.Module, processes: int) -> None:
    """Raise `InputError` if a launch with FSDP has left parameters whole in every process."""
    whole = [name for name, p in model.named_parameters() if not isinstance(p, DTensor)]
    if wants_sharding() and processes > 1 and whole:
        raise InputError(
            f"FSDP was asked for, and {len(whole)} parameters are whole in every process, such as {whole[0]}. Is the "
            "launch's configuration one of FSDP 2?"
        )


def deal(step: int, batch: int, processes: int, micro_batch: int | None) -> list[list[list[int]]]:
    """For each process its micro-batches of example numbers. Every process has as many, of one size.

    Raises `InputError` where a step cannot be dealt out evenly.
    """
    size = micro_batch or max(1, batch // processes)
    if batch % (processes * size):
        raise InputError(
            f"--batch {batch}: cannot be divided among {processes} processes, {size} examples at a time. "
            "Give a multiple of their product."
        )
    rounds = batch // (processes * size)
    first = step * batch
    starts = [[first + (r * processes + p) * size for r in range(rounds)] for p in range(processes)]
    return [[list(range(start, start + size)) for start in mine] for mine in starts]


def make_trainee(config: TrainConfig, accelerator: Accelerator) -> Trainee:
    """The model of a training, whose chosen parts learn. Raises `InputError` for one that cannot be trained so."""
    c = config.model
    # Small steps vanish in half precision; under adapters the frozen weights keep the checkpoint's own.
    dtype = "float32" if c.dtype == "auto" and not config.lora_rank else c.dtype
    model = load_model(
        c.model,
        dtype,
        str(accelerator.device),
        c.adapter,
        c.trust_remote_code,
        c.load_in_4bit,
        prompting=c.prompting,
        pictures=c.pictures,
    )
    if model.network.dtype != torch.float32 and accelerator.mixed_precision == "no":
        raise InputError(f"weights in {model.network.dtype} need --precision bf16, or --dtype float32.")
    scorer = LocalModel(model, VisionEncoder(model, open_image), {})
    why = scorer.choice.against_trees
    if why is not None and not scorer.choice.whole_prompts:
        log.warning("training reads one conversation at a time: %s", why)
    if why is None:
        scorer.choice.use_flex_attention(learns=True)
    train_parts(model.network, config.parts, config.lora_rank, config.lora_targets, config.seed)
    if config.gradient_checkpointing:
        checkpoint_layers(model.network)
    # Sharding casts what a layer is given, and is for GPUs.
    trainee = Trainee(model, why, cascade=why is None and not wants_sharding() and scorer.choice.learns_in_parts)
    if config.depth_first and not (trainee.cascade and accelerator.num_processes == 1):
        why = why or "it is for one process on a CPU, and models with full causal attention in all layers"
        raise InputError(f"--depth-first: {why}. Leave it out, or use --micro-batch 1 --gradient-checkpointing.")
    trainee.train()
    return trainee


def checkpoint_layers(network: PreTrainedModel) -> None:
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
            module._gradient_checkpointing_func = partial(
                torch_checkpoint, use_reentrant=False, context_fn=partial(_same_attention, network)
            )


def _same_attention(network: PreTrainedModel) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The context of a layer in the forward pass, and when it is computed again: with the attention of the first."""
    return nullcontext(), attention_named(network, network.config.get_text_config()._attn_implementation)


def make_optimizer(trainee: Trainee, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW, a group for the language model and one for the rest; what has one dimension does not decay."""
    peaks = {"language": config.lr, "projector": config.projector_lr or config.lr}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for part, named in parts(trainee.network).items():
        for p in named.values():
            if p.requires_grad:
                groups.setdefault(("language" if part == "language" else "projector", p.ndim > 1), []).append(p)
    return torch.optim.AdamW(
        {"params": params, "name": name, "peak": peaks[name], "weight_decay": config.weight_decay * decays}
        for (name, decays), params in groups.items()
    )
