"""Keys and values of tokens that have been computed: a cache that grows in place, and prefixes that are kept.

Branches of a prefix tree are run one after the other on top of the same cached prefix. After each of them the cache
is cut back to that prefix (`truncate`), which moves no memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.prefix_tree import Ints, PrefixTree
from linkcontext.models.families import cached_layers

if TYPE_CHECKING:
    from transformers import Cache


def new_cache(network: PreTrainedModel, capacity: int) -> "Cache":
    """An empty cache for the layers of the network's language model, with room for `capacity` tokens.

    Raises `ImportError` if the installed transformers has no layers of this kind (`families.missing_helper`).
    """
    from transformers import Cache  # noqa: PLC0415 - see families.TREE_HELPERS

    from linkcontext.inference.preallocated_layer import PreallocatedLayer  # noqa: PLC0415 - see families.TREE_HELPERS

    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(cached_layers(network))])


def truncate(cache: "Cache", length: int) -> None:
    """Remove all but the first `length` tokens from the cache. The memory stays allocated."""
    for layer in cache.layers:
        layer.length = min(layer.length, length)


def cache_bytes(cache: "Cache") -> int:
    """The bytes of all that the layers of a cache hold: keys and values, or the states of other kinds of layers."""
    held = [value for layer in cache.layers for value in vars(layer).values()]
    parts = [part for value in held for part in (value.values() if isinstance(value, dict) else [value])]
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


IMAGE_ROW = 2  # of a prefix key: the number of each token's image


@dataclass(frozen=True, slots=True, eq=False)
class PrefixCache:
    """A prefix of prompts with its keys and values, so that later prompts that begin with it do not compute it again.

    `key` and `images` identify the prefix by content (see `prefix_key`).
    """

    key: Ints  # int64[3 + axes, n]
    images: tuple[str, ...]  # content hashes
    cache: "Cache"
    divisible: bool = True
    """Whether a part of it can be used. A running state is that of its last token alone."""

    def __len__(self) -> int:
        return len(self.key[0])

    @property
    def nbytes(self) -> int:
        """The bytes of its cache."""
        return cache_bytes(self.cache)

    def begins(self, tree: PrefixTree, images: Sequence[str]) -> bool:
        """Whether all sequences of a tree begin with this prefix, so that a run can start behind it.

        `images` are the content hashes of the tree's images by number. The last token of a sequence is not part of a
        prefix, because its state says what comes next.
        """
        first = tree.segments[0]
        if first.subtree_end < len(tree) or first.end < len(self):
            return False
        key, own = prefix_key(tree, len(self), images)
        return own == self.images and np.array_equal(key, self.key)

    def shared_with(self, key: Ints, images: tuple[str, ...]) -> int:
        """The number of tokens with which this prefix and another one, given by its `prefix_key`, begin.

        An image is shared whole or not at all, because its tokens may attend to each other and the same ids may be the
        beginning of an image of another shape.
        """
        if len(key) != len(self.key):  # positions have one axis in prompts without images, and three in others
            return 0
        most = min(len(self), key.shape[1])
        same = np.delete(self.key[:, :most] == key[:, :most], IMAGE_ROW, 0).all(0)
        same &= _contents(self.key, self.images)[:most] == _contents(key, images)[:most]
        length = int(np.flatnonzero(np.append(~same, True))[0])
        shared = min(_before_image(self.key, length), _before_image(key, length))
        return shared if self.divisible or shared == len(self) else 0

    def first(self, length: int, network: PreTrainedModel) -> "PrefixCache":
        """A copy of the first `length` tokens."""
        key = self.key[:, :length]
        images = self.images[: int(key[IMAGE_ROW].max(initial=-1)) + 1]
        tensors = {name: states[:, :, :length] for name, states in self.to_tensors().items()}
        return PrefixCache.from_tensors(key, images, tensors, network)

    def to_tensors(self) -> dict[str, Tensor]:
        """The keys and values as they are written to files: `LAYER/keys` and `LAYER/values`, [1, heads, n, head width]
        each."""
        layers = enumerate(self.cache.layers)
        return {
            f"{number}/{name}": states[:, :, : len(self)]
            for number, layer in layers
            for name, states in (("keys", layer.keys), ("values", layer.values))
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
    numbers = tree.image[:length]
    shown = list(dict.fromkeys(numbers[numbers >= 0].tolist()))
    order = np.full(max(shown, default=-1) + 2, -1)  # the last entry serves text
    order[shown] = np.arange(len(shown))
    rows = np.stack([tree.ids[:length], tree.slot[:length], order[numbers], *tree.position[:, :length]])
    return rows, tuple(images[number] for number in shown)


def _contents(key: Ints, images: tuple[str, ...]) -> NDArray[np.object_]:
    """object[n]: the content hash of each token's image, None for text."""
    contents: NDArray[np.object_] = np.array([*images, None], object)[key[IMAGE_ROW]]
    return contents


def _before_image(key: Ints, length: int) -> int:
    """The largest number of tokens up to `length` that ends inside of no image of a prefix."""
    image = key[IMAGE_ROW]
    while 0 < length < len(image) and image[length] >= 0 and image[length] == image[length - 1]:
        length -= 1
    return length
