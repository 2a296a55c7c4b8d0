"""Runs prefix trees on a network: the log-probability of every token that is scored, and prefilled prefixes.

A tree is computed in one forward pass, or in several with its trunk in a KV cache and its branches side by side; the
only difference is how many tokens a pass may have. `families.unsupported_reason` says which networks cannot be run so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.kv_cache import new_cache, truncate
from linkcontext.inference.schedule import ForwardPass, piece_end, schedule
from linkcontext.inference.target_logprobs import TargetLogprobs
from linkcontext.models.families import bidirectional_kinds

if TYPE_CHECKING:
    from transformers import Cache

# Tokens in a pass. Under one dense mask longer passes are no faster on a CPU and take more memory, because scores
# between branches are computed in vain. Cascade attention gains from longer passes.
CPU_MAX_TOKENS, CASCADE_MAX_TOKENS = 384, 768
GPU_MAX_TOKENS = 16384
MAX_BRANCH = 256  # tokens in a branch under cascade attention; longer ones get a trunk of their own
MIN_TOKENS = 16  # tokens in a pass, at least


@dataclass
class Engine:
    """A network, and how many tokens a forward pass over it has at most.

    With `max_branch`, branches of at most so many tokens are computed by cascade attention: for networks with full
    causal attention in all layers, on a CPU.
    """

    network: PreTrainedModel
    max_tokens: int
    max_branch: int | None = None

    @cached_property
    def forward(self) -> TreeForward:
        """The forward passes of the network."""
        return TreeForward(self.network, self.max_branch is not None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.forward.device

    def logprobs(self, inputs: TreeInputs) -> Tensor:
        """float64[T]: the log-probability (nats) of every token that is asked for, 0 elsewhere."""
        passes = self.passes(inputs, inputs.tree.inner)
        with self.session(inputs, passes, cached=len(passes) > 1) as cache:
            return self.targets(inputs, passes, cache)

    def targets(self, inputs: TreeInputs, passes: Sequence[ForwardPass], cache: "Cache | None") -> Tensor:
        """The same through these passes, inside of a session."""
        targets, read = TargetLogprobs(self.forward, inputs.tree), inputs.tree.predictors
        for run in passes:
            targets.add(run.tokens, self.hidden(inputs, run, cache, read))
        return targets.complete()

    def scores(self, inputs: TreeInputs) -> list[float]:
        """For each sequence the log-probability (nats) of the tokens that it asks for."""
        return inputs.tree.sums(self.logprobs(inputs).numpy())

    def prefill(self, inputs: TreeInputs, length: int) -> "Cache":
        """The keys and values of a tree's first `length` tokens, among which there is no fork.

        Those that are cached already are copied.
        """
        cache = new_cache(self.network, length)
        start = inputs.cached
        with torch.inference_mode():
            if inputs.cache is not None:
                for layer, old in zip(cache.layers, inputs.cache.layers, strict=True):
                    layer.update(old.keys[:, :, :start], old.values[:, :, :start])
            while start < length:
                end = piece_end(inputs.tree.slot[:length], start, self.max_tokens, self._whole_images)
                self.forward.hidden([(inputs, ForwardPass(np.arange(start), np.arange(start, end)))], cache)
                start = end
        return cache

    def passes(self, inputs: TreeInputs, compute: NDArray[np.bool_] | None = None) -> list[ForwardPass]:
        """The forward passes that compute the tree, or those of its tokens that `compute` bool[T] names."""
        return schedule(inputs.tree, self.max_tokens, self.max_branch, self._whole_images, compute, inputs.cached)

    @contextmanager
    def session(self, inputs: TreeInputs, passes: Sequence[ForwardPass], cached: bool) -> Iterator["Cache | None"]:
        """Inside the block the passes can be run without gradients. Gives their cache: that of the inputs, or an empty
        one if `cached`."""
        with torch.inference_mode():
            cache = inputs.cache
            if cache is None and cached:
                cache = new_cache(self.network, max(len(run.cached) + len(run.tokens) for run in passes))
            try:
                yield cache
            finally:
                if cache is not None:
                    truncate(cache, inputs.cached)

    def hidden(
        self, inputs: TreeInputs, run: ForwardPass, cache: "Cache | None", read: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """float[n, width]: the last layer's states of one pass, of the tokens bool[T] that are `read` at least.

        Its keys and values are then the last in the cache.
        """
        if cache is not None:
            truncate(cache, len(run.cached))
        return self.forward.hidden([(inputs, run)], cache, None if read is None else [read])[0]

    @property
    def _whole_images(self) -> bool:
        return bool(bidirectional_kinds(self.network))
