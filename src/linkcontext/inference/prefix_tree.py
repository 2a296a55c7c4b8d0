"""The episode tree: many sequences that begin alike, laid out once.

An evaluation asks a model the same support again and again: with every query, every candidate answer and every
shot count. Written one below the other, these sequences (`TokenSequence`) share their beginnings, and `merge` joins
what they share, token by token, into a `PrefixTree`. What a token sees is then its ancestors and itself, which is
exactly what it saw in its line; so one pass over the tree gives every line's figures.

Four lines, two shot counts of one support with one query and two candidate answers (a letter is a token):

    Q x            the query Q alone, answered x            0  Q      sees 0        until 3
    Q y            or y                                      1  ├ x    sees 0 1      until 2
    A a Q x        the same after a support A, named a       2  └ y    sees 0 2      until 3
    A a Q y                                                  3  A      sees 3        until 8
                                                             4  a      sees 3 4      until 8
    8 tokens instead of 12                                   5  Q      sees 3 4 5    until 8
                                                             6  ├ x    sees 3 4 5 6  until 7
                                                             7  └ y    sees 3 4 5 7  until 8

Tokens stand in preorder: a token is followed by all that begins with it. The end of that stretch is its `until`,
and one comparison tells who sees whom: q sees k when k <= q < until[k]. The trunk of an episode (its
support) is nothing special: it is what most lines share. Training is the same tree with `weight`: how many lines
ask for a token.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from linkcontext.episodes.render import IGNORE, ChatTokenizer, Tokens, encode
from linkcontext.episodes.scaffold import Scaffold, query_messages
from linkcontext.errors import InputError
from linkcontext.records import Episode

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One sequence as a model would read it alone. Arrays int64[n], and bool[n]."""

    ids: Ints
    picture: Ints  # which picture a token belongs to, by number; -1 for text
    slot: Ints  # the row of that picture's features that stands here; -1 where the token's own embedding does
    position: Ints  # int64[axes, n]: one axis, or three where pictures have time, height and width
    answer: NDArray[np.bool_]  # the tokens that are asked for

    def __getitem__(self, span: slice) -> "TokenSequence":
        """A stretch of the line."""
        names = ("ids", "picture", "slot", "position", "answer")
        return TokenSequence(*(getattr(self, name)[..., span] for name in names))

    @property
    def keys(self) -> Ints:
        """int64[n]: equal where two lines say the same. Room for 2^20 tokens, 2^20 slots and 2^22 pictures."""
        return self.ids | (self.slot + 1) << 20 | (self.picture + 1) << 40


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ImageTokens:
    """How a picture stands in a prompt: its placeholders, and the marks and row breaks among them."""

    ids: Ints  # int64[n]
    slots: Ints  # int64[n]: the row of the features that stands there; -1 for marks and breaks
    shift: Ints  # int64[axes, n]: positions, counted from where the picture begins


