"""The order in which a prefix tree is computed: forward passes on top of a key-value cache."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from linkcontext.inference.prefix_tree import Ints, PrefixTree

EMPTY = np.empty(0, np.int64)
NO_BRANCHES = np.empty((0, 0), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPass:
    """One forward pass on top of `before` int64[p], ancestors of all that it runs, whose keys and values are cached.

    `trunk` int64[t] follow one another and stay in the cache. `branches` int64[g, l] begin where the trunk does: each
    row holds one or more of them, which see nothing of the trunk nor of other rows, and is filled up with -1.
    """

    before: Ints
    trunk: Ints
    branches: Ints = field(default_factory=lambda: NO_BRANCHES)

    @property
    def tokens(self) -> Ints:
        """int64[t + g x l]: what is computed, in order."""
        return np.concatenate([self.trunk, self.branches.ravel()])


def schedule(
    tree: PrefixTree,
    room: int,
    width: int | None = None,
    whole_pictures: bool = False,
    read: NDArray[np.bool_] | None = None,
    held: int = 0,
) -> list[ForwardPass]:
    """The tree in passes of at most `room` tokens. What fits into `width` with all that begins with it is a branch;
    branches of one fork are run side by side, beside the trunk's next piece. What does not fit is trunk.

    Without `width` a pass has one row of branches, which takes what room there is; else it has rows as long as the
    longest branch. With room for the whole tree there is one pass and no cache. With `whole_pictures` no picture is
    cut in two, for networks in which a picture's tokens see those after them; one that is larger than `room` gets a
    pass to itself. `read` bool[T] leaves tokens out, of which none may have any that follow. The first `held` tokens
    are in the cache already; no fork comes before the last of them.
    """
    read = np.ones(len(tree), np.bool_) if read is None else read.copy()
    read[:held] = False
    count = np.concatenate([[0], np.cumsum(read)])
    below: dict[int, list[int]] = {}
    for number, segment in enumerate(tree.segments):
        below.setdefault(segment.parent, []).append(number)

    def those(start: int, end: int) -> Ints:
        return start + np.flatnonzero(read[start:end])

    found: list[ForwardPass] = []
    most = room if width is None else min(width, room)
    # A fork waits with what is in the cache there. Last in, first out: the cache only loses its end.
    waiting: list[tuple[list[int], Ints]] = [(below.get(-1, []), np.arange(held))]
    while waiting:
        children, on = waiting.pop()
        segments = [tree.segments[number] for number in children]
        sizes = [count[segment.subtree_end] - count[segment.start] for segment in segments]
        side = [those(s.start, s.subtree_end) for s, size in zip(segments, sizes, strict=True) if 0 < size <= most]
        length = room if width is None else max(map(len, side), default=1)
        rows, several = _rows(side, length), room // length
        found += [ForwardPass(on, EMPTY, _filled(rows[i : i + several])) for i in range(0, len(rows), several)]
        large = [number for number, size in zip(children, sizes, strict=True) if size > most]
        if not large:
            continue
        # One large child at a time; its brothers come when everything below it is done.
        number, *others = large
        if others:
            waiting.append((others, on))
        segment = tree.segments[number]
        start = max(segment.start, held)
        while start < segment.end and count[segment.subtree_end] - count[start] > most:
            end = piece_end(tree, start, segment.end, room, whole_pictures)
            piece = those(start, end)
            beside = found[-1].branches if side and start == segment.start else NO_BRANCHES
            if beside.size and beside.size + len(piece) <= room:
                found[-1] = ForwardPass(on, piece, beside)
            else:
                found.append(ForwardPass(on, piece))
            on, start = np.concatenate([on, piece]), end
        if start == segment.end:
            waiting.append((below.get(number, []), on))
        elif count[segment.subtree_end] > count[start]:  # the rest of it is a branch, with all that follows
            found.append(ForwardPass(on, EMPTY, those(start, segment.subtree_end)[None]))
    return found


def _rows(branches: list[Ints], length: int) -> list[Ints]:
    """Branches one behind the other, in rows of at most `length`."""
    rows: list[list[Ints]] = []
    taken = length
    for branch in branches:
        if taken + len(branch) > length:
            rows.append([])
            taken = 0
        rows[-1].append(branch)
        taken += len(branch)
    return [np.concatenate(row) for row in rows]


def _filled(rows: Sequence[Ints]) -> Ints:
    """int64[rows, longest]: the rest is -1."""
    found = np.full((len(rows), max(map(len, rows))), -1)
    for row, tokens in zip(found, rows, strict=True):
        row[: len(tokens)] = tokens
    return found


def piece_end(tree: PrefixTree, start: int, limit: int, room: int, whole_pictures: bool) -> int:
    """Where a piece of a trunk ends that begins at `start`."""
    end = min(start + room, limit)
    return _around_pictures(tree, start, end, limit) if whole_pictures else end


def _around_pictures(tree: PrefixTree, start: int, end: int, limit: int) -> int:
    """Where to stop so as to cut no picture: before the one at `end`, or behind it if it is the first."""
    first = end
    while first > start and first < limit and tree.slot[first] > 0:
        first -= 1
    if first > start:
        return first
    while end < limit and tree.slot[end] > 0:
        end += 1
    return end
