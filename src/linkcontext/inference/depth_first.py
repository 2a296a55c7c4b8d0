"""Gradients of a prefix tree of any size, with no more in memory than one path from the root and one pass.

The tree is gone through depth first (`schedule`). A trunk is first run without gradients, and its keys and values are
kept. Branches on it are run with gradients and at once backwards, which leaves the gradients of those keys and values.
When nothing is left that attends to it, the trunk is run again, now with gradients, and backwards from its own loss and
from what the branches have left. Each token's gradients are those of the plain backward pass, in another order of
summation. It costs a second forward pass of the trunks, which many branches make a small part of the whole.

Depth-first training on a trie is known from AReaL, for text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import TokenLosses, pass_losses
from linkcontext.inference.schedule import ForwardPass, schedule
from linkcontext.models.families import cached_layers, decoder_of


@dataclass(frozen=True, slots=True)
class TreeCost:
    """What a tree costs: sums over its sequences."""

    nats: float  # of all supervised tokens
    tokens: int  # how many supervised tokens
    right: int  # of how many of them the model finds most likely
    computed: int  # how many tokens went through the network, in both directions


def add_gradients(
    network: PreTrainedModel, inputs: TreeInputs, max_tokens: int, max_branch: int, scale: float = 1.0
) -> TreeCost:
    """Add the gradients of `scale` times the sum of a tree's losses to those of the network, depth first.

    For networks with full causal attention on a CPU. A pass has at most `max_tokens` tokens, and a branch at most
    `max_branch`. Gradients also reach what made the features of the images.
    """
    return _DepthFirst(TreeForward(network, cascade=True), inputs, scale).run(max_tokens, max_branch)


class _PathLayer(DynamicLayer):  # type: ignore[misc] # transformers has no types
    """Keys and values of one path in one layer, and their gradients, [1, heads, capacity, head width] each."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0
        self.stored: tuple[Tensor, Tensor] | None = None
        self.gradients: tuple[Tensor, Tensor] | None = None
        self.new: tuple[Tensor, Tensor]
        self.leaves: list[Tensor] = []  # the path as the last pass took it

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """The path's keys and values with those of a pass behind them [1, heads, length + n, head width]."""
        self.new = key_states, value_states
        if self.stored is None or self.gradients is None:
            shape = *key_states.shape[:2], self.capacity, key_states.shape[-1]
            self.stored = key_states.new_zeros(shape), value_states.new_zeros((*shape[:3], value_states.shape[-1]))
            # In float32 whatever the states are: thousands of branches add to them.
            self.gradients = torch.zeros_like(self.stored[0]).float(), torch.zeros_like(self.stored[1]).float()
        self.leaves = [stored[:, :, : self.length].detach() for stored in self.stored]
        if torch.is_grad_enabled():
            self.leaves = [leaf.requires_grad_() for leaf in self.leaves]
        key, value = (torch.cat([leaf, new], 2) for leaf, new in zip(self.leaves, self.new, strict=True))
        return (key, value) if self.length else self.new

    def keep(self) -> None:
        """Add the keys and values of the last pass to the path."""
        assert self.stored is not None
        assert self.gradients is not None
        end = self.length + self.new[0].shape[2]
        for new, stored, gradient in zip(self.new, self.stored, self.gradients, strict=True):
            stored[:, :, self.length : end] = new
            gradient[:, :, self.length : end] = 0
        self.length = end

    def collect(self) -> None:
        """Add what the last backward pass has left at the path to its gradients."""
        assert self.gradients is not None
        for leaf, gradient in zip(self.leaves, self.gradients, strict=True):
            if leaf.grad is not None:
                gradient[:, :, : self.length] += leaf.grad
        self.leaves = []

    def ends(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The last pass's first `count` keys and values, with the gradients that later passes have left for them."""
        assert self.gradients is not None
        for new, gradient in zip(self.new, self.gradients, strict=True):
            if new.requires_grad:
                yield new[:, :, :count], gradient[:, :, self.length : self.length + count].to(new.dtype)

    def get_seq_length(self) -> int:
        """The number of tokens in the path."""
        return self.length


@dataclass
class _DepthFirst:
    """The state of one walk through a tree."""

    forward: TreeForward
    inputs: TreeInputs
    scale: float
    cost: TreeCost = field(default=TreeCost(0.0, 0, 0, 0))

    def run(self, max_tokens: int, max_branch: int) -> TreeCost:
        """Go through the tree."""
        tree, images = self.inputs.tree, self.inputs.images
        passes = schedule(tree, max_tokens, max_branch, compute=tree.inner)
        self.inputs = replace(self.inputs, images=[_cut(image) for image in images])
        longest = max(len(run.cached) + len(run.trunk) for run in passes)
        self.cache = Cache(layers=[_PathLayer(longest) for _ in range(cached_layers(self.forward.network))])
        with _every_layer_once(self.forward.network):
            self._walk(passes)
        self._pass_on(images)
        return self.cost

    def _walk(self, passes: Sequence[ForwardPass]) -> None:
        waiting: list[ForwardPass] = []  # trunks that were run without gradients, the deepest last
        for run, following in zip(passes, [*passes[1:], None], strict=True):
            while waiting and len(waiting[-1].cached) >= len(run.cached):
                self._learn(waiting.pop(), attended=True)
            if following is not None and len(following.cached) > len(run.cached):
                self._fill(run)
                waiting.append(run)
            else:
                self._learn(run, attended=False)
        while waiting:
            self._learn(waiting.pop(), attended=True)

    def _fill(self, run: ForwardPass) -> None:
        """Compute a pass's trunk without gradients, and keep its keys and values."""
        self._cut_back(len(run.cached))
        with torch.no_grad():
            nothing = np.zeros(len(self.inputs.tree), np.bool_)
            self.forward.hidden([(self.inputs, ForwardPass(run.cached, run.trunk))], self.cache, [nothing])
            for layer in self.cache.layers:
                layer.keep()

    def _learn(self, run: ForwardPass, attended: bool) -> None:
        """Run a pass with gradients, and backwards. `attended` says that later passes attended to its trunk."""
        self._cut_back(len(run.cached))
        tree = self.inputs.tree
        states = self.forward.hidden([(self.inputs, run)], self.cache, [tree.predictors])[0]
        losses = pass_losses(self.forward, tree, run, states)
        ends = [end for layer in self.cache.layers for end in layer.ends(len(run.trunk))] if attended else []
        loss = (losses.nats * losses.weight).sum() * self.scale
        roots = [(loss, torch.ones_like(loss))] if loss.requires_grad else []
        if roots or ends:
            tensors, gradients = zip(*roots, *ends, strict=True)
            torch.autograd.backward(tensors, gradients)
        for layer in self.cache.layers:
            layer.collect()
        self._add(losses, len(run.tokens))

    def _cut_back(self, length: int) -> None:
        for layer in self.cache.layers:
            layer.length = length

    def _add(self, losses: TokenLosses, computed: int) -> None:
        weight, cost = losses.weight.double(), self.cost
        self.cost = TreeCost(
            cost.nats + float((losses.nats.detach().double() * weight).sum()),
            cost.tokens + int(weight.sum()),
            cost.right + int((losses.right * weight).sum()),
            cost.computed + computed,
        )

    def _pass_on(self, images: Sequence[ImageFeatures]) -> None:
        """Go on backwards behind the features of the images, once for the whole tree."""
        pairs = [
            (made, cut.grad)
            for image, leaf in zip(images, self.inputs.images, strict=True)
            for made, cut in ((image.embeddings, leaf.embeddings), (image.deepstack, leaf.deepstack))
            if made is not None and cut is not None and made.requires_grad and cut.grad is not None
        ]
        if pairs:
            tensors, gradients = zip(*pairs, strict=True)
            torch.autograd.backward(tensors, gradients)


@contextmanager
def _every_layer_once(network: PreTrainedModel) -> Iterator[None]:
    """Inside the block no layer is computed again in the backward pass: it would have no cache there."""
    layers = [layer for layer in decoder_of(network).layers if vars(layer).get("gradient_checkpointing")]
    for layer in layers:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True


def _cut(image: ImageFeatures) -> ImageFeatures:
    """The same features as leaves of the graph, which gather their own gradients."""
    embeddings, deepstack = (
        None if made is None else made.detach().requires_grad_(made.requires_grad)
        for made in (image.embeddings, image.deepstack)
    )
    assert embeddings is not None
    return replace(image, embeddings=embeddings, deepstack=deepstack)
