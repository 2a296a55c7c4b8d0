"""Keys and values of tokens that have been computed: a cache that grows in place, and prefixes that are kept.

Branches of a prefix tree are run one after the other on top of the same cached prefix. After each of them the cache
is cut back to that prefix (`truncate`), which moves no memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from linkcontext.inference.prefix_tree import Ints, PrefixTree


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc] # transformers has no types
    """Keys and values [1, heads, length, head width] of one layer, in a buffer that forward passes append to.

    `DynamicLayer` of transformers concatenates, which copies the whole cache in every pass. The buffer has room for
    `capacity` tokens and is enlarged only if more come.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.keys: Tensor
        self.values: Tensor
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states [1, heads, n, head width]. Returns all keys and all values, as views of the buffers."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys, self.values = (
                self._enlarged(old, new, end) for old, new in ((self.keys, key_states), (self.values, value_states))
            )
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _enlarged(self, old: Tensor, new: Tensor, end: int) -> Tensor:
        capacity = self.capacity if end <= self.capacity else end + end // 4
        buffer = new.new_empty((*new.shape[:2], capacity, new.shape[-1]))
        if self.length:
            buffer[:, :, : self.length] = old[:, :, : self.length]
        return buffer

    def get_seq_length(self) -> int:
        """The number of cached tokens."""
        return self.length


def new_cache(network: PreTrainedModel, capacity: int) -> Cache:
    """An empty cache for all layers of the network's language model, with room for `capacity` tokens."""
    layers = network.config.get_text_config().num_hidden_layers
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(layers)])


def truncate(cache: Cache, length: int) -> None:
    """Remove all but the first `length` tokens from the cache. The memory stays allocated."""
    for layer in cache.layers:
        layer.length = min(layer.length, length)


@dataclass(frozen=True, slots=True, eq=False)
class PrefixCache:
    """A prefix of prompts with its keys and values, so that later prompts that begin with it do not compute it again.

    `key` and `images` identify the prefix by content (see `prefix_key`).
    """

    key: Ints  # int64[3 + axes, n]
    images: tuple[str, ...]  # content hashes
    cache: Cache

    def __len__(self) -> int:
        return len(self.key[0])

    def to_tensors(self) -> dict[str, Tensor]:
        """The keys and values as they are written to files: `LAYER/keys` and `LAYER/values`, [1, heads, n, head width]
        each."""
        layers = enumerate(self.cache.layers)
        return {
            f"{number}/{name}": getattr(layer, name)[:, :, : len(self)]
            for number, layer in layers
            for name in ("keys", "values")
        }

    @classmethod
    def from_tensors(
        cls, key: Ints, images: tuple[str, ...], tensors: Mapping[str, Tensor], network: PreTrainedModel
    ) -> "PrefixCache":
        """The inverse of `to_tensors`.

        Raises `KeyError` or `RuntimeError` if the tensors do not fit the network or the key.
        """
        length = key.shape[1]
        cache = new_cache(network, length)
        with torch.inference_mode():
            for number, layer in enumerate(cache.layers):
                keys, values = (tensors[f"{number}/{name}"].to(network.device) for name in ("keys", "values"))
                if keys.shape[-2] != length:
                    raise RuntimeError(f"{keys.shape[-2]} keys for {length} tokens")
                layer.update(keys, values)
        return cls(key, images, cache)


def prefix_key(tree: PrefixTree, length: int, images: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """What identifies the first `length` tokens of a tree, whatever other tokens and images the tree has.

    `images` are the content hashes of the tree's images by number. Returns int64[3 + axes, length] with ids, slots, the
    number of each token's image in order of appearance (-1 for text) and positions; and the content hashes of these
    images. Two prefixes have the same keys and values if both are equal.
    """
    numbers = tree.picture[:length]
    shown = list(dict.fromkeys(numbers[numbers >= 0].tolist()))
    order = np.full(max(shown, default=-1) + 2, -1)  # the last entry serves text
    order[shown] = np.arange(len(shown))
    rows = np.stack([tree.ids[:length], tree.slot[:length], order[numbers], *tree.position[:, :length]])
    return rows, tuple(images[number] for number in shown)
