"""Attention masks of forward passes over prefix trees."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.cascade_attention import BranchMask
from linkcontext.inference.prefix_tree import PrefixTree, gather
from linkcontext.inference.schedule import ForwardPass
from linkcontext.models.families import attention_kinds, bidirectional_kinds, is_causal

Row = tuple[PrefixTree, ForwardPass]


def tree_mask(network: PreTrainedModel, rows: Sequence[Row], length: int) -> Any:
    """The mask of one pass of each row, padded to `length` tokens: dense, or in blocks for FlexAttention."""
    attention = network.config.get_text_config()._attn_implementation
    straight = all(len(tree.segments) == 1 and not len(run.cached) for tree, run in rows)
    if straight and attention == "sdpa" and is_causal(network):  # padding is on the right, where no token attends to it
        return torch.ones(len(rows), length, dtype=torch.bool, device=network.device)
    metadata = np.stack([_pass_metadata(tree, run, length) for tree, run in rows], 1)
    number, subtree_end, depth, image = torch.from_numpy(metadata).to(network.device)
    queries = slice(number.shape[1] - length, None)
    if attention == "flex_attention":
        return _block_mask(number, subtree_end, length)
    q = number[:, queries, None]
    sees = (number[:, None] <= q) & (q < subtree_end[:, None])
    own_image = None
    if bidirectional_kinds(network):
        own_image = (image[:, queries, None] == image[:, None]) & (image[:, queries, None] >= 0)
    return layer_masks(network, sees, depth[:, queries, None] - depth[:, None], own_image)


def branch_mask(network: PreTrainedModel, tree: PrefixTree, run: ForwardPass) -> BranchMask:
    """The mask float[g, 1, l, l] within the branches of a pass, for cascade attention."""
    keys, queries = run.branches[:, None], run.branches[:, :, None]
    sees = torch.from_numpy((keys <= queries) & (queries < gather(tree.subtree_end, keys)))
    mask = torch.full(sees.shape, -torch.inf, dtype=network.dtype, device=network.device)
    return BranchMask.of(mask.masked_fill(sees.to(network.device), 0)[:, None], run.forks)


def layer_masks(
    network: PreTrainedModel, sees: Tensor, distance: Tensor, own_image: Tensor | None = None
) -> Tensor | dict[str, Tensor]:
    """The masks [rows, 1, queries, keys] that the network's layers take, by kind if there are several kinds.

    `sees` is bool[rows, queries, keys]. `distance`, int[rows, queries, keys], is how many tokens of its sequence a key
    lies before the query, which layers with a sliding window limit. `own_image`, bool[rows, queries, keys], are the
    keys in the query's own image, which some kinds of layers see whole.
    """
    text, bidirectional = network.config.get_text_config(), bidirectional_kinds(network)
    masks = {}
    for kind in attention_kinds(network):
        mask = sees | own_image if own_image is not None and kind in bidirectional else sees
        mask = mask if kind == "full_attention" else mask & (distance < text.sliding_window)
        if text._attn_implementation == "eager":  # which adds the mask to its scores
            lowest = torch.finfo(network.dtype).min
            mask = torch.where(mask, 0.0, lowest).to(network.dtype)
        masks[kind] = mask[:, None]
    return next(iter(masks.values())) if len(masks) == 1 else masks


def _block_mask(number: Tensor, subtree_end: Tensor, length: int) -> Any:
    """The tree mask as FlexAttention takes it, which skips blocks without a visible pair."""
    from torch.nn.attention.flex_attention import create_block_mask  # noqa: PLC0415 - only where it is used

    queries = number[:, number.shape[1] - length :].contiguous()

    def visible(row: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        mask: Tensor = (number[row, k] <= queries[row, q]) & (queries[row, q] < subtree_end[row, k])
        return mask

    check: Callable[..., Tensor] = visible
    return create_block_mask(check, len(number), None, length, number.shape[1], device=str(number.device))


def _pass_metadata(tree: PrefixTree, run: ForwardPass, length: int) -> NDArray[np.int64]:
    """int64[4, keys] of a pass padded to `length` tokens: number, subtree_end, depth, and the first token of the
    token's image or -1.

    Padding is -1 and attends to itself, because the softmax of no keys is not defined.
    """
    tokens = np.concatenate([run.cached, run.tokens, np.full(length - len(run.tokens), -1)])
    slot = gather(tree.slot, tokens, -1)
    image = np.where(slot >= 0, tokens - slot, -1)
    return np.stack([tokens, gather(tree.subtree_end, tokens), gather(tree.depth, tokens), image])
