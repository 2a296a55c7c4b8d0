"""The last layer of a decoder only where its states are read.

Nothing follows the last layer but the logits, and few tokens have any. Every token gets keys and values there, because
others attend to it, but the feed-forward network, the larger part of a layer, is needed by those that are read alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from linkcontext.models.families import decoder_of, family_of

FEED_FORWARD, EXPERTS = "mlp", "experts"  # the names of a layer's feed-forward network and its experts in most families


@contextmanager
def last_states_of(network: PreTrainedModel, read: Tensor | None) -> Iterator[None]:
    """Inside the block the last layer's feed-forward network runs on the tokens bool[rows, n] that are read alone.

    It gives zeros for the others. None reads all. Families with another name for it, or with experts, compute all
    tokens, and so do layers that are computed again in the backward pass, when the block has been left.
    """
    mlp = None if read is None else _feed_forward(network)
    if read is None or mlp is None:
        yield
        return

    def select(_module: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (states[0][read][None], *states[1:])

    def spread(_module: nn.Module, _states: Any, output: Tensor) -> Tensor:
        return output.new_zeros(*read.shape, output.shape[-1]).index_put((read,), output[0])

    hooks = mlp.register_forward_pre_hook(select), mlp.register_forward_hook(spread)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _feed_forward(network: PreTrainedModel) -> nn.Module | None:
    """The feed-forward network of the last layer, if each token goes through it by itself, once."""
    if family_of(network.config).cross_attention is not None:  # its last layers are of several kinds
        return None
    layer: nn.Module = decoder_of(network).layers[-1]
    mlp = dict(layer.named_children()).get(FEED_FORWARD)
    again = torch.is_grad_enabled() and bool(vars(layer).get("gradient_checkpointing"))
    if mlp is None or again:
        return None
    # Experts may be chosen by more than the token's state, such as whether it belongs to an image.
    return None if any(name.split(".")[-1] == EXPERTS for name, _ in mlp.named_modules()) else mlp