def expand_images(tokens: Tokens, mark: int, numbers: Sequence[int], spellings: Sequence[ImageTokens]) -> TokenSequence:
    """A conversation's line: each `mark` in turn replaced by a picture; `numbers` are the pictures' in the tree."""
    ids = np.array(tokens.ids, np.int64)
    marks = np.flatnonzero(ids == mark)
    if len(marks) != len(numbers):
        raise InputError(
            f"the chat template wrote {len(marks)} marks for {len(numbers)} pictures. Does it leave pictures out?"
        )
    axes = len(spellings[0].shift) if spellings else 1
    lengths, advance = np.ones(len(ids), np.int64), np.ones(len(ids), np.int64)
    lengths[marks] = [len(spelling.ids) for spelling in spellings]
    advance[marks] = [spelling.shift.max() + 1 for spelling in spellings]
    starts = np.cumsum(lengths) - lengths
    n = int(lengths.sum())
    spelled = np.repeat(ids, lengths)
    picture, slot = np.full(n, -1), np.full(n, -1)
    position = np.repeat(np.cumsum(advance) - advance, lengths)[None].repeat(axes, 0)
    for start, number, spelling in zip(starts[marks], numbers, spellings, strict=True):
        here = slice(start, start + len(spelling.ids))
        spelled[here], picture[here], slot[here] = spelling.ids, number, spelling.slots
        position[:, here] += spelling.shift
    answer = np.repeat(np.array(tokens.labels) != IGNORE, lengths)
    return TokenSequence(spelled, picture, slot, position, answer)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `start` to `end` follow one another without a fork; all that begins with them ends at `until`."""

    start: int
    end: int
    subtree_end: int
    parent: int  # the segment before, -1 at the root


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTree:
    """The merged lines, in preorder. Arrays are [T]: int64, and float32 for `weight`."""

    ids: Ints
    picture: Ints
    slot: Ints
    position: Ints  # int64[axes, T]
    parent: Ints  # -1 for a first token
    depth: Ints  # how many tokens stand before it in its line
    subtree_end: Ints
    weight: NDArray[np.float32]  # how many lines ask for this token
    segments: tuple[Segment, ...]
    leaves: tuple[int, ...]  # for each line the segment it ends in
    answers: tuple[Ints, ...]  # for each line the tokens it asks for

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, line: int) -> Ints:
        """int64[length]: the tokens of a line, in order."""
        pieces, at = [], self.leaves[line]
        while at >= 0:
            pieces.append(np.arange(self.segments[at].start, self.segments[at].end))
            at = self.segments[at].parent
        return np.concatenate(pieces[::-1])

    def can_attend(self, queries: Ints, keys: Ints) -> NDArray[np.bool_]:
        """bool[queries, keys]: whether a token is itself or an ancestor. What is -1 is seen by -1 alone."""
        return (keys <= queries[:, None]) & (queries[:, None] < self.at("subtree_end", keys))

    def at(self, name: str, tokens: Ints, filler: int = 0) -> Ints:
        """int64[..., *tokens]: what an array of the tree says of tokens, and `filler` for those that are -1."""
        said = getattr(self, name)
        found: Ints = np.concatenate([said, np.full((*said.shape[:-1], 1), filler)], -1)[..., tokens]
        return found

    def drawing(self, words: Sequence[str]) -> str:
        """The tree as text, a segment a line, with a word for each token; what is asked for is in brackets."""
        children: dict[int, list[int]] = {}
        for number, segment in enumerate(self.segments):
            children.setdefault(segment.parent, []).append(number)
        rows: list[str] = []

        def draw(number: int, indent: str, last: bool, root: bool) -> None:
            s = self.segments[number]
            said = "".join(f"[{words[i]}]" if self.weight[i] else words[i] for i in range(s.start, s.end))
            rows.append(f"{s.start:>5}  {indent}{'' if root else '└ ' if last else '├ '}{said}")
            below = children.get(number, [])
            for child in below:
                draw(child, indent + ("" if root else "  " if last else "│ "), child == below[-1], False)

        for number in children.get(-1, []):
            draw(number, "", True, True)
        return "\n".join(rows)

    @property
    def begins(self) -> NDArray[np.bool_]:
        """For each token that is asked for whether it is the first of its answer."""
        asked = np.flatnonzero(self.weight)
        begun: NDArray[np.bool_] = self.weight[self.parent[asked]] == 0
        return begun


@dataclass(slots=True)
class _Node:
    """A stretch of one line that others may share; it is cut where one of them leaves."""

    line: int
    start: int
    end: int
    parent: "_Node | None"
    children: dict[int, "_Node"] = field(default_factory=dict)
    number: int = -1
    first: int = 0  # the token it begins with


def merge(lines: Sequence[TokenSequence]) -> PrefixTree:
    """Merge what the lines share. Siblings stand in the order in which they first appear."""
    keys = [line.keys for line in lines]
    root = _Node(0, 0, 0, None)
    ends = [_insert(root, keys, number) for number in range(len(lines))]
    order = list(_preorder(root))
    at = 0
    for number, node in enumerate(order):
        node.number, node.first = number, at
        at += node.end - node.start
    after = [at] * len(order)
    for node in reversed(order):  # what follows a node's last descendant; children come after their parent
        last = max((child.number for child in node.children.values()), default=None)
        after[node.number] = node.first + node.end - node.start if last is None else after[last]
    segments = tuple(
        Segment(
            node.first,
            node.first + node.end - node.start,
            after[node.number],
            -1 if node.parent is None or node.parent is root else node.parent.number,
        )
        for node in order
    )

    def laid(name: str) -> Ints:
        return np.concatenate([getattr(lines[node.line], name)[..., node.start : node.end] for node in order], axis=-1)

    parent = np.arange(at) - 1
    parent[[s.start for s in segments]] = [segments[s.parent].end - 1 if s.parent >= 0 else -1 for s in segments]
    tree = PrefixTree(
        laid("ids"),
        laid("picture"),
        laid("slot"),
        laid("position"),
        parent,
        depth=np.concatenate([np.arange(node.start, node.end) for node in order]),
        subtree_end=np.repeat([s.subtree_end for s in segments], [s.end - s.start for s in segments]),
        weight=np.zeros(at, np.float32),
        segments=segments,
        leaves=tuple(node.number for node in ends),
        answers=(),
    )
    answers = tuple(tree.path(number)[line.answer] for number, line in enumerate(lines))
    for asked in answers:
        tree.weight[asked] += 1
    return replace(tree, answers=answers)


def _insert(root: _Node, keys: list[Ints], number: int) -> _Node:
    """Put a line into the tree; gives the node it ends in."""
    own, at, node = keys[number], 0, root
    while at < len(own):
        child = node.children.get(int(own[at]))
        if child is None:
            child = _Node(number, at, len(own), node)
            node.children[int(own[at])] = child
            return child
        other = keys[child.line][child.start : child.end]
        room = min(len(other), len(own) - at)
        differs = np.flatnonzero(other[:room] != own[at : at + room])
        shared = int(differs[0]) if len(differs) else room
        if shared < len(other):
            child = _cut(child, shared, keys)
        node, at = child, at + shared
    return node


def _cut(node: _Node, shared: int, keys: list[Ints]) -> _Node:
    """Split a node after `shared` of its tokens; gives the first part."""
    middle = node.start + shared
    head = _Node(node.line, node.start, middle, node.parent)
    assert node.parent is not None
    node.parent.children[int(keys[node.line][node.start])] = head
    node.start, node.parent = middle, head
    head.children[int(keys[node.line][middle])] = node
    return head


def _preorder(root: _Node) -> Iterator[_Node]:
    waiting = list(reversed(root.children.values()))
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children.values()))


def sketch(
    episode: Episode, scaffold: Scaffold, words: ChatTokenizer, mark: int, decode: Callable[[list[int]], str]
) -> str:
    """The drawing of an episode's tree: every shot count, query and candidate; a picture is one token with its id.

    `mark` is the token that the chat template of `words` writes for a picture, and `decode` makes words of tokens.
    """
    shown: dict[str, int] = {}
    lines = []
    one = ImageTokens(np.array([mark]), np.zeros(1, np.int64), np.zeros((1, 1), np.int64))
    for k in episode.shots_per_class:
        for query in range(len(episode.queries)):
            for candidate in episode.candidates:
                tokens = encode(query_messages(episode, query, k, scaffold, candidate.name), words)
                numbers = [shown.setdefault(item, len(shown)) for item in tokens.pictures]
                lines.append(expand_images(tokens, mark, numbers, [one] * len(numbers)))
    tree, items = merge(lines), list(shown)
    said = zip(tree.ids.tolist(), tree.picture.tolist(), strict=True)
    return tree.drawing([f"<{items[number]}>" if number >= 0 else decode([token]) for token, number in said])


def pack(episodes: Sequence[Sequence[TokenSequence]], room: int) -> list[PrefixTree]:
    """Episodes side by side, so that a tree has at most `room` tokens (more only where one episode alone has).

    Training runs one tree a row: with several episodes to a tree, little is computed for padding.
    """
    rows: list[tuple[int, list[TokenSequence]]] = []
    sizes = [len(merge(lines)) for lines in episodes]
    for number in sorted(range(len(episodes)), key=lambda i: -sizes[i]):
        at = next((i for i, (taken, _) in enumerate(rows) if taken + sizes[number] <= room), None)
        if at is None:
            rows.append((sizes[number], list(episodes[number])))
        else:
            rows[at] = rows[at][0] + sizes[number], [*rows[at][1], *episodes[number]]
    return [merge(lines) for _, lines in rows]
