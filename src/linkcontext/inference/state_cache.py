"""Prefix trees on the model's own cache, for networks whose layers cannot be told whom a token attends to.

Linear attention and convolutions carry a running state from token to token, and a state holds one past: branches cannot
be computed side by side under a mask. Here every stretch of the tree is the plain continuation of the one before it.
What sequences share is run once, and at a fork the cache is copied for each branch. Branches of equal length share a
forward pass, as the rows of a batch.

The network makes its own masks, and its cache class is that of its own `generate`, so whatever its layers keep is kept.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.greedy import GreedyReplies
from linkcontext.inference.kv_cache import cache_bytes
from linkcontext.inference.prefix_tree import Ints, PrefixTree
from linkcontext.inference.schedule import EMPTY, ForwardPass
from linkcontext.inference.target_logprobs import TargetLogprobs

if TYPE_CHECKING:
    from transformers import Cache


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Leaves that begin at one fork and are run side by side, or one segment that ends in a fork."""

    segments: list[int]
    forks: bool
    cache: "Cache"  # before the segments
    owned: bool  # nothing else needs the cache, so that it may be changed


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A piece of a batch that has been computed."""

    segments: list[int]
    tokens: Ints  # int64[rows, n]: -1 is padding
    hidden: Tensor  # float[rows, n, width]: the last layer's states
    cache: "Cache"  # behind these tokens
    is_last: bool  # the last piece of its batch
    ends: bool  # nothing follows, so that the cache may be changed


@dataclass
class StateEngine:
    """Runs prefix trees on a network, at most `max_tokens` tokens in a forward pass.

    Copies of the cache that are made for one batch of branches take at most `max_bytes`, but one is always made.
    """

    network: PreTrainedModel
    max_tokens: int
    max_bytes: float = 0

    @cached_property
    def forward(self) -> TreeForward:
        """The forward passes of the network."""
        return TreeForward(self.network, continues=True)

    def logprobs(self, inputs: TreeInputs) -> Tensor:
        """float64[T]: the log-probability (nats) of every token that is asked for, 0 elsewhere."""
        targets = TargetLogprobs(self.forward, inputs.tree)
        with torch.inference_mode():
            for run in self._runs(inputs, with_last=False):
                targets.add(run.tokens.ravel(), run.hidden.flatten(0, 1))
        return targets.values

    def scores(self, inputs: TreeInputs) -> list[float]:
        """For each sequence the log-probability (nats) of the tokens that it asks for."""
        values = self.logprobs(inputs)
        return [float(values[torch.from_numpy(tokens)].sum()) for tokens in inputs.tree.answers]

    def prefill(self, inputs: TreeInputs, length: int) -> "Cache":
        """The cache behind a tree's first `length` tokens, among which there is no fork."""
        with torch.inference_mode():
            cache = _new_cache(self.network) if inputs.cache is None else deepcopy(inputs.cache)
            for tokens in self._pieces(np.arange(inputs.cached, length)[None]):
                self._hidden(inputs, tokens, cache)
        return cache

    def decode(self, inputs: TreeInputs, replies: GreedyReplies) -> None:
        """Continue each sequence of the tree until its reply ends."""
        ending: dict[int, list[int]] = {}
        for number, leaf in enumerate(inputs.tree.leaves):
            ending.setdefault(leaf, []).append(number)
        with torch.inference_mode():
            for run in self._runs(inputs, with_last=True):
                pairs = [(n, row) for row, segment in enumerate(run.segments) for n in ending.get(segment, ())]
                if run.is_last and pairs:
                    self._continue(inputs, run, pairs, replies)

    def _continue(
        self, inputs: TreeInputs, run: _Run, pairs: Sequence[tuple[int, int]], replies: GreedyReplies
    ) -> None:
        """Decode sequences behind a piece of a batch; `pairs` are their numbers, each with its row."""
        forward, axes, device = self.forward, len(inputs.tree.position), self.forward.device
        sequences, rows = [number for number, _ in pairs], [row for _, row in pairs]
        cache = run.cache if run.ends else deepcopy(run.cache)
        states = run.hidden[torch.tensor(rows, device=device), -1]
        position = torch.from_numpy(inputs.tree.position[:, run.tokens[rows, -1]].max(0)).to(device)
        cache.reorder_cache(torch.tensor(rows, device=device))
        for _ in range(replies.new_tokens):
            going, tokens = replies.extend(sequences, forward.logits(states))
            if not going:
                return
            kept = torch.tensor(going, device=device)
            if len(going) < len(sequences):
                cache.reorder_cache(kept)
            sequences, position = [sequences[row] for row in going], position[kept] + 1
            new = tokens[kept][:, None]
            embeds, more = forward.embed(new, torch.zeros_like(new, dtype=torch.bool))
            states = forward.decode(embeds, None, position[None, :, None].expand(axes, -1, -1), cache, more)[:, 0]

    def _runs(self, inputs: TreeInputs, with_last: bool) -> Iterator[_Run]:
        """Compute the tree, depth first. Without `with_last` the last tokens of sequences are left out."""
        layout = _Layout(inputs.tree, inputs.cached, with_last)
        cache = _new_cache(self.network) if inputs.cache is None else inputs.cache
        waiting = self._batches(layout, -1, cache, owned=inputs.cache is None)
        while waiting:
            batch = waiting.pop()
            tokens = layout.padded(batch.segments)
            cache = _copied(batch.cache, len(tokens), batch.owned)
            pieces = self._pieces(tokens)
            for number, piece in enumerate(pieces, 1):
                hidden, is_last = self._hidden(inputs, piece, cache), number == len(pieces)
                yield _Run(batch.segments, piece, hidden, cache, is_last, is_last and not batch.forks)
            if batch.forks:
                waiting += self._batches(layout, batch.segments[0], cache, owned=True)

    def _batches(self, layout: "_Layout", parent: int, cache: "Cache", owned: bool) -> list[_Batch]:
        """The children of a segment in batches, of which the last is to be computed first.

        Leaves are computed side by side. Of the others the largest comes last and takes the cache itself, so that few
        copies are alive at once (`caches_at_once`).
        """
        leaves, others = layout.children(parent)
        most = max(1, int(self.max_bytes / max(1, cache_bytes(cache))))
        batches = [
            _Batch(batch, False, cache, owned and number == 0 and not others)
            for number, batch in enumerate(reversed(list(layout.side_by_side(leaves, most, self.max_tokens))))
        ]
        return [_Batch([child], True, cache, owned and number == 0) for number, child in enumerate(others)] + batches

    def _pieces(self, tokens: Ints) -> list[Ints]:
        """Tokens int64[rows, n] in pieces of at most `max_tokens`."""
        width = max(1, self.max_tokens // len(tokens))
        return [tokens[:, start : start + width] for start in range(0, tokens.shape[1], width)]

    def _hidden(self, inputs: TreeInputs, tokens: Ints, cache: "Cache") -> Tensor:
        """float[rows, n, width]: the last layer's states of tokens int64[rows, n] behind the cache."""
        rows = [(inputs, ForwardPass(EMPTY, row[row >= 0])) for row in tokens]
        return self.forward.hidden(rows, cache)


@dataclass(frozen=True)
class _Layout:
    """What is computed of each segment of a tree, and in which company."""

    tree: PrefixTree
    cached: int
    with_last: bool

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        children: dict[int, list[int]] = {}
        for number, segment in enumerate(self.tree.segments):
            children.setdefault(segment.parent, []).append(number)
        return children

    def children(self, parent: int) -> tuple[list[int], list[int]]:
        """The children of a segment: the leaves of which something is computed, and the others, largest first."""
        children, segments = self._children.get(parent, []), self.tree.segments
        leaves = [child for child in children if child not in self._children and self._length(child)]
        others = [child for child in children if child in self._children]
        return leaves, sorted(others, key=lambda child: segments[child].start - segments[child].subtree_end)

    def side_by_side(self, leaves: Sequence[int], most: int, max_tokens: int) -> Iterator[list[int]]:
        """Leaves in batches of at most `most` rows and `max_tokens` tokens.

        Padding goes behind a row's tokens. Replies continue there, and so with `with_last` all rows have one length.
        """
        batch: list[int] = []
        for leaf in sorted(leaves, key=self._length):
            length = self._length(leaf)
            is_full = len(batch) == most or (len(batch) + 1) * length > max_tokens
            if batch and (is_full or (self.with_last and length != self._length(batch[-1]))):
                yield batch
                batch = []
            batch.append(leaf)
        if batch:
            yield batch

    def padded(self, segments: Sequence[int]) -> Ints:
        """int64[rows, n]: the tokens that are computed of each segment, padded with -1 on the right."""
        rows = np.full((len(segments), max(map(self._length, segments))), -1)
        for row, number in zip(rows, segments, strict=True):
            row[: self._length(number)] = self._start(number) + np.arange(self._length(number))
        return rows

    def _start(self, number: int) -> int:
        return max(self.tree.segments[number].start, self.cached)

    def _length(self, number: int) -> int:
        is_leaf = number not in self._children
        return self.tree.segments[number].end - self._start(number) - (is_leaf and not self.with_last)


def caches_at_once(tree: PrefixTree) -> int:
    """How many caches are alive at once while a tree is computed, a batch of leaves counted as one."""
    layout = _Layout(tree, 0, with_last=True)
    alive: dict[int, int] = {}  # below each segment, with its own
    for number in reversed(range(-1, len(tree.segments))):  # children come after their parent
        leaves, others = layout.children(number)
        copied = [1 + alive[child] for child in others[1:]]
        alive[number] = max([1 + bool(leaves), *(alive[child] for child in others[:1]), *copied])
    return alive[-1]


def _new_cache(network: PreTrainedModel) -> "Cache":
    """An empty cache of the class that the network's own `generate` uses."""
    from transformers import DynamicCache  # noqa: PLC0415 - see families.TREE_HELPERS

    return DynamicCache(config=network.config.get_text_config())


def _copied(cache: "Cache", rows: int, owned: bool) -> "Cache":
    """The cache for so many rows: itself if it is `owned` and has the only row, or a copy."""
    if owned and rows == 1:
        return cache
    copied = deepcopy(cache)
    if rows > 1:
        copied.reorder_cache(torch.zeros(rows, dtype=torch.long))
    return copied
