"""The prefix tree: token sequences that begin alike, merged so that what they share is there once.

An evaluation asks a model the same support again and again: with every query, every candidate answer and every shot
count. As separate prompts (`TokenSequence`) these share their beginnings. `merge` joins them token by token into a
`PrefixTree`. A token of the tree attends to its ancestors and itself, which is exactly what it attends to in its own
sequence, so one run over the tree gives the results of all sequences.

Four sequences, two shot counts of one support with one query and two candidate answers (a letter is a token):

    Q x            the query Q alone, answered x            0  Q      attends to 0        subtree_end 3
    Q y            or y                                      1  ├ x    attends to 0 1      subtree_end 2
    A a Q x        the same after a support A, named a       2  └ y    attends to 0 2      subtree_end 3
    A a Q y                                                  3  A      attends to 3        subtree_end 8
                                                             4  a      attends to 3 4      subtree_end 8
    8 tokens instead of 12                                   5  Q      attends to 3 4 5    subtree_end 8
                                                             6  ├ x    attends to 3 4 5 6  subtree_end 7
                                                             7  └ y    attends to 3 4 5 7  subtree_end 8

Tokens are numbered in preorder: a token is followed by all tokens below it. `subtree_end` is the number after the last
of them, and one comparison decides who attends to whom: q attends to k if k <= q < subtree_end[k]. The trunk of an
episode (its support) is nothing special: it is what most sequences share. Training uses the same tree: `weight` is the
number of sequences that ask for a token, so that its loss is counted once for each of them.

Prefix (radix) trees of prompts are known from serving: SGLang keeps its KV cache in one (arXiv 2312.07104), and
SpecInfer verifies token trees under such a mask (arXiv 2305.09781).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from linkcontext.errors import InputError

Ints = NDArray[np.int64]

IGNORED = -100  # the label of a token that is not asked for, as in transformers
# A token's id, slot and image are packed into one integer of 62 bits, by which sequences are merged.
ID_BITS, SLOT_BITS, IMAGE_BITS = 20, 20, 22
MERGED_AT_ONCE = 32  # sequences


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One sequence of tokens as a model would read it alone. Arrays have n tokens."""

    ids: Ints  # int64[n]
    image: Ints  # int64[n]: the number of the image that a token belongs to, -1 for text
    slot: Ints  # int64[n]: the row of the image's features that replaces the token's embedding; -1 where none does
    position: Ints  # int64[axes, n]: one axis, or three for models whose images have time, height and width
    answer: NDArray[np.bool_]  # bool[n]: the tokens whose log-probability is asked for

    def __getitem__(self, span: slice) -> "TokenSequence":
        """A stretch of the sequence."""
        return TokenSequence(
            self.ids[span], self.image[span], self.slot[span], self.position[:, span], self.answer[span]
        )

    def copy(self) -> "TokenSequence":
        """The same in memory of its own."""
        ids, image, slot, position = (each.copy() for each in (self.ids, self.image, self.slot, self.position))
        return TokenSequence(ids, image, slot, position, self.answer.copy())


def token_keys(ids: Ints, slot: Ints, image: Ints) -> Ints:
    """int64[n]: equal for two tokens if id, slot and image are equal."""
    assert ids.min(initial=0) >= 0 and ids.max(initial=0) < 1 << ID_BITS, "a token id has over 20 bits"
    assert slot.max(initial=0) + 1 < 1 << SLOT_BITS, "an image has over 2^20 features"
    assert image.max(initial=0) + 1 < 1 << IMAGE_BITS, "a tree has over 2^22 images"
    return ids | (slot + 1) << ID_BITS | (image + 1) << (ID_BITS + SLOT_BITS)


@dataclass(frozen=True, slots=True, eq=False)
class ImageTokens:
    """How an image is written in a prompt: its placeholder tokens, and the marks and row breaks among them.

    Equal and hashed by content: most images of a data set are written alike.
    """

    ids: Ints  # int64[n]
    slots: Ints  # int64[n]: the row of the features that replaces the token's embedding; -1 for marks and breaks
    shift: Ints  # int64[axes, n]: positions relative to the first token
    content: bytes = field(init=False, repr=False)
    advance: int = field(init=False, repr=False)  # by how much the image moves the positions of what follows it

    def __post_init__(self) -> None:
        arrays = [np.ascontiguousarray(values, np.int64).tobytes() for values in (self.ids, self.slots, self.shift)]
        object.__setattr__(self, "content", len(self.ids).to_bytes(8, "little") + b"".join(arrays))
        object.__setattr__(self, "advance", int(self.shift.max(initial=-1)) + 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageTokens) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    def __len__(self) -> int:
        return len(self.ids)


