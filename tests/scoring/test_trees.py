"""Expanded sequences are kept by all that decides them."""

from types import SimpleNamespace

import numpy as np

from linkcontext.episodes.render import IGNORE, Tokens
from linkcontext.inference.prefix_tree import ImageTokens
from linkcontext.scoring.trees import TreeBuilder

MARK = 9


def builder(*images):
    """A builder whose pictures are written with these tokens each, numbered in order."""
    seen = [SimpleNamespace(image_tokens=tokens) for tokens in images]
    encoder = SimpleNamespace(loaded=SimpleNamespace(context=100))
    preprocessor = SimpleNamespace(image_token=MARK, in_prompt=tuple)
    pictures = SimpleNamespace(
        seen=seen, numbered=lambda items: list(map(int, items)), eyes=SimpleNamespace(preprocessor=preprocessor)
    )
    return TreeBuilder(encoder, pictures)


def written(count):
    return ImageTokens(np.full(count, MARK), np.arange(count), np.arange(count)[None])


def test_equal_tokens_with_other_labels_ask_for_other_answers():
    trees = builder()
    first = trees.expand(Tokens((5, 6, 7), (IGNORE, 6, 7), ()))
    second = trees.expand(Tokens((5, 6, 7), (IGNORE, IGNORE, 7), ()))
    assert first.answer.tolist() == [False, True, True]
    assert second.answer.tolist() == [False, False, True]


def test_equal_tokens_with_other_pictures_are_other_sequences():
    trees = builder(written(2), written(2), written(3))
    first, alike, longer = (trees.expand(Tokens((5, MARK, 7), (IGNORE,) * 3, (item,))) for item in "012")
    assert first.image.tolist() == [-1, 0, 0, -1]
    assert alike.image.tolist() == [-1, 1, 1, -1]
    assert longer.image.tolist() == [-1, 2, 2, 2, -1]
    assert len(trees._kept) == 2  # two pictures are written alike, and serve one another
