"""A cache of KV caches for conversations that begin alike: the next turn of a chat, or another question."""

import numpy as np
from numpy.typing import NDArray

from linkcontext.episodes.scaffold import Message
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.prefix_tree import Ints
from linkcontext.scoring.local import LocalModel

MIN_TOKENS = 16  # a shorter common prefix is computed faster than it is found and copied


class PrefixCacheLRU:
    """The KV caches of prompt prefixes, at most `max_bytes` in all. The least recently used is evicted first."""

    def __init__(self, local_model: LocalModel, max_bytes: int) -> None:
        self.local_model, self.max_bytes = local_model, max_bytes
        self.entries: list[PrefixCache] = []  # the most recently used is last

    @property
    def nbytes(self) -> int:
        """The bytes of all entries."""
        return sum(layer.keys.nbytes + layer.values.nbytes for entry in self.entries for layer in entry.cache.layers)

    def add(self, prefix: PrefixCache) -> None:
        """Add a prefix as the most recently used one. Entries that it begins with are replaced by it."""
        self.entries = [
            entry
            for entry in self.entries
            if entry is not prefix and common_length(entry, prefix.key, prefix.images) < len(entry)
        ]
        self.entries.append(prefix)
        while self.entries and self.nbytes > self.max_bytes:
            self.entries.pop(0)

    def match(self, prompt: list[Message]) -> PrefixCache | None:
        """The entry with the longest common prefix with a prompt, or None if all are too short."""
        if not self.entries:
            return None
        rows, pictures = self.local_model.prefix_key([prompt])
        length, number = max((common_length(entry, rows, pictures), n) for n, entry in enumerate(self.entries))
        return self.entries[number] if length >= MIN_TOKENS else None

    def fork(self, entry: PrefixCache, prompts: list[list[Message]]) -> PrefixCache:
        """The part of an entry that all prompts begin with.

        The entry itself if that is all of it; otherwise a copy, because generation would overwrite the rest.
        """
        length = common_length(entry, *self.local_model.prefix_key(prompts))
        if length == len(entry):
            return entry
        rows = {name: row[:, :, :length] for name, row in entry.to_tensors().items()}
        key = entry.key[:, :length]
        pictures = entry.images[: int(key[2].max(initial=-1)) + 1]
        return PrefixCache.from_tensors(key, pictures, rows, self.local_model.loaded.network)


def common_length(prefix: PrefixCache, rows: Ints, pictures: tuple[str, ...]) -> int:
    """The number of tokens that a prefix has in common with the start of a prompt.

    `rows` and `pictures` describe the prompt as `PrefixCache.key` and `images` do. A picture counts as a whole or not
    at all.
    """
    most = min(len(prefix), rows.shape[1])
    if len(rows) != len(prefix.key):  # prompts without pictures have one position per token, others three
        return 0
    same = np.delete(prefix.key[:, :most] == rows[:, :most], 2, 0).all(0)
    same &= _contents(prefix.key, prefix.images)[:most] == _contents(rows, pictures)[:most]
    length = int(np.flatnonzero(np.append(~same, True))[0])
    while 0 < length < rows.shape[1] and rows[2, length] >= 0 and rows[2, length] == rows[2, length - 1]:
        length -= 1
    return length


def _contents(key: Ints, pictures: tuple[str, ...]) -> NDArray[np.object_]:
    """object[n]: the content of the picture that each token belongs to, None for text."""
    contents: NDArray[np.object_] = np.array([*pictures, None], object)[key[2]]
    return contents
