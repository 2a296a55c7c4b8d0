"""The tree by hand, and against what each line says alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkcontext.errors import InputError
from linkcontext.inference.prefix_tree import ImageTokens, TokenSequence, expand_images, merge, token_keys


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


def test_a_label_decides_what_is_asked_for():
    sequence = expand_images((5, 6, 7), (-100, 6, -100), 9, (), ())
    assert sequence.answer.tolist() == [False, True, False]
    assert expand_images((5, 6, 7), (-100, -100, 7), 9, (), ()).answer.tolist() == [False, False, True]


def test_images_are_expanded_by_hand():
    """Two images of three tokens, of which the second has a mark without features, on three axes."""
    first = ImageTokens(np.array([9, 9]), np.array([0, 1]), np.array([[0, 0], [0, 0], [0, 1]]))
    second = ImageTokens(np.array([8, 9]), np.array([-1, 0]), np.array([[0, 1], [0, 1], [0, 1]]))
    sequence = expand_images((1, 9, 2, 9), (-100, -100, 2, -100), 9, (4, 7), (first, second))
    assert sequence.ids.tolist() == [1, 9, 9, 2, 8, 9]
    assert sequence.image.tolist() == [-1, 4, 4, -1, 7, 7]
    assert sequence.slot.tolist() == [-1, 0, 1, -1, -1, 0]
    assert sequence.position.tolist() == [[0, 1, 1, 3, 4, 5], [0, 1, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    with pytest.raises(InputError, match=r"2 placeholders for 1 pictures"):
        expand_images((1, 9, 2, 9), (-100,) * 4, 9, (4,), (first,))


def test_image_tokens_are_equal_by_content():
    def tokens(ids, slots, shift):
        return ImageTokens(np.array(ids), np.array(slots), np.array(shift))

    one, same = tokens([1, 2], [0, -1], [[0, 1]]), tokens([1, 2], [0, -1], [[0, 1]])
    assert one == same
    assert hash(one) == hash(same)
    others = [
        tokens([1, 3], [0, -1], [[0, 1]]),
        tokens([1, 2], [0, 1], [[0, 1]]),
        tokens([1, 2], [0, -1], [[0, 0]]),
        tokens([1, 2], [0, -1], [[0, 1], [0, 1], [0, 1]]),
    ]
    assert len({one, same, *others}) == 5


@pytest.mark.parametrize(
    ("ids", "slot", "image", "why"),
    [
        (2**20, -1, -1, "over 20 bits"),
        (-1, -1, -1, "over 20 bits"),
        (0, 2**20 - 1, 0, "features"),
        (0, 0, 2**22, "images"),
    ],
)
def test_what_does_not_fit_into_a_key_is_an_error(ids, slot, image, why):
    with pytest.raises(AssertionError, match=why):
        token_keys(np.array([ids]), np.array([slot]), np.array([image]))
    (largest,) = token_keys(np.array([2**20 - 1]), np.array([2**20 - 3]), np.array([2**22 - 3]))
    assert 0 < largest < 2**62


def test_what_all_begin_with_leaves_out_a_last_token():
    assert merge([line("abx"), line("aby")]).shared_length == 2
    assert merge([line("ab"), line("aby")]).shared_length == 1
    assert merge([line("ab"), line("cd")]).shared_length == 0
