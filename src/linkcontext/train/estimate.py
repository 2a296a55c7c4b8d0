"""Known trainings by name, and what one would take, from the configuration alone: no weights, no GPU, no hub.

linkcontext train --preset NAME --dry-run
"""

import dataclasses
import math
import platform
import time
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from linkcontext.config import ModelConfig
from linkcontext.episodes.scaffold import load_scaffold
from linkcontext.errors import InputError
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.models.families import PRESETS, parts, quantizable, unsupported_reason
from linkcontext.models.loading import device_named, load_processor
from linkcontext.models.synthetic_images import blank_image
from linkcontext.train import mixture
from linkcontext.train.config import TrainConfig
from linkcontext.train.model import choose
from linkcontext.train.samplers import Strategy

Rate = float | Literal["measure"]
TURN = 32  # tokens of a turn's words: a question, a name and the template's marks
# Bytes of a number in 4 bits: a byte of scale to 64 of them, and 4 bytes to 256 scales.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)


def with_preset(config: TrainConfig, name: str) -> TrainConfig:
    """The preset's options, but for what was asked for otherwise."""
    if name not in PRESETS:
        raise InputError(f"--preset {name}: there are {', '.join(PRESETS)}.")
    known, default = PRESETS[name], TrainConfig()
    options: dict[str, Any] = {"support": known.support, "names": "lcl", "negatives": "neighbours", "scaffold": "lcl"}
    options |= {"precision": "bf16", "gradient_checkpointing": True, "micro_batch": 1}
    options = {k: v for k, v in options.items() if getattr(config, k) == getattr(default, k)}
    if config.model.model == default.model.model:
        options["model"] = dataclasses.replace(config.model, model=known.model)
    return dataclasses.replace(config, **options)


