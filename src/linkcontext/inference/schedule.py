"""The order in which a prefix tree is computed: forward passes of bounded size on top of a KV cache.

The tree is computed depth first, along its heaviest path. The tokens of that path (the trunk) come first, in pieces as
long as a pass may be, like the chunked prefill of Sarathi (arXiv 2308.16369) and vLLM. Small children that leave the
path (branches) follow, side by side with others of the same or another fork. A large one is a trunk of its own, for
which the cache is cut back to the fork. The cache never holds more than one path from the root.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from linkcontext.inference.prefix_tree import Ints, PrefixTree

EMPTY = np.empty(0, np.int64)
NO_BRANCHES = np.empty((0, 0), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPass:
    """One forward pass on top of the KV cache.

    The tokens `cached`, int64[p], are a path from the root. `trunk`, int64[t], are tokens that continue it, follow one
    another and stay in the cache. `branches`, int64[g, l], hold one or more branches in each row, one after the other,
    padded with -1. A row attends to the first `forks[row]` tokens of the path (cached and trunk), and to no other row.
    """

    cached: Ints
    trunk: Ints
    branches: Ints = field(default_factory=lambda: NO_BRANCHES)
    forks: tuple[int, ...] = ()

    @property
    def tokens(self) -> Ints:
        """int64[t + g x l]: the tokens that are computed, in order; -1 is padding."""
        return np.concatenate([self.trunk, self.branches.ravel()])


def schedule(
    tree: PrefixTree,
    max_tokens: int,
    max_branch: int | None = None,
    whole_images: bool = False,
    compute: NDArray[np.bool_] | None = None,
    cached: int = 0,
) -> list[ForwardPass]:
    """Forward passes that compute the tree.

    A child of a fork that has at most `max_branch` tokens with all below it is a branch. Everything else is trunk.

    Args:
        tree: the tree to compute.
        max_tokens: the most tokens of a pass. A tree of at most so many is computed in one pass without a cache.
        max_branch: the most tokens of a branch. A pass then has rows as long as its longest branch, and all branches of
            a row leave the path at one fork. Without it a pass has one row of branches, which may fill the whole pass
            and need a mask over all keys.
        whole_images: do not split an image between two passes, for networks in which an image's tokens attend to later
            ones of the same image. An image with more than `max_tokens` gets a pass of its own.
        compute: bool[T], the tokens to compute. Those left out must have no tokens below them that are computed.
        cached: the number of tokens, from the first one, that are in the cache already. The tree has no fork before the
            last of them.
    """
    wanted = np.ones(len(tree), np.bool_) if compute is None else compute.copy()
    wanted[:cached] = False
    passes = _Scheduler(tree, max_tokens, max_branch, whole_images, wanted, cached).run()
    assert_complete(passes, wanted)
    assert_ancestors_available(tree, passes, max_branch is not None)
    assert_cache_is_stack(passes, cached)
    assert whole_images or all(len(each.tokens) <= max_tokens for each in passes), "a pass is too long"
    return passes


def piece_end(slots: Ints, start: int, max_tokens: int, whole_images: bool) -> int:
    """Where a piece ends that begins at `start`, of a trunk with the slots int64[t] of its tokens."""
    end = min(start + max_tokens, len(slots))
    return _image_boundary(slots, start, end) if whole_images else end


def assert_complete(passes: Sequence[ForwardPass], wanted: NDArray[np.bool_]) -> None:
    """Invariant: every wanted token is computed in exactly one pass, and no other token is computed."""
    computed = np.concatenate([each.tokens for each in passes]) if passes else EMPTY
    counts = np.bincount(computed[computed >= 0], minlength=len(wanted))
    assert np.array_equal(counts, wanted), "a token is computed twice, or not at all"


def assert_ancestors_available(tree: PrefixTree, passes: Sequence[ForwardPass], single_forks: bool) -> None:
    """Invariant: a token's parent is before it in its trunk or row, or is one of the tokens of the path that its row
    attends to. With `single_forks` it is the last of those."""
    for each in passes:
        path = np.concatenate([[-1], each.cached, each.trunk])
        parents = tree.parent[each.trunk]
        assert (parents == path[len(each.cached) : -1]).all(), "a trunk has a gap"
        for row, fork in zip(each.branches, each.forks, strict=True):
            tokens = row[row >= 0]
            parents = tree.parent[tokens]
            outside = parents[~np.isin(parents, tokens)]
            seen = path[fork : fork + 1] if single_forks else path[: fork + 1]
            assert np.isin(outside, seen).all(), "a branch misses an ancestor"


def assert_cache_is_stack(passes: Sequence[ForwardPass], cached: int) -> None:
    """Invariant: the cache of a pass is what the passes before left in it, cut at its end."""
    stack = np.arange(cached)
    for each in passes:
        assert np.array_equal(stack[: len(each.cached)], each.cached), "the cache holds other tokens"
        stack = np.concatenate([each.cached, each.trunk])


@dataclass
class _Scheduler:
    """The passes of one tree, collected in `passes`."""

    tree: PrefixTree
    max_tokens: int
    max_branch: int | None
    whole_images: bool
    wanted: NDArray[np.bool_]
    cached: int
    passes: list[ForwardPass] = field(default_factory=list)

    def __post_init__(self) -> None:
        before = np.concatenate([[0], np.cumsum(self.wanted)])  # wanted tokens before each token
        bounds = np.array([(segment.start, segment.subtree_end) for segment in self.tree.segments]).reshape(-1, 2)
        self.sizes: list[int] = (before[bounds[:, 1]] - before[bounds[:, 0]]).tolist()  # with all below, by segment
        self.limit = self.max_tokens if self.max_branch is None else min(self.max_branch, self.max_tokens)
        self.children: dict[int, list[int]] = {}
        for number, segment in enumerate(self.tree.segments):
            self.children.setdefault(segment.parent, []).append(number)

    def run(self) -> list[ForwardPass]:
        """All passes, depth first."""
        # Forks with large children that are not computed, and the path to each. Last in, first out, so that the deepest
        # is next and the cache only loses its end.
        waiting: list[tuple[list[int], Ints]] = [(self.children.get(-1, []), np.arange(self.cached))]
        while waiting:
            fork, cached = waiting.pop()
            trunk, branches, forks = self._heaviest_path(fork, len(cached))
            path = np.concatenate([cached, *trunk])
            self._add_trunk(path, len(cached), [length for _, length in forks])
            if self.max_branch is None:
                self._add_row_passes(path, branches, max((length for _, length in forks), default=0))
            else:
                self._add_branch_passes(path, branches)
            waiting += [(others, path[:length]) for others, length in forks]
        return self.passes

    def _heaviest_path(
        self, fork: list[int], length: int
    ) -> tuple[list[Ints], list[tuple[Ints, int]], list[tuple[list[int], int]]]:
        """The large tokens from a fork on that has `length` tokens before it: always on to the largest child.

        Returns the path's pieces, the branches that leave it with the number of tokens before each, and the forks with
        other large children, likewise.
        """
        trunk: list[Ints] = []
        branches: list[tuple[Ints, int]] = []
        forks: list[tuple[list[int], int]] = []
        while fork:
            small = [self.tree.segments[number] for number in fork if 0 < self.sizes[number] <= self.limit]
            branches += [(self._tokens(segment.start, segment.subtree_end), length) for segment in small]
            large = [number for number in fork if self.sizes[number] > self.limit]
            if not large:
                break
            number = max(large, key=self.sizes.__getitem__)
            if len(large) > 1:
                forks.append(([other for other in large if other != number], length))
            trunk.append(self._tokens(self.tree.segments[number].start, self.tree.segments[number].end))
            length += len(trunk[-1])
            fork = self.children.get(number, [])
        return trunk, branches, forks

    def _tokens(self, start: int, end: int) -> Ints:
        return start + np.flatnonzero(self.wanted[start:end])

    def _add_trunk(self, path: Ints, start: int, forks: Sequence[int]) -> None:
        """Compute a path behind its first `start` tokens, in pieces that end where another trunk will begin."""
        slots = self.tree.slot[path]
        while start < len(path):
            limit = min(fork for fork in (*forks, len(path)) if fork > start)
            end = piece_end(slots[:limit], start, self.max_tokens, self.whole_images)
            self.passes.append(ForwardPass(path[:start], path[start:end]))
            start = end

    def _room(self, path: Ints) -> int:
        """How many tokens the last pass can still take if it ends the path."""
        last = self.passes[-1] if self.passes else None
        ends = last is not None and len(last.trunk) > 0 and len(last.cached) + len(last.trunk) == len(path)
        return self.max_tokens - len(last.tokens) if last is not None and ends else 0

    def _add_branch_passes(self, path: Ints, branches: list[tuple[Ints, int]]) -> None:
        """Compute branches in rows of like length, the first of them beside the end of the path if there is room."""
        branches = sorted(branches, key=lambda branch: -len(branch[0]))
        room = self._room(path)
        rows: list[tuple[list[Ints], int]] = []  # of the pass that is being filled, each with its fork
        free: dict[int, tuple[int, int]] = {}  # for each fork the row that is being filled, and its free tokens
        length = 0
        for tokens, fork in branches:
            row, space = free.get(fork, (-1, 0))
            if rows and len(tokens) <= space:
                rows[row][0].append(tokens)
                free[fork] = row, space - len(tokens)
                continue
            if rows and (len(rows) + 1) * length > (room or self.max_tokens):
                self._add_rows(path, rows, beside=room > 0)
                room, rows, free = 0, [], {}
            if not rows:
                length = len(tokens)
                room = room if length <= room else 0
            free[fork] = len(rows), length - len(tokens)
            rows.append(([tokens], fork))
        if rows:
            self._add_rows(path, rows, beside=room > 0)

    def _add_rows(self, path: Ints, rows: list[tuple[list[Ints], int]], beside: bool) -> None:
        """One pass of rows of branches, sorted by fork, or the same beside the last pass."""
        rows = sorted(rows, key=lambda row: -row[1])
        branches = _padded([np.concatenate(row) for row, _ in rows])
        forks = tuple(fork for _, fork in rows)
        if beside:
            last = self.passes.pop()
            self.passes.append(ForwardPass(last.cached, last.trunk, branches, forks))
        else:
            self.passes.append(ForwardPass(path, EMPTY, branches, forks))

    def _add_row_passes(self, path: Ints, branches: list[tuple[Ints, int]], kept: int) -> None:
        """Compute branches in passes of one row, the deepest first, each on no more of the path than it needs, but on
        the first `kept` tokens, where other trunks will begin."""
        branches = sorted(branches, key=lambda branch: -branch[1])
        room = self._room(path)
        beside = bool(branches) and 0 < len(branches[0][0]) <= room
        for row, fork in _filled(branches, room if beside else self.max_tokens, self.max_tokens):
            last = self.passes.pop() if beside else ForwardPass(path[: max(fork, kept)], EMPTY)
            self.passes.append(ForwardPass(last.cached, last.trunk, row[None], (fork,)))
            beside = False


def _filled(branches: Iterable[tuple[Ints, int]], room: int, later: int) -> list[tuple[Ints, int]]:
    """Branches one after the other, in a row of `room` tokens and then in rows of `later`; each with its first fork."""
    rows: list[tuple[list[Ints], int]] = []
    taken = 0
    for tokens, fork in branches:
        if not rows or taken + len(tokens) > room:
            room = later if rows else room
            rows.append(([], fork))
            taken = 0
        rows[-1][0].append(tokens)
        taken += len(tokens)
    return [(np.concatenate(row), fork) for row, fork in rows]


def _padded(rows: Sequence[Ints]) -> Ints:
    """int64[rows, longest], padded with -1 on the right."""
    padded = np.full((len(rows), max(map(len, rows))), -1)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = tokens
    return padded


def _image_boundary(slots: Ints, start: int, end: int) -> int:
    """The place next to `end` that splits no image: before the image there, or behind it if it begins at `start`."""
    before = end
    while before > start and before < len(slots) and slots[before] > 0:
        before -= 1
    if before > start:
        return before
    while end < len(slots) and slots[end] > 0:
        end += 1
    return end
