"""A small tree as text."""

import numpy as np

from linkcontext.inference.prefix_tree import TokenSequence, merge
from linkcontext.report.tree_drawing import draw_tree


def sequence(text):
    ids, none = np.array([ord(c) for c in text]), np.full(len(text), -1)
    return TokenSequence(ids, none, none, np.arange(len(text))[None], np.arange(len(text)) == len(text) - 1)


def test_a_tree_by_hand():
    tree = merge([sequence(text) for text in ("Qx", "Qy", "AaQx", "AaQy")])
    assert draw_tree(tree, [chr(i) for i in tree.ids]).splitlines() == [
        "    0  Q",
        "    1  ├ [x]",
        "    2  └ [y]",
        "    3  AaQ",
        "    6  ├ [x]",
        "    7  └ [y]",
    ]