def dry_run(config: TrainConfig, preset: str | None, gpus: int = 1, tflops: Rate | None = None) -> list[str]:
    """Lines that say what a training would take. `tflops` is the rate of one GPU, or "measure" for this machine's.

    Raises `InputError` for what could not be trained, and for numbers that cannot be.
    """
    if gpus < 1:
        raise InputError(f"--gpus {gpus}: at least one is needed.")
    if isinstance(tflops, float | int) and not 0 < tflops < math.inf:
        raise InputError(f"--tflops {tflops:g}: must be above 0.")
    known = PRESETS[preset] if preset is not None else None
    sizes = AutoConfig.for_model(known.model_type, **known.sizes) if known else _configuration(config.model)
    each = known.tokens_per_image if known else _picture(config.model)
    c = config
    strategy = Strategy(c.strategy, c.ways, c.support, c.queries, c.names, c.negatives, c.rule, c.split, c.seed)
    strategy.plan()
    mixture.shares(c.mixture)
    load_scaffold(c.scaffold)
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(sizes, dtype=torch.bfloat16)
        counts = {part: sum(p.numel() for p in found.values()) for part, found in parts(network).items()}
        packed = sum(layer.weight.numel() for layer in quantizable(network).values()) if c.model.load_in_4bit else 0
        choose(network, c.parts, c.lora_rank, c.lora_targets, c.seed)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    text, total = network.config.get_text_config(), sum(counts.values())
    turn = each + TURN
    longest = (c.support + 1) * turn
    if longest > text.max_position_embeddings:
        fits = text.max_position_embeddings // turn - 1
        raise InputError(
            f"a prompt of {c.support} support pictures and a query needs about {longest} tokens, and the model's "
            f"context is {text.max_position_embeddings}. Give --support {fits} or less."
        )
    mean = sum(count * chance for count, chance in strategy.chances().items())
    tokens = (mean + c.queries) * turn
    row = (c.support + c.queries) * turn * (c.micro_batch or max(1, c.batch // gpus))
    memory = _memory(c, text, trained, total, packed, row, gpus)
    # A pass forward costs 2 operations a number and token; backward as much for states, and for numbers that learn.
    passes = 2 + (not c.lora_rank) + c.gradient_checkpointing
    work = c.steps * c.batch * tokens * 2 * passes * counts["language"]
    why = unsupported_reason(network)
    lines = [
        f"model: {c.model.model}, {total / 1e9:.2f} billion numbers (vision {counts['vision'] / 1e9:.2f}, projector "
        f"{counts['projector'] / 1e9:.3f}, language {counts['language'] / 1e9:.2f}); {trained / 1e9:.3f} billion learn"
        + (f", {packed / 1e9:.2f} billion are kept in 4 bits" if packed else ""),
        f"an example: about {tokens:.0f} tokens ({each} a picture, {TURN} a turn's words, {mean:.1f} support pictures "
        f"and {c.queries} queries), at most {(c.support + c.queries) * turn}; the context is "
        f"{text.max_position_embeddings}",
        f"reads: {'trees, a support once' if why is None else f'one conversation at a time ({why})'}",
        f"memory per GPU, estimated: {memory / 1e9:.0f} GB with {gpus}, {c.micro_batch or 'all'} examples at once",
        f"steps: {c.steps} of {c.batch} examples, {c.steps * c.batch * tokens / 1e6:.1f} million tokens",
    ]
    if tflops is None:
        return [*lines, "hours: unknown. Give your GPU's rate with --tflops, or say --tflops measure on it."]
    said = "given"
    if tflops == "measure":
        tflops, name = _measured(c)
        said = f"measured on {name} ({'bfloat16' if c.precision == 'bf16' else 'float32'} matrix product)"
    hours = work / (gpus * tflops * 1e12) / 3600
    return [*lines, f"hours: at least {hours:.2g} at the {tflops:.3g} TFLOP/s {said} per GPU, language model only"]


def _measured(c: TrainConfig) -> tuple[float, str]:
    """TFLOP/s of a large square matrix product on the device, in the precision that is trained in, and its name."""
    device = device_named(c.model.device)
    gpu = device.type == "cuda"
    size = 8192 if gpu else 512
    a = torch.randn(size, size, device=device).to(torch.bfloat16 if c.precision == "bf16" else torch.float32)
    times = []
    for _ in range(4):  # the first is slower: libraries are loaded in it
        begun = time.perf_counter()
        a @ a
        if gpu:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    name = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} threads of {platform.machine()}"
    return 2 * size**3 / min(times) / 1e12, name


def _memory(c: TrainConfig, text: Any, trained: int, total: int, packed: int, row: int, gpus: int) -> float:
    """Bytes: numbers, gradients and moments in float32, what is frozen, states of a row, the mask, the logits."""
    frozen = 2 if c.lora_rank or c.model.dtype == "bfloat16" else 4
    held = 16 * trained + frozen * (total - trained) - (frozen - NF4) * packed
    if not packed:  # 4 bits are not sharded
        held /= gpus
    size = 2 if c.precision == "bf16" else 4
    layer = size * (12 * text.hidden_size + 3 * text.intermediate_size)
    states = row * (size * text.hidden_size * text.num_hidden_layers + layer)
    if not c.gradient_checkpointing:
        states = row * layer * text.num_hidden_layers
    return float(held + states + 2 * row * row + 12 * math.ceil(row / TURN) * text.vocab_size)


def _configuration(model: ModelConfig) -> Any:
    try:
        return AutoConfig.from_pretrained(model.model, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--model {model.model}: no configuration was found. Name a folder or a --preset.") from error


def _picture(model: ModelConfig) -> int:
    """How many tokens a picture has, of the processor's own size for a grey one."""
    made, said = (
        load_processor(model.model, model.trust_remote_code),
        [{"type": "image"}, {"type": "text", "text": "?"}],
    )
    text = ChatTemplate(made).apply_chat_template(
        [{"role": "user", "content": said}], tokenize=False, add_generation_prompt=False
    )
    whole = made(text=[text], images=[[blank_image(448)]], return_tensors="pt")["input_ids"].shape[1]
    return int(whole - len(ChatTemplate(made)(text, return_offsets_mapping=True)["input_ids"]) + 1)
