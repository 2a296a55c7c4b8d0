"""The schedule by hand, its invariants, and that they catch what they are for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prefix_tree import BY_HAND, line

from linkcontext.inference.prefix_tree import merge
from linkcontext.inference.schedule import (
    EMPTY,
    ForwardPass,
    assert_ancestors_available,
    assert_cache_is_stack,
    assert_complete,
    piece_end,
    schedule,
)

IMAGE = "aaPPPPbb", 1, [-1, -1, 0, 0, 0, 0, -1, -1], [-1, -1, 0, 1, 2, 3, -1, -1]


def listed(passes):
    return [(run.cached.tolist(), run.trunk.tolist(), run.branches.tolist()) for run in passes]


def test_passes_by_hand():
    tree = merge(BY_HAND)
    # The heavier child of the root is the trunk; what leaves it follows, beside its end and then by itself.
    assert listed(schedule(tree, 4)) == [([], [3, 4, 5], [[6]]), ([3, 4, 5], [], [[7, 0, 1, 2]])]
    (one,) = schedule(tree, 8)
    assert (len(one.cached), one.tokens.tolist()) == (0, list(range(8)))


def test_passes_with_rows_of_branches_by_hand():
    tree = merge([line("Qx"), line("Aab"), line("Aac"), line("Ad"), line("Aa", 0)])
    assert "".join(map(chr, tree.ids)) == "QxAabcd"
    # A with all that follows is longer than 3, so that it is trunk. a b c and d leave it behind A, and Q x before it.
    first, second = schedule(tree, 8, 3)
    assert listed([first, second]) == [([], [2], [[3, 4, 5], [0, 1, -1]]), ([2], [], [[6]])]
    assert (first.forks, second.forks) == ((1, 0), (1,))
    compute = np.array([True, False, True, True, False, False, False])
    (only,) = schedule(tree, 8, 1, compute=compute)
    assert listed([only]) == [([], [2], [[3], [0]])]
    assert only.forks == (1, 0)


def test_rows_have_branches_of_like_length_by_hand():
    """Sorted by length, little is padding; branches of one fork that fit share a row."""
    tree = merge([line("A" * 9 + tail) for tail in ("bbbb", "c", "ddd", "e", "f")])
    passes = schedule(tree, 10, 4)
    assert listed(passes)[0] == ([], [*range(9)], [])
    assert [run.branches.tolist() for run in passes[1:]] == [[[9, 10, 11, 12], [14, 15, 16, 13]], [[17], [18]]]


def test_a_second_trunk_follows_on_the_cache_cut_back_to_its_fork():
    tree = merge([line("aabbbbb"), line("aaccccc"), line("aad")])
    assert [(run.cached.tolist(), run.trunk.tolist()) for run in schedule(tree, 4, 2)] == [
        ([], [0, 1]),  # pieces end where another trunk will begin
        ([0, 1], [2, 3, 4, 5]),
        ([0, 1, 2, 3, 4, 5], [6]),
        ([0, 1], [7, 8, 9, 10]),
        ([0, 1, 7, 8, 9, 10], [11]),
    ]


def test_cached_tokens_are_not_computed():
    tree = merge([line("AaQx"), line("AaQy")])
    assert listed(schedule(tree, 2, cached=2)) == [([0, 1], [2], [[3]]), ([0, 1, 2], [], [[4]])]


def test_no_image_is_split_where_its_tokens_attend_to_each_other():
    tree = merge([line(*IMAGE)])
    assert [run.tokens.tolist() for run in schedule(tree, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [run.tokens.tolist() for run in schedule(tree, 3, whole_images=True)] == [[0, 1], [2, 3, 4, 5], [6, 7]]


def test_a_piece_of_a_trunk_ends_before_an_image_or_behind_it():
    slots = merge([line(*IMAGE)]).slot
    assert [piece_end(slots, start, 3, whole_images=True) for start in (0, 2, 6)] == [2, 6, 8]
    assert [piece_end(slots, start, 3, whole_images=False) for start in (0, 2, 6)] == [3, 5, 8]
    assert piece_end(slots[:4], 0, 8, whole_images=True) == 4  # where a prefix ends, its owner has said


texts = st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=12)


@settings(deadline=None)  # a machine may be busy
@given(texts, st.integers(1, 12), st.none() | st.integers(1, 12))
def test_passes_compute_every_token_once_on_top_of_its_ancestors(texts, max_tokens, max_branch):
    tree = merge([line(text) for text in texts])
    stack, computed = [], []
    for run in schedule(tree, max_tokens, max_branch):
        assert 0 < len(run.tokens) <= max_tokens
        stack = stack[: len(run.cached)]
        assert run.cached.tolist() == stack  # the cache only ever loses its end
        path = stack + run.trunk.tolist()
        visible = [(len(stack), path)] * (len(run.trunk) > 0)
        # Rows attend to the path before their fork and to nothing of each other.
        visible += [(fork, path[:fork] + row.tolist()) for fork, row in zip(run.forks, run.branches, strict=True)]
        for before, tokens in ((before, np.array(tokens)) for before, tokens in visible):
            own = tokens[before:][tokens[before:] >= 0]
            if max_branch is not None:  # without a mask
                assert tree.can_attend(own, tokens[:before]).all()
            for token in own:
                ancestors = np.flatnonzero(tree.can_attend(np.array([token]), np.arange(len(tree)))[0])
                assert {*tokens.tolist()}.issuperset(ancestors.tolist())
        assert (tree.parent[run.trunk[1:]] == run.trunk[:-1]).all()
        stack += run.trunk.tolist()
        computed += run.tokens[run.tokens >= 0].tolist()
    assert sorted(computed) == list(range(len(tree)))
    assert max_branch is not None or (run.tokens >= 0).all()


def test_a_token_that_is_missing_or_computed_twice_is_caught():
    tree = merge(BY_HAND)
    passes, wanted = schedule(tree, 4), np.ones(8, np.bool_)
    for wrong in (passes[:-1], [*passes, passes[-1]]):
        with pytest.raises(AssertionError, match="computed twice, or not at all"):
            assert_complete(wrong, wanted)


def test_a_token_without_its_ancestors_is_caught():
    tree = merge(BY_HAND)
    first, last = schedule(tree, 4)
    for wrong in (replace(last, cached=np.array([3, 4])), replace(last, branches=np.array([[6, 2]]))):
        with pytest.raises(AssertionError, match="misses an ancestor"):
            assert_ancestors_available(tree, [first, wrong], False)
    with pytest.raises(AssertionError, match="misses an ancestor"):  # it would attend to tokens behind its fork
        assert_ancestors_available(tree, [ForwardPass(EMPTY, np.array([3, 4, 5]), np.array([[0, 1]]), (3,))], True)
    with pytest.raises(AssertionError, match="trunk has a gap"):
        assert_ancestors_available(tree, [ForwardPass(EMPTY, np.array([3, 5]))], True)


def test_a_pass_on_another_cache_is_caught():
    passes = schedule(merge(BY_HAND), 4)
    with pytest.raises(AssertionError, match="holds other tokens"):
        assert_cache_is_stack([passes[1], passes[0]], 0)
