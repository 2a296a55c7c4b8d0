"""How much of a tree fits into memory at once."""

import psutil
import torch
from transformers import PreTrainedModel

from linkcontext.errors import InputError
from linkcontext.inference.engine import LOGITS, MIN_TOKENS


def room(network: PreTrainedModel, longest: int, memory: float, most: int) -> int:
    """How many tokens a pass may have, at most `most`, so that it fits into `memory` bytes beside a trunk of `longest`.

    An estimate from the configuration: keys and values, the states of one layer, the mask, the logits.
    """
    text = network.config.get_text_config()
    size = network.dtype.itemsize
    heads = text.num_attention_heads
    # Where a field is left out, the family's own code takes what stands here.
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * width * size
    wide = getattr(text, "intermediate_size", 4 * text.hidden_size)
    each = size * (8 * text.hidden_size + 3 * wide + 3 * heads * width)
    # A mask costs a byte a pair, and most kernels make numbers of it.
    pair = 1 + size + (heads * 4 if text._attn_implementation == "eager" else 0)

    def needed(tokens: int) -> float:
        return float(1.25 * kept * (longest + tokens) + tokens * (each + pair * (longest + tokens)) + 12 * LOGITS)

    tokens = most
    while tokens > MIN_TOKENS and needed(tokens) > memory:
        tokens //= 2
    if needed(tokens) > memory:
        raise InputError(
            f"{memory / 1e9:.3g} GB are too little: a support of {longest} tokens keeps "
            f"{1.25 * kept * longest / 1e9:.3g} GB of keys and values, and a pass over it needs "
            f"{needed(tokens) / 1e9:.3g} GB in all. Raise --memory-gb, use fewer shots, or half precision."
        )
    return tokens


def free_memory(device: torch.device) -> float:
    """Bytes that a run may take where nobody said: most of a GPU's free memory, half of a shared machine's."""
    if device.type == "cuda":
        return 0.8 * float(torch.cuda.mem_get_info(device)[0])
    return 0.5 * float(psutil.virtual_memory().available)
