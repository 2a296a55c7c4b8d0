"""The order in which a prefix tree is computed: forward passes of bounded size on top of a KV cache.

A trunk that does not fit into one pass is computed in pieces, like the chunked prefill of Sarathi (arXiv 2308.16369)
and vLLM. Short branches of one fork are computed side by side in one pass with the next piece of the trunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from linkcontext.inference.prefix_tree import Ints, PrefixTree

EMPTY = np.empty(0, np.int64)
NO_BRANCHES = np.empty((0, 0), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPass:
    """One forward pass on top of the KV cache.

    The tokens `cached`, int64[p], are the common ancestors of all that is computed. `trunk`, int64[t], are tokens that
    follow one another and stay in the cache. `branches`, int64[g, l], begin where the trunk begins: each row holds one
    or more of them, one after the other, and attends neither to the trunk nor to other rows. Rows are padded with -1.
    """

    cached: Ints
    trunk: Ints
    branches: Ints = field(default_factory=lambda: NO_BRANCHES)

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

    A child of a fork that has at most `max_branch` tokens with all below it is a branch. Branches of one fork are
    computed side by side, beside the next piece of the trunk. Everything else is trunk.

    Args:
        tree: the tree to compute.
        max_tokens: the most tokens of a pass. A tree of at most so many is computed in one pass without a cache.
        max_branch: the most tokens of a branch. Rows are then as long as the longest branch of the pass. Without it a
            pass has one row of branches, which may fill the whole pass.
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
    assert_ancestors_available(tree, passes)
    assert_cache_is_stack(passes, cached)
    assert whole_images or all(len(each.tokens) <= max_tokens for each in passes), "a pass is too long"
    return passes


def piece_end(tree: PrefixTree, start: int, limit: int, max_tokens: int, whole_images: bool) -> int:
    """Where a piece of a trunk ends that begins at token `start`, at most at `limit`."""
    end = min(start + max_tokens, limit)
    return _image_boundary(tree, start, end, limit) if whole_images else end


def assert_complete(passes: Sequence[ForwardPass], wanted: NDArray[np.bool_]) -> None:
    """Invariant: every wanted token is computed in exactly one pass, and no other token is computed."""
    computed = np.concatenate([each.tokens for each in passes]) if passes else EMPTY
    counts = np.bincount(computed[computed >= 0], minlength=len(wanted))
    assert np.array_equal(counts, wanted), "a token is computed twice, or not at all"


def assert_ancestors_available(tree: PrefixTree, passes: Sequence[ForwardPass]) -> None:
    """Invariant: a token's parent is computed in the same trunk or row, or is the last of the cached tokens."""
    for each in passes:
        last = each.cached[-1] if len(each.cached) else -1
        if len(each.trunk):
            parents = tree.parent[each.trunk]
            assert parents[0] == last and (parents[1:] == each.trunk[:-1]).all(), "a trunk has a gap"
        for row in each.branches:
            tokens = row[row >= 0]
            parents = tree.parent[tokens]
            assert ((parents == last) | np.isin(parents, tokens)).all(), "a branch misses an ancestor"


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
        self.before = np.concatenate([[0], np.cumsum(self.wanted)])  # wanted tokens before each token
        self.limit = self.max_tokens if self.max_branch is None else min(self.max_branch, self.max_tokens)
        self.children: dict[int, list[int]] = {}
        for number, segment in enumerate(self.tree.segments):
            self.children.setdefault(segment.parent, []).append(number)

    def run(self) -> list[ForwardPass]:
        """All passes, depth first."""
        # Unfinished forks with the cached tokens there. Last in, first out, so that the cache only loses its end.
        waiting: list[tuple[list[int], Ints]] = [(self.children.get(-1, []), np.arange(self.cached))]
        while waiting:
            fork, cached = waiting.pop()
            has_branches = self._add_branches(fork, cached)
            large = [number for number in fork if self._size(number) > self.limit]
            if not large:
                continue
            # One large child at a time. Its siblings come when everything below it is done.
            number, *others = large
            if others:
                waiting.append((others, cached))
            start, cached = self._add_trunk(number, cached, has_branches)
            segment = self.tree.segments[number]
            if start == segment.end:
                waiting.append((self.children.get(number, []), cached))
            elif self._count(start, segment.subtree_end):  # the rest of the segment is a branch, with all below it
                self.passes.append(ForwardPass(cached, EMPTY, self._tokens(start, segment.subtree_end)[None]))
        return self.passes

    def _count(self, start: int, end: int) -> int:
        return int(self.before[end] - self.before[start])

    def _size(self, number: int) -> int:
        return self._count(self.tree.segments[number].start, self.tree.segments[number].subtree_end)

    def _tokens(self, start: int, end: int) -> Ints:
        return start + np.flatnonzero(self.wanted[start:end])

    def _add_branches(self, fork: Sequence[int], cached: Ints) -> bool:
        """Compute the small children of a fork side by side. Returns whether there are any."""
        small = [self.tree.segments[number] for number in fork if 0 < self._size(number) <= self.limit]
        branches = [self._tokens(segment.start, segment.subtree_end) for segment in small]
        length = self.max_tokens if self.max_branch is None else max(map(len, branches), default=1)
        rows, rows_in_pass = _rows(branches, length), self.max_tokens // length
        self.passes += [
            ForwardPass(cached, EMPTY, _padded(rows[i : i + rows_in_pass])) for i in range(0, len(rows), rows_in_pass)
        ]
        return bool(branches)

    def _add_trunk(self, number: int, cached: Ints, has_branches: bool) -> tuple[int, Ints]:
        """Compute a segment in pieces until the rest of its subtree is small. Returns where that begins and the cache.

        The first piece joins the last pass of the fork's branches if there is room.
        """
        segment = self.tree.segments[number]
        start = max(segment.start, self.cached)
        while start < segment.end and self._count(start, segment.subtree_end) > self.limit:
            end = piece_end(self.tree, start, segment.end, self.max_tokens, self.whole_images)
            piece = self._tokens(start, end)
            beside = self.passes[-1].branches if has_branches and start == segment.start else NO_BRANCHES
            if beside.size and beside.size + len(piece) <= self.max_tokens:
                self.passes[-1] = ForwardPass(cached, piece, beside)
            else:
                self.passes.append(ForwardPass(cached, piece))
            cached, start = np.concatenate([cached, piece]), end
        return start, cached


def _rows(branches: list[Ints], length: int) -> list[Ints]:
    """Branches one after the other, in rows of at most `length` tokens."""
    rows: list[list[Ints]] = []
    taken = length
    for branch in branches:
        if taken + len(branch) > length:
            rows.append([])
            taken = 0
        rows[-1].append(branch)
        taken += len(branch)
    return [np.concatenate(row) for row in rows]


def _padded(rows: Sequence[Ints]) -> Ints:
    """int64[rows, longest], padded with -1 on the right."""
    padded = np.full((len(rows), max(map(len, rows))), -1)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = tokens
    return padded


def _image_boundary(tree: PrefixTree, start: int, end: int, limit: int) -> int:
    """The place next to `end` that splits no image: before the image there, or behind it if it begins at `start`."""
    before = end
    while before > start and before < limit and tree.slot[before] > 0:
        before -= 1
    if before > start:
        return before
    while end < limit and tree.slot[end] > 0:
        end += 1
    return end
