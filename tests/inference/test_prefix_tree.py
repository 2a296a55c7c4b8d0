"""The tree by hand, and against what each line says alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from linkcontext.inference.prefix_tree import TokenSequence, merge
from linkcontext.inference.schedule import schedule


def line(text, answer=1, picture=(), slot=()):
    ids = np.array([ord(c) for c in text])
    n = len(ids)
    return TokenSequence(
        ids,
        np.array(picture or [-1] * n),
        np.array(slot or [-1] * n),
        np.arange(n)[None],
        np.arange(n) >= n - answer,
    )


BY_HAND = [line("Qx"), line("Qy"), line("AaQx"), line("AaQy")]


def test_the_drawn_example():
    tree = merge(BY_HAND)
    assert "".join(map(chr, tree.ids)) == "QxyAaQxy"
    assert tree.parent.tolist() == [-1, 0, 0, -1, 3, 4, 5, 5]
    assert tree.depth.tolist() == [0, 1, 1, 0, 1, 2, 3, 3]
    assert tree.subtree_end.tolist() == [3, 2, 3, 8, 8, 8, 7, 8]
    assert tree.weight.tolist() == [0, 1, 1, 0, 0, 0, 1, 1]
    assert [asked.tolist() for asked in tree.answers] == [[1], [2], [6], [7]]
    everyone = np.arange(8)
    seen = [np.flatnonzero(row).tolist() for row in tree.can_attend(everyone, everyone)]
    assert seen == [[0], [0, 1], [0, 2], [3], [3, 4], [3, 4, 5], [3, 4, 5, 6], [3, 4, 5, 7]]


def test_the_drawing():
    assert merge(BY_HAND).drawing([chr(i) for i in merge(BY_HAND).ids]).splitlines() == [
        "    0  Q",
        "    1  ├ [x]",
        "    2  └ [y]",
        "    3  AaQ",
        "    6  ├ [x]",
        "    7  └ [y]",
    ]


def test_passes_by_hand():
    tree = merge(BY_HAND)
    told = [(run.before.tolist(), run.trunk.tolist(), run.branches.tolist()) for run in schedule(tree, 4)]
    assert told == [([], [], [[0, 1, 2]]), ([], [3, 4, 5], []), ([3, 4, 5], [], [[6, 7]])]
    (one,) = schedule(tree, 8)
    assert (len(one.before), one.tokens.tolist()) == (0, list(range(8)))


def test_passes_with_rows_of_branches_by_hand():
    tree = merge([line("Qx"), line("Aab"), line("Aac"), line("Ad"), line("Aa", 0)])
    assert "".join(map(chr, tree.ids)) == "QxAabcd"
    told = [(run.before.tolist(), run.trunk.tolist(), run.branches.tolist()) for run in schedule(tree, 8, 3)]
    # A with all that follows is longer than 3, so that it is trunk; Q x stands beside it, as a and d do on it.
    assert told == [([], [2], [[0, 1]]), ([2], [], [[3, 4, 5], [6, -1, -1]])]
    read = np.array([True, False, True, True, False, False, False])
    told = [(run.before.tolist(), run.trunk.tolist(), run.branches.tolist()) for run in schedule(tree, 8, 1, read=read)]
    assert told == [([], [2], [[0]]), ([2], [], [[3]])]


def test_the_same_line_twice_is_there_once_and_counts_twice():
    tree = merge([line("abx"), line("abx"), line("ab", 0)])
    assert len(tree) == 3
    assert tree.weight.tolist() == [0, 0, 2]
    assert tree.path(2).tolist() == [0, 1]


def test_equal_words_over_other_pictures_are_not_shared():
    a = line("PPx", 1, [0, 0, -1], [0, 1, -1])
    b = line("PPx", 1, [1, 1, -1], [0, 1, -1])
    assert len(merge([a, b])) == 6
    assert len(merge([a, a])) == 3


def test_no_picture_is_cut_where_its_tokens_see_each_other():
    tree = merge([line("aaPPPPbb", 1, [-1, -1, 0, 0, 0, 0, -1, -1], [-1, -1, 0, 1, 2, 3, -1, -1])])
    assert [run.tokens.tolist() for run in schedule(tree, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [run.tokens.tolist() for run in schedule(tree, 3, whole_pictures=True)] == [[0, 1], [2, 3, 4, 5], [6, 7]]


lines = st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=12)


@given(lines)
def test_every_line_is_found_again(texts):
    tree = merge([line(text) for text in texts])
    for number, text in enumerate(texts):
        path = tree.path(number)
        assert "".join(map(chr, tree.ids[path])) == text
        assert tree.depth[path].tolist() == tree.position[0, path].tolist() == list(range(len(text)))
        assert tree.parent[path].tolist() == [-1, *path[:-1].tolist()]
        # What a token of the tree sees is what it saw in its line.
        sees = tree.can_attend(path, np.arange(len(tree)))
        for i, row in enumerate(sees):
            assert np.flatnonzero(row).tolist() == path[: i + 1].tolist()
    assert len(tree) == len({text[: i + 1] for text in texts for i in range(len(text))})
    assert tree.weight.sum() == len(texts)


@given(lines, st.integers(1, 12), st.none() | st.integers(1, 12))
def test_passes_run_every_token_once_on_top_of_its_ancestors(texts, room, width):
    tree = merge([line(text) for text in texts])
    kept, run_before = [], []
    for run in schedule(tree, room, width):
        assert 0 < len(run.tokens) <= room
        kept = kept[: len(run.before)]
        assert run.before.tolist() == kept  # the cache only ever loses its end
        there = [kept + run.trunk.tolist()] * (len(run.trunk) > 0)
        there += [kept + row.tolist() for row in run.branches]  # which see nothing of each other
        for tokens in map(np.array, there):
            own = tokens[len(kept) :][tokens[len(kept) :] >= 0]
            assert tree.can_attend(own, run.before).all()
            for token in own:
                ancestors = np.flatnonzero(tree.can_attend(np.array([token]), np.arange(len(tree)))[0])
                assert {*tokens.tolist()}.issuperset(ancestors.tolist())
        assert (tree.parent[run.trunk[1:]] == run.trunk[:-1]).all()
        kept += run.trunk.tolist()
        run_before += run.tokens[run.tokens >= 0].tolist()
    assert sorted(run_before) == list(range(len(tree)))
    assert width is not None or (run.tokens >= 0).all()
