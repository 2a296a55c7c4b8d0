"""Known trainings by name, and what one would take, from the configuration alone: no weights, no GPU, no hub.

linkcontext train --preset NAME --dry-run
"""

import dataclasses
import math
import platform
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from linkcontext.config import ModelConfig
from linkcontext.episodes.scaffold import load_scaffold
from linkcontext.errors import InputError
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.models.families import PRESETS, maskless_kinds, parts, quantizable, unsupported_reason
from linkcontext.models.hub import is_local_only
from linkcontext.models.image_processors import most_pixels_before
from linkcontext.models.loading import device_named, load_processor
from linkcontext.models.picture_options import reduced
from linkcontext.models.synthetic_images import blank_image
from linkcontext.train import mixture
from linkcontext.train.config import TrainConfig
from linkcontext.train.examples import strategy_of
from linkcontext.train.model import train_parts

Rate = float | Literal["measure"]
TURN = 32  # tokens of a turn's words: a question, a name and the template's marks
# Bytes of a number in 4 bits: a byte of scale to 64 of them, and 4 bytes to 256 scales.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)


def with_preset(config: TrainConfig, name: str) -> TrainConfig:
    """The preset's options, but for what was asked for otherwise."""
    if name not in PRESETS:
        raise InputError(f"--preset {name}: no such preset. There are {', '.join(PRESETS)}.")
    known, default = PRESETS[name], TrainConfig()
    options: dict[str, Any] = {"support": known.support, "names": "lcl", "negatives": "neighbours", "scaffold": "lcl"}
    options |= {"precision": "bf16", "gradient_checkpointing": True, "micro_batch": 1}
    options = {k: v for k, v in options.items() if getattr(config, k) == getattr(default, k)}
    if config.model.model == default.model.model:
        options["model"] = dataclasses.replace(config.model, model=known.model)
    return dataclasses.replace(config, **options)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What a model is made of: parameters by part, how many learn, how many are stored in 4 bits."""

    text: Any  # the language model's configuration
    counts: dict[str, int]
    trained: int
    packed: int
    per_picture: int  # tokens
    why_whole: str | None  # why conversations are read one at a time; None for trees

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.counts.values())


def dry_run(config: TrainConfig, preset: str | None, gpus: int = 1, tflops: Rate | None = None) -> list[str]:
    """Lines that say what a training would take. `tflops` is the rate of one GPU, or "measure" for this machine's.

    Raises `InputError` for what could not be trained, and for numbers that cannot be.
    """
    if gpus < 1:
        raise InputError(f"--gpus {gpus}: at least one is needed.")
    if isinstance(tflops, float | int) and not 0 < tflops < math.inf:
        raise InputError(f"--tflops {tflops:g}: must be above 0.")
    c, strategy = config, strategy_of(config)
    strategy.plan()
    mixture.shares(c.mixture)
    load_scaffold(c.scaffold)
    sizes = _sizes(c, preset)
    turn = sizes.per_picture + TURN
    _refuse_long_support(c, sizes, turn)
    mean = sum(count * chance for count, chance in strategy.chances().items())
    tokens = (mean + c.queries) * turn
    row = (c.support + c.queries) * turn * (c.micro_batch or max(1, c.batch // gpus))
    lines = [
        _model_line(c, sizes),
        f"an example: about {tokens:.0f} tokens ({sizes.per_picture} a picture, {TURN} a turn's words, {mean:.1f} "
        f"support pictures and {c.queries} queries), at most {(c.support + c.queries) * turn}; the context is "
        f"{sizes.text.max_position_embeddings}",
        "reads: "
        + ("trees, a support once" if sizes.why_whole is None else f"one conversation at a time ({sizes.why_whole})"),
        f"memory per GPU, estimated: {_memory(c, sizes, row, gpus) / 1e9:.0f} GB with {gpus}, "
        f"{c.micro_batch or 'all'} examples at once",
        f"steps: {c.steps} of {c.batch} examples, {c.steps * c.batch * tokens / 1e6:.1f} million tokens",
    ]
    return [*lines, _hours_line(c, sizes, tokens, gpus, tflops)]


def _sizes(c: TrainConfig, preset: str | None) -> _Sizes:
    """What the model of a training is made of. No weights are read."""
    known = PRESETS[preset] if preset is not None else None
    model_config = AutoConfig.for_model(known.model_type, **known.sizes) if known else _configuration(c.model)
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(model_config, dtype=torch.bfloat16)
        counts = {part: sum(p.numel() for p in named.values()) for part, named in parts(network).items()}
        packed = sum(layer.weight.numel() for layer in quantizable(network).values()) if c.model.load_in_4bit else 0
        train_parts(network, c.parts, c.lora_rank, c.lora_targets, c.seed)
    return _Sizes(
        text=network.config.get_text_config(),
        counts=counts,
        trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
        packed=packed,
        per_picture=known.tokens_per_image if known else _picture(c.model),
        why_whole=unsupported_reason(network) or maskless_kinds(network),
    )


def _refuse_long_support(c: TrainConfig, sizes: _Sizes, turn: int) -> None:
    context = sizes.text.max_position_embeddings
    longest = (c.support + 1) * turn
    if longest > context:
        raise InputError(
            f"a prompt of {c.support} support pictures and a query needs about {longest} tokens, and the model's "
            f"context is {context}. Give --support {context // turn - 1} or less."
        )


def _model_line(c: TrainConfig, sizes: _Sizes) -> str:
    counts = sizes.counts
    return (
        f"model: {c.model.model}, {sizes.total / 1e9:.2f} billion numbers (vision {counts['vision'] / 1e9:.2f}, "
        f"projector {counts['projector'] / 1e9:.3f}, language {counts['language'] / 1e9:.2f}); "
        f"{sizes.trained / 1e9:.3f} billion learn"
        + (f", {sizes.packed / 1e9:.2f} billion are kept in 4 bits" if sizes.packed else "")
    )


def _hours_line(c: TrainConfig, sizes: _Sizes, tokens: float, gpus: int, tflops: Rate | None) -> str:
    """How long it takes at least: a forward pass costs 2 operations a parameter and token, a backward pass as much for
    activations, and as much again for the parameters that learn."""
    if tflops is None:
        return "hours: unknown. Give your GPU's rate with --tflops, or say --tflops measure on it."
    source = "given"
    if tflops == "measure":
        tflops, name = _measured(c)
        source = f"measured on {name} ({'bfloat16' if c.precision == 'bf16' else 'float32'} matrix product)"
    passes = 2 + (not c.lora_rank) + c.gradient_checkpointing
    work = c.steps * c.batch * tokens * 2 * passes * sizes.counts["language"]
    hours = work / (gpus * tflops * 1e12) / 3600
    return f"hours: at least {hours:.2g} at the {tflops:.3g} TFLOP/s {source} per GPU, language model only"


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


def _memory(c: TrainConfig, sizes: _Sizes, row: int, gpus: int) -> float:
    """Bytes: numbers, gradients and moments in float32, what is frozen, states of a row, the mask, the logits."""
    text, trained, total, packed = sizes.text, sizes.trained, sizes.total, sizes.packed
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
        return AutoConfig.from_pretrained(
            model.model, trust_remote_code=model.trust_remote_code, local_files_only=is_local_only(model.model)
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--model {model.model}: no configuration was found. Name a folder or a --preset.") from error


def _picture(model: ModelConfig) -> int:
    """How many tokens a picture has, of the processor's own size for a grey one."""
    processor = load_processor(model.model, model.trust_remote_code, model.pictures)
    grey = reduced(blank_image(448), most_pixels_before(processor.image_processor, model.pictures))
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}
    template = ChatTemplate(processor)
    text = template.apply_chat_template([message], tokenize=False, add_generation_prompt=False)
    output = processor(text=[text], images=[[grey]], return_tensors="pt", **model.pictures.arguments)
    whole = output["input_ids"].shape[1]
    return int(whole - len(template(text, return_offsets_mapping=True)["input_ids"]) + 1)