def expand_images(
    ids: Sequence[int], labels: Sequence[int], image_token: int, numbers: Sequence[int], images: Sequence[ImageTokens]
) -> TokenSequence:
    """Replace each `image_token` in turn by the tokens of an image.

    Args:
        ids: token ids of a conversation, with one `image_token` for each image.
        labels: for each token -100 if it is not asked for, and anything else if it is.
        image_token: the token that the chat template writes for an image.
        numbers: the number of each image in the tree; equal numbers are equal images.
        images: the tokens of each image.

    Raises `InputError` if there are more or fewer image tokens than images.
    """
    text = np.array(ids, np.int64)
    marks = np.flatnonzero(text == image_token)
    if len(marks) != len(numbers):
        raise InputError(
            f"the chat template wrote {len(marks)} placeholders for {len(numbers)} pictures. Does it leave "
            "pictures out?"
        )
    axes = len(images[0].shift) if images else 1
    lengths, advance = np.ones(len(text), np.int64), np.ones(len(text), np.int64)
    lengths[marks] = [len(each) for each in images]
    advance[marks] = [each.advance for each in images]
    length = int(lengths.sum())
    expanded = np.repeat(text, lengths)
    image, slot = np.full(length, -1), np.full(length, -1)
    position = np.repeat(np.cumsum(advance) - advance, lengths)[None].repeat(axes, 0)
    if images:
        here = np.repeat(text == image_token, lengths)
        expanded[here] = np.concatenate([each.ids for each in images])
        image[here] = np.repeat(numbers, lengths[marks])
        slot[here] = np.concatenate([each.slots for each in images])
        position[:, here] += np.concatenate([each.shift for each in images], 1)
    answer = np.repeat(np.array(labels) != IGNORED, lengths)
    return TokenSequence(expanded, image, slot, position, answer)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `start` to `end` of a tree, which follow one another without a fork. All below them ends at
    `subtree_end`."""

    start: int
    end: int
    subtree_end: int
    parent: int  # the segment before it, -1 for a root


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTree:
    """Merged sequences, in preorder. Arrays have T tokens: int64[T], and float32[T] for `weight`."""

    ids: Ints
    image: Ints
    slot: Ints
    position: Ints  # int64[axes, T]
    parent: Ints  # -1 for first tokens
    depth: Ints  # the number of tokens before it in its sequence
    subtree_end: Ints
    weight: NDArray[np.float32]  # the number of sequences that ask for this token
    segments: tuple[Segment, ...]
    leaves: tuple[int, ...]  # for each sequence the segment in which it ends
    answers: tuple[Ints, ...]  # for each sequence the tokens that it asks for

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, sequence: int) -> Ints:
        """int64[length]: the tokens of a sequence, in order."""
        pieces, number = [], self.leaves[sequence]
        while number >= 0:
            segment = self.segments[number]
            pieces.append(np.arange(segment.start, segment.end))
            number = segment.parent
        return np.concatenate(pieces[::-1])

    def can_attend(self, queries: Ints, keys: Ints) -> NDArray[np.bool_]:
        """bool[queries, keys]: whether the key is the query itself or an ancestor. Padding (-1) attends only to
        padding."""
        return (keys <= queries[:, None]) & (queries[:, None] < gather(self.subtree_end, keys))

    @property
    def inner(self) -> NDArray[np.bool_]:
        """bool[T]: the tokens that others follow. The states of the last tokens of branches are of no use."""
        inner = np.zeros(len(self) + 1, np.bool_)
        inner[self.parent] = True
        return inner[:-1]

    def sums(self, values: NDArray[np.float64]) -> list[float]:
        """For each sequence the sum of float64[T] over the tokens that it asks for."""
        return [float(values[tokens].sum()) for tokens in self.answers]

    @property
    def predictors(self) -> NDArray[np.bool_]:
        """bool[T]: the tokens whose states predict a token that is asked for. A first token is predicted by none."""
        predictors = np.zeros(len(self) + 1, np.bool_)
        predictors[self.parent[self.weight > 0]] = True
        return predictors[:-1]

    @property
    def answer_starts(self) -> NDArray[np.bool_]:
        """For each token that is asked for, whether it is the first of its answer."""
        supervised = np.flatnonzero(self.weight)
        starts: NDArray[np.bool_] = self.weight[self.parent[supervised]] == 0
        return starts

    @property
    def shared_length(self) -> int:
        """How many tokens all sequences begin with, without the last token of a sequence, which says what comes
        next."""
        first = self.segments[0]
        return first.end - (0 in self.leaves) if first.subtree_end == len(self) else 0


def gather(values: Ints, tokens: Ints, padding: int = 0) -> Ints:
    """int64[..., *tokens]: the values [..., T] at these tokens, and `padding` at those that are -1."""
    padded: Ints = np.concatenate([values, np.full((*values.shape[:-1], 1), padding)], -1)
    return padded[..., tokens]


@dataclass(slots=True)
class _Node:
    """A stretch of one sequence that others may share. It is split where one of them leaves."""

    start: int  # how many tokens of its sequence are before it
    keys: Ints
    piece: TokenSequence | None  # None at the root
    parent: "_Node | None"
    children: dict[int, "_Node"] = field(default_factory=dict)
    number: int = -1
    first: int = 0  # its first token in the tree

    def __len__(self) -> int:
        return len(self.keys)


def merge(sequences: Iterable[TokenSequence]) -> PrefixTree:
    """The prefix tree of some sequences. Siblings are in the order in which they first appear.

    Of what sequences share one copy is kept, so that many may come from an iterator that makes them one by one.
    """
    root = _Node(0, np.empty(0, np.int64), None, None)
    leaves, wanted = [], []
    remaining = iter(sequences)
    while batch := list(islice(remaining, MERGED_AT_ONCE)):
        arrays = zip(*((each.ids, each.slot, each.image) for each in batch), strict=True)
        ends = np.cumsum([len(each.ids) for each in batch])
        keys = np.split(token_keys(*map(np.concatenate, arrays)), ends[:-1])
        leaves += [_insert(root, each, own) for each, own in zip(batch, keys, strict=True)]
        wanted += [np.flatnonzero(each.answer) for each in batch]
    nodes = list(_preorder(root))
    segments = _segments(nodes, root)
    pieces = [node.piece for node in nodes if node.piece is not None]
    lengths = [len(node) for node in nodes]
    length = sum(lengths)
    parent = np.arange(length) - 1
    parent[[s.start for s in segments]] = [segments[s.parent].end - 1 if s.parent >= 0 else -1 for s in segments]
    tree = PrefixTree(
        ids=np.concatenate([piece.ids for piece in pieces]),
        image=np.concatenate([piece.image for piece in pieces]),
        slot=np.concatenate([piece.slot for piece in pieces]),
        position=np.concatenate([piece.position for piece in pieces], axis=-1),
        parent=parent,
        depth=np.concatenate([np.arange(node.start, node.start + len(node)) for node in nodes]),
        subtree_end=np.repeat([s.subtree_end for s in segments], lengths),
        weight=np.zeros(length, np.float32),
        segments=segments,
        leaves=tuple(node.number for node in leaves),
        answers=(),
    )
    answers = tuple(tree.path(number)[places] for number, places in enumerate(wanted))
    for tokens in answers:
        tree.weight[tokens] += 1
    return replace(tree, answers=answers)


def _segments(nodes: Sequence[_Node], root: _Node) -> tuple[Segment, ...]:
    """Number the nodes, which are in preorder, and lay out their tokens one after the other."""
    length = 0
    for number, node in enumerate(nodes):
        node.number, node.first = number, length
        length += len(node)
    subtree_end = [length] * len(nodes)
    for node in reversed(nodes):  # children come after their parent
        last = max((child.number for child in node.children.values()), default=None)
        subtree_end[node.number] = node.first + len(node) if last is None else subtree_end[last]
    return tuple(
        Segment(
            node.first,
            node.first + len(node),
            subtree_end[node.number],
            -1 if node.parent is None or node.parent is root else node.parent.number,
        )
        for node in nodes
    )


def _insert(root: _Node, sequence: TokenSequence, keys: Ints) -> _Node:
    """Add a sequence to the tree. Returns the node in which it ends."""
    position, node = 0, root
    while position < len(keys):
        child = node.children.get(int(keys[position]))
        if child is None:
            child = _Node(position, keys[position:].copy(), sequence[position:].copy(), node)
            node.children[int(keys[position])] = child
            return child
        compared = min(len(child), len(keys) - position)
        differs = np.flatnonzero(child.keys[:compared] != keys[position : position + compared])
        shared = int(differs[0]) if len(differs) else compared
        if shared < len(child):
            child = _split(child, shared)
        node, position = child, position + shared
    return node


def _split(node: _Node, shared: int) -> _Node:
    """Split a node after `shared` of its tokens. Returns the first part."""
    assert node.parent is not None
    assert node.piece is not None
    head = _Node(node.start, node.keys[:shared], node.piece[:shared], node.parent)
    node.parent.children[int(node.keys[0])] = head
    node.start, node.keys, node.piece, node.parent = node.start + shared, node.keys[shared:], node.piece[shared:], head
    head.children[int(node.keys[0])] = node
    return head


def _preorder(root: _Node) -> Iterator[_Node]:
    waiting = list(reversed(root.children.values()))
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children.values()))
