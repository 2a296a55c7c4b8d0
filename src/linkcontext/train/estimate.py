"""Known trainings by name, and what one would take, from the configuration alone: no weights, no GPU, no hub.

linkcontext train --preset lcl-qwen2.5-vl-3b --dry-run
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
from linkcontext.models.families import packable, parts, unsupported_reason
from linkcontext.models.loading import ChatTemplate, device_named, grey, load_processor
from linkcontext.train import mixture
from linkcontext.train.config import TrainConfig
from linkcontext.train.model import choose
from linkcontext.train.samplers import Strategy

Rate = float | Literal["measure"]
TURN = 32  # tokens of a turn's words: a question, a name and the template's marks
# Bytes of a number in 4 bits: a byte of scale to 64 of them, and 4 bytes to 256 scales.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True, slots=True)
class Preset:
    """A model of the hub, its published sizes as its configuration class takes them, and tokens a picture."""

    model: str
    kind: str
    sizes: dict[str, Any]
    picture: int
    support: int = 16


def _text(kind: str, *numbers: int, **more: Any) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    sizes = dict(zip((*names, "vocab_size", "max_position_embeddings"), numbers, strict=True))
    return {"text_config": {"model_type": kind, **sizes}, **more}


def _siglip(layers: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304, "image_size": 384}
    return {**sizes, "num_hidden_layers": layers, "patch_size": 14, **more}


def _qwen(kind: str, width: int, eyes: dict[str, Any], *numbers: int, **more: Any) -> dict[str, Any]:
    return _text(kind, width, *numbers, vision_config={"out_hidden_size": width, **eyes}, **more)


_LLAVA = _text("llama", 4096, 32, 32, 32, 11008, 32064, 4096)
_ONEVISION = _text(
    "qwen2", 3584, 28, 28, 4, 18944, 152000, 32768,
    vision_config=_siglip(26, model_type="siglip_vision_model", vision_use_head=False),
)  # fmt: skip
_SMOL = _text("llama", 2048, 24, 32, 32, 8192, 49155, 16384, vision_config=_siglip(27), scale_factor=3)
_EYES = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32}
_QWEN_3B = _qwen("qwen2_5_vl_text", 2048, _EYES, 36, 16, 2, 11008, 151936, 128000, tie_word_embeddings=True)
_QWEN_7B = _qwen("qwen2_5_vl_text", 3584, _EYES, 28, 28, 4, 18944, 152064, 128000)
_DEEP = {"deepstack_visual_indexes": [8, 16, 24]}
_QWEN3_8B = _qwen("qwen3_vl_text", 4096, _DEEP, 36, 32, 8, 12288, 151936, 262144)
# Qwen's tokens a picture are those of 448 x 448 pixels. Five pictures and a query are what LLaVA-1.5 has room for.
PRESETS = {
    "lcl-llava-1.5-7b": Preset("llava-hf/llava-1.5-7b-hf", "llava", _LLAVA, 576, support=5),
    "lcl-llava-onevision-7b": Preset("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision", _ONEVISION, 730),
    "lcl-qwen2.5-vl-3b": Preset("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", _QWEN_3B, 258),
    "lcl-qwen2.5-vl-7b": Preset("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", _QWEN_7B, 258),
    "lcl-qwen3-vl-8b": Preset("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", _QWEN3_8B, 198),
    "lcl-smolvlm": Preset("HuggingFaceTB/SmolVLM-Instruct", "idefics3", _SMOL, 83),
}


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
    sizes = AutoConfig.for_model(known.kind, **known.sizes) if known else _configuration(config.model)
    each = known.picture if known else _picture(config.model)
    c = config
    strategy = Strategy(c.strategy, c.ways, c.support, c.queries, c.names, c.negatives, c.rule, c.split, c.seed)
    strategy.plan()
    mixture.shares(c.mixture)
    load_scaffold(c.scaffold)
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(sizes, dtype=torch.bfloat16)
        counts = {part: sum(p.numel() for p in found.values()) for part, found in parts(network).items()}
        packed = sum(layer.weight.numel() for layer in packable(network).values()) if c.model.load_in_4bit else 0
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
    whole = made(text=[text], images=[[grey(448)]], return_tensors="pt")["input_ids"].shape[1]
    return int(whole - len(ChatTemplate(made)(text, return_offsets_mapping=True)["input_ids"]) + 1)
