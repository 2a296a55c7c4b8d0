"""Cascade attention: the shared prefix once, without a mask, and each branch by itself.

Branches of one fork attend to the same trunk and not to each other, so that under one dense mask most of what a long
pass computes is thrown away. Here every token attends to the cached prefix without a mask, then to its own trunk or
branch, and the two softmaxes are combined by their log-sum-exp. The result is exact. The idea is known as shared-prefix
attention from Hydragen (arXiv 2402.05099) and as cascade attention from FlashInfer (arXiv 2501.01005); the combination
is that of FlashAttention (arXiv 2205.14135).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

NAME = "linkcontext_cascade"  # under which transformers knows the function


@contextmanager
def cascade_attention(network: PreTrainedModel, enabled: bool) -> Iterator[None]:
    """Inside the block, if `enabled`, the language model takes the masks that `attend` takes.

    Raises `KeyError` if transformers does not offer its usual attention to other functions.
    """
    text = network.config.get_text_config()
    usual = text._attn_implementation
    if enabled:
        AttentionInterface.register(NAME, attend)
        text._attn_implementation = NAME
    try:
        yield
    finally:
        text._attn_implementation = usual


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: float[1, n, heads, width].

    Args:
        module: the attention layer.
        query: float[1, heads, n, width].
        key: float[1, key heads, p + n, width], of which the first p are cached.
        value: like `key`.
        attention_mask: an additive float[g, 1, l, l]: the last g x l tokens are g branches, in each of which tokens
            attend to each other as the mask says. The tokens before them are a trunk, which is causal. All attend to
            the p cached ones. A mask over all keys, or None, means what it means elsewhere.
        options: `scaling`, and others for the usual attention.
    """
    if attention_mask is None or attention_mask.shape[-1] == key.shape[2]:
        usual = AttentionInterface()["sdpa"]
        output: tuple[Tensor, None] = usual(module, query, key, value, attention_mask, **options)
        return output
    repeats, scale = query.shape[1] // key.shape[1], options.get("scaling")
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    rows, _, length, _ = attention_mask.shape
    new = query.shape[2]
    cached, trunk = key.shape[2] - new, new - rows * length

    def branches(states: Tensor) -> Tensor:
        """The branches in [1, heads, n, width] as [g, heads, l, width]."""
        heads, width = states.shape[1], states.shape[3]
        return states[0, :, -rows * length :].view(heads, rows, length, width).transpose(0, 1)

    parts = []
    if trunk:
        own = slice(cached, cached + trunk)
        parts.append(_part(query[:, :, :trunk], key[:, :, own], value[:, :, own], scale, is_causal=True))
    if rows:
        own_query, own_key, own_value = (branches(states) for states in (query, key, value))
        states, sums = _part(own_query, own_key, own_value, scale, attn_mask=attention_mask)
        parts.append((states.flatten(0, 1)[None], sums.flatten(0, 1)[None]))
    states, sums = (torch.cat(pieces, 1) for pieces in zip(*parts, strict=True))
    if cached:
        prefix, prefix_sums = _part(query, key[:, :, :cached], value[:, :, :cached], scale)
        states = torch.lerp(states, prefix, torch.sigmoid(prefix_sums - sums)[..., None].to(states.dtype))
    return states, None


def _part(query: Tensor, key: Tensor, value: Tensor, scale: float | None, **mask: Any) -> tuple[Tensor, Tensor]:
    """States [rows, n, heads, width] and their log-sum-exp float32[rows, n, heads]."""
    # The public function does not return the second.
    states, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale, **mask)
    return states.transpose(1, 2), sums.transpose(1, 2)
