"""Prompts as prefix trees: conversations are expanded to sequences of tokens and features, and merged."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cachetools import LRUCache

from linkcontext.episodes.render import Tokens
from linkcontext.episodes.scaffold import Message
from linkcontext.inference.engine import TreeInputs
from linkcontext.inference.kv_cache import PrefixCache, prefix_key
from linkcontext.inference.prefix_tree import ImageTokens, PrefixTree, TokenSequence, expand_images, merge
from linkcontext.scoring.pictures import PromptPictures
from linkcontext.scoring.prompts import TOKEN, PromptEncoder

LINES = 64_000_000  # bytes of expanded prompts that are kept


@dataclass
class TreeBuilder:
    """Expands and merges conversations. A sequence is kept by its tokens and by how its pictures are spelled."""

    encoder: PromptEncoder
    pictures: PromptPictures
    # A key has the ids of its spellings, which stay theirs as long as the spellings are kept beside it.
    _kept: MutableMapping[Any, tuple[TokenSequence, list[ImageTokens]]] = field(
        default_factory=lambda: LRUCache(LINES, _line_bytes), repr=False
    )

    def expand(self, short: Tokens) -> TokenSequence:
        """A conversation as the language model gets it: each picture token replaced by the tokens of its picture."""
        numbers = self.pictures.numbered(short.pictures)
        # Which pictures they are only changes their numbers: an episode has few texts and many conversations.
        spellings = [self.pictures.seen[n].spelling for n in numbers]
        key = short.ids, short.labels, tuple(map(id, spellings))
        if (kept := self._kept.get(key)) is None:
            kept = expand_images(short, self.pictures.eyes.mark, range(len(numbers)), spellings), spellings
            if len(kept[0].ids) <= self.encoder.loaded.context and _line_bytes(kept) <= LINES:  # else it is refused
                self._kept[key] = kept
        line = kept[0]
        return replace(line, picture=np.array([*numbers, -1])[line.picture])

    def sequences(self, conversations: Sequence[list[Message]], end: str) -> list[TokenSequence]:
        """Each conversation up to the end of its answer; what a template writes after it is not scored.

        Raises `InputError` if the longest does not fit the model's context.
        """
        encoded = [self.encoder.encode(messages, end)[1] for messages in conversations]
        lines = [self.expand(short) for short in encoded]
        length, longest = max((len(line.ids), i) for i, line in enumerate(lines))
        self.encoder.check_length(length, encoded[longest])
        ends = [np.flatnonzero(line.answer)[-1:] for line in lines]
        return [line[: end[0] + 1] if len(end) else line for line, end in zip(lines, ends, strict=True)]

    def merge(self, conversations: Sequence[list[Message]], end: str, on: PrefixCache | None = None) -> TreeInputs:
        """The tree of some conversations, on the key-value cache of `on` if they all begin with it."""
        tree = merge(self.sequences(conversations, end))
        if on is None or tree.segments[0].subtree_end < len(tree) or tree.segments[0].end < len(on):
            return self.inputs(tree)
        rows, pictures = prefix_key(tree, len(on), self.pictures.contents)
        if pictures != on.images or not np.array_equal(rows, on.key):
            return self.inputs(tree)
        return TreeInputs(tree, self.pictures.seen, on.cache, len(on))

    def inputs(self, tree: PrefixTree) -> TreeInputs:
        """A tree with the features of its pictures."""
        return TreeInputs(tree, self.pictures.seen)


def common_prefix(tree: PrefixTree) -> int:
    """The number of tokens that all sequences begin with, without the last token of a sequence, which has to be run."""
    first = tree.segments[0]
    return first.end - (0 in tree.leaves) if first.subtree_end == len(tree) else 0


def _line_bytes(kept: tuple[TokenSequence, list[ImageTokens]]) -> int:
    """About how many bytes a sequence takes, with the key that repeats its tokens; spellings are shared."""
    line = kept[0]
    arrays = line.ids, line.picture, line.slot, line.position, line.answer
    return sum(array.nbytes for array in arrays) + TOKEN * len(line.ids)
