"""What was computed for conversations, kept for those that begin alike: a chat's next turn, a next question."""

import numpy as np
from numpy.typing import NDArray

from linkcontext.episodes.scaffold import Message
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.prefix_tree import Ints
from linkcontext.scoring.local import LocalModel

LEAST = 16  # tokens for which it is worth it


class Shelf:
    """Keys and values of prompts, at most `room` bytes of them; what was not used for longest goes first."""

    def __init__(self, scorer: LocalModel, room: int) -> None:
        self.scorer, self.room = scorer, room
        self.kept: list[PrefixCache] = []  # used last comes last

    @property
    def taken(self) -> int:
        """Bytes of what is kept."""
        return sum(layer.keys.nbytes + layer.values.nbytes for held in self.kept for layer in held.cache.layers)

    def put(self, held: PrefixCache) -> None:
        """Keep something; what it begins with need not be kept twice."""
        self.kept = [old for old in self.kept if old is not held and shared(old, held.key, held.images) < len(old)]
        self.kept.append(held)
        while self.kept and self.taken > self.room:
            self.kept.pop(0)

    def find(self, prompt: list[Message]) -> PrefixCache | None:
        """What has most of a prompt's beginning."""
        if not self.kept:
            return None
        rows, pictures = self.scorer.prefix_key([prompt])
        length, number = max((shared(held, rows, pictures), n) for n, held in enumerate(self.kept))
        return self.kept[number] if length >= LEAST else None

    def take(self, held: PrefixCache, prompts: list[list[Message]]) -> PrefixCache:
        """What of it all of the prompts begin with. Less than the whole is a copy: what goes on would overwrite it."""
        length = shared(held, *self.scorer.prefix_key(prompts))
        if length == len(held):
            return held
        rows = {name: row[:, :, :length] for name, row in held.to_tensors().items()}
        opening = held.key[:, :length]
        pictures = held.images[: int(opening[2].max(initial=-1)) + 1]
        return PrefixCache.from_tensors(opening, pictures, rows, self.scorer.loaded.network)


def shared(held: PrefixCache, rows: Ints, pictures: tuple[str, ...]) -> int:
    """How many tokens what is held and another opening begin with together; a picture counts whole, or not at all."""
    most = min(len(held), rows.shape[1])
    if len(rows) != len(held.key):  # prompts without pictures have one position a token where others have three
        return 0
    same = np.delete(held.key[:, :most] == rows[:, :most], 2, 0).all(0)
    same &= _contents(held.key, held.images)[:most] == _contents(rows, pictures)[:most]
    found = int(np.flatnonzero(np.append(~same, True))[0])
    while 0 < found < rows.shape[1] and rows[2, found] >= 0 and rows[2, found] == rows[2, found - 1]:
        found -= 1
    return found


def _contents(opening: Ints, pictures: tuple[str, ...]) -> NDArray[np.object_]:
    """object[n]: the content of the picture that each token belongs to, None for text."""
    found: NDArray[np.object_] = np.array([*pictures, None], object)[opening[2]]
    return found
