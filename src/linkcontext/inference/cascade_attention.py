"""Attention of a pass in parts. Branches of one fork see the same trunk and nothing of each other: under one mask
most of what a long pass computes is thrown away. Here every token reads the trunk without a mask, then what is its
own in the pass, and the two softmaxes are joined by the sums they were divided by. Exact, as in FlashAttention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

NAME = "linkcontext_apart"  # what Transformers calls it


@contextmanager
def apart(network: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """While this lasts, the language model takes a mask of its branches alone (see `attend`), if `wanted`."""
    text = network.config.get_text_config()
    usual = text._attn_implementation
    if wanted:
        text._attn_implementation = NAME
    try:
        yield
    finally:
        text._attn_implementation = usual


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """Attention float[1, n, heads, width] of queries [1, heads, n, width] over keys [1, key heads, p + n, width].

    With an additive mask float[g, 1, l, l] the last g x l tokens are g branches, each of which sees of itself what
    the mask says; those before them follow one another; and all see the first p keys. A mask of all keys, or none,
    is what it is elsewhere.
    """
    if attention_mask is None or attention_mask.shape[-1] == key.shape[2]:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **given)
        return found
    groups, scale = query.shape[1] // key.shape[1], given.get("scaling")
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    rows, _, length, _ = attention_mask.shape
    new = query.shape[2]
    before, trunk = key.shape[2] - new, new - rows * length

    def side_by_side(states: Tensor) -> Tensor:
        """The branches in [1, heads, n, width] as [g, heads, l, width]."""
        heads, width = states.shape[1], states.shape[3]
        return states[0, :, -rows * length :].view(heads, rows, length, width).transpose(0, 1)

    parts = []
    if trunk:
        own = slice(before, before + trunk)
        parts.append(_part(query[:, :, :trunk], key[:, :, own], value[:, :, own], scale, is_causal=True))
    if rows:
        own_query, own_key, own_value = (side_by_side(states) for states in (query, key, value))
        states, sums = _part(own_query, own_key, own_value, scale, attn_mask=attention_mask)
        parts.append((states.flatten(0, 1)[None], sums.flatten(0, 1)[None]))
    states, sums = (torch.cat(pieces, 1) for pieces in zip(*parts, strict=True))
    if before:
        earlier, total = _part(query, key[:, :, :before], value[:, :, :before], scale)
        states = torch.lerp(states, earlier, torch.sigmoid(total - sums)[..., None].to(states.dtype))
    return states, None


def _part(query: Tensor, key: Tensor, value: Tensor, scale: float | None, **how: Any) -> tuple[Tensor, Tensor]:
    """States [rows, n, heads, width], and float32[rows, n, heads]: the logarithm of what they were divided by."""
    # The public function does not give the second.
    states, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale, **how)
    return states.transpose(1, 2), sums.transpose(1, 2)


AttentionInterface.register(NAME, attend)
