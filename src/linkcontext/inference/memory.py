"""How many tokens of a prefix tree, and how many images of a vision encoder, fit into memory at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.errors import InputError
from linkcontext.inference.engine import MIN_TOKENS
from linkcontext.inference.target_logprobs import LOGITS
from linkcontext.launch import count_on_machine
from linkcontext.models.families import cached_layers, setting

PATCH = 14  # pixels of a patch's edge, for vision towers that do not say it
SPARE = 1.25  # room for keys and values beside those that are kept


def max_tokens_per_pass(network: PreTrainedModel, longest: int, memory: float, most: int) -> int:
    """How many tokens a pass on top of `longest` cached ones may have to fit into `memory` bytes, at most `most`.

    An estimate from the configuration: keys and values, the states of one layer, the mask, the logits. `most` is halved
    until the pass fits. Raises `InputError` with the sum if not even a pass of `MIN_TOKENS` fits.
    """
    tokens = most
    while tokens > MIN_TOKENS and pass_bytes(network, longest, tokens) > memory:
        tokens //= 2
    if (needed := pass_bytes(network, longest, tokens)) > memory:
        kept = SPARE * longest * _key_value_bytes(network)
        raise InputError(
            f"{memory / 1e9:.3g} GB are too little: a support of {longest} tokens keeps {kept / 1e9:.3g} GB of keys "
            f"and values, and a pass over it needs {needed / 1e9:.3g} GB in all. Raise --memory-gb, use fewer shots, "
            "or half precision."
        )
    return tokens


def pass_bytes(network: PreTrainedModel, longest: int, tokens: int) -> float:
    """The estimated bytes of a pass of so many tokens on top of `longest` cached ones, and of the cache."""
    text, size = network.config.get_text_config(), network.dtype.itemsize
    heads = text.num_attention_heads
    widths = setting(text, "intermediate_size", 4 * text.hidden_size)
    intermediate = max(widths) if isinstance(widths, Sequence) else widths  # some have a width for each layer
    states = size * (8 * text.hidden_size + 3 * intermediate + 3 * heads * _head_width(network))
    # A mask takes a byte for each pair of tokens, and most kernels make numbers of it.
    pair = 1 + size + (heads * 4 if text._attn_implementation == "eager" else 0)
    cached = SPARE * _key_value_bytes(network) * (longest + tokens)
    return float(cached + tokens * (states + pair * (longest + tokens)) + 12 * LOGITS)


def image_bytes(network: PreTrainedModel, inputs: Mapping[str, Tensor]) -> float:
    """The estimated bytes that an image takes while the vision tower encodes it together with others.

    `inputs` are the processor's for this image. They count three times: those of several images are joined, and the
    processor needs as much again while it makes them. On top come the states of one layer of the tower for each patch.
    `tests/inference/test_memory.py` compares the sum with what towers take.
    """
    vision = setting(network.config, "vision_config") or network.config
    edges = setting(vision, "patch_size") or PATCH
    height, width = edges if isinstance(edges, list | tuple) else (edges, edges)
    numbers = max((part.numel() for part in inputs.values() if part.is_floating_point()), default=0)
    patches = numbers / (3 * height * width * (_largest(vision, "temporal_patch_size") or 1))
    wide = _largest(vision, "hidden_size", "embed_dim", "d_vision")
    inner = _largest(vision, "intermediate_size") or (_largest(vision, "mlp_ratio") or 4) * wide
    scores = 4 * patches if setting(vision, "_attn_implementation") == "eager" else 0.0
    heads = _largest(vision, "num_attention_heads", "num_heads")
    states = network.dtype.itemsize * (8 * wide + 3 * inner) + heads * scores
    return float(3 * sum(part.nbytes for part in inputs.values()) + patches * states)


def _largest(config: Any, *names: str) -> float:
    """The largest value of some fields; 0 if there is none. Towers of several stages have a list in a field."""
    values = [setting(config, name) for name in names]
    flat = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    return max((float(part) for part in flat if part is not None), default=0.0)


def free_memory(device: torch.device) -> float:
    """The bytes that a run takes by default: 80 % of a GPU's free memory, or half of what is free on a CPU's machine,
    which the processes of the machine share."""
    if device.type == "cuda":
        return 0.8 * float(torch.cuda.mem_get_info(device)[0])
    return 0.5 * float(psutil.virtual_memory().available) / count_on_machine()


def _key_value_bytes(network: PreTrainedModel) -> int:
    """The bytes of one token's keys and values in all layers."""
    text = network.config.get_text_config()
    heads = setting(text, "num_key_value_heads") or text.num_attention_heads
    return int(2 * cached_layers(network) * heads * _head_width(network) * network.dtype.itemsize)


def _head_width(network: PreTrainedModel) -> int:
    """The width of an attention head. Families without the field divide the width of the states."""
    text = network.config.get_text_config()
    return int(setting(text, "head_dim") or text.hidden_size // text.num_attention_heads)
