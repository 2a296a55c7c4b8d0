"""A cache of KV caches for conversations that begin alike: the next turn of a chat, or another question."""

from linkcontext.episodes.scaffold import Message
from linkcontext.inference.kv_cache import PrefixCache
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
        return sum(entry.nbytes for entry in self.entries)

    def add(self, prefix: PrefixCache) -> None:
        """Add a prefix as the most recently used one. Entries that it begins with are replaced by it."""
        self.entries = [
            entry
            for entry in self.entries
            if entry is not prefix and entry.shared_with(prefix.key, prefix.images) < len(entry)
        ]
        self.entries.append(prefix)
        while self.entries and self.nbytes > self.max_bytes:
            self.entries.pop(0)

    def match(self, prompt: list[Message]) -> PrefixCache | None:
        """The entry with the longest common prefix with a prompt, or None if all are too short."""
        if not self.entries:
            return None
        rows, pictures = self.local_model.prefix_key([prompt])
        length, number = max((entry.shared_with(rows, pictures), n) for n, entry in enumerate(self.entries))
        return self.entries[number] if length >= MIN_TOKENS else None

    def fork(self, entry: PrefixCache, prompts: list[list[Message]]) -> PrefixCache:
        """The part of an entry that all prompts begin with.

        The entry itself if that is all of it; otherwise a copy, because generation would overwrite the rest.
        """
        length = entry.shared_with(*self.local_model.prefix_key(prompts))
        if length == len(entry):
            return entry
        return entry.first(length, self.local_model.loaded.network)
