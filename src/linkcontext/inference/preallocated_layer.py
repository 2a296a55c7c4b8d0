"""One layer of a KV cache that grows in place."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


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
