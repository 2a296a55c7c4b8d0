"""Prompts as prefix trees: conversations are expanded to sequences of tokens and features, and merged."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cachetools import LRUCache

from linkcontext.episodes.render import Tokens
from linkcontext.episodes.scaffold import Message
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.prefix_tree import ImageTokens, PrefixTree, TokenSequence, expand_images, merge
from linkcontext.scoring.pictures import PromptPictures
from linkcontext.scoring.prompts import TOKEN, PromptEncoder

LINES = 64_000_000  # bytes of expanded prompts that are kept


@dataclass
class TreeBuilder:
    """Expands and merges conversations. A sequence is kept by its tokens and by how its pictures are spelled."""

    encoder: PromptEncoder
    pictures: PromptPictures
    _kept: MutableMapping[tuple[tuple[int, ...], tuple[int, ...], tuple[ImageTokens, ...]], TokenSequence] = field(
        default_factory=lambda: LRUCache(LINES, _sequence_bytes), repr=False
    )

    def expand(self, short: Tokens) -> TokenSequence:
        """A conversation as the language model gets it: each picture token replaced by the tokens of its picture."""
        numbers = self.pictures.numbered(short.pictures)
        # Which pictures they are only changes their numbers: an episode has few texts and many conversations.
        images = self.pictures.eyes.preprocessor.in_prompt([self.pictures.seen[n].image_tokens for n in numbers])
        key = short.ids, short.labels, images
        if (sequence := self._kept.get(key)) is None:
            image_token = self.pictures.eyes.preprocessor.image_token
            sequence = expand_images(short.ids, short.labels, image_token, range(len(numbers)), images)
            fits = len(sequence.ids) <= self.encoder.loaded.context  # else it is refused
            if fits and _sequence_bytes(sequence) <= LINES:
                self._kept[key] = sequence
        return replace(sequence, image=np.array([*numbers, -1])[sequence.image])

    def sequences(self, conversations: Iterable[list[Message]], end: str) -> Iterator[TokenSequence]:
        """Each conversation up to the end of its answer; what a template writes after it is not scored.

        They come one by one, since whole prompts take many times the memory of their tree. Raises `InputError` if one
        does not fit the model's context.
        """
        for messages in conversations:
            short = self.encoder.encode(messages, end)[1]
            line = self.expand(short)
            self.encoder.check_length(len(line.ids), short)
            answered = np.flatnonzero(line.answer)
            yield line[: answered[-1] + 1] if len(answered) else line

    def merge(self, conversations: Sequence[list[Message]], end: str, on: PrefixCache | None = None) -> TreeInputs:
        """The tree of some conversations, on the key-value cache of `on` if they all begin with it."""
        tree = merge(self.sequences(conversations, end))
        if on is None or not on.begins(tree, self.pictures.contents):
            return self.inputs(tree)
        return TreeInputs(tree, self.pictures.seen, on.cache, len(on))

    def inputs(self, tree: PrefixTree) -> TreeInputs:
        """A tree with the features of its pictures."""
        return TreeInputs(tree, self.pictures.seen)


def _sequence_bytes(sequence: TokenSequence) -> int:
    """About how many bytes a sequence takes, with the key that repeats its tokens; the tokens of images are shared."""
    arrays = sequence.ids, sequence.image, sequence.slot, sequence.position, sequence.answer
    return sum(array.nbytes for array in arrays) + TOKEN * len(sequence.ids)
