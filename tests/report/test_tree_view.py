import re

import numpy as np

from linkcontext.evaluation.attribution_file import TreeSegment, TreeToken, TreeView
from linkcontext.report.tree_view import branches, mask

# The tree at the head of models/tree.py: Q, x and y below it, and behind a support A a the same.
WORDS = "QxyAaQxy"
PIECES = (
    TreeSegment(0, 1, -1),
    TreeSegment(1, 2, 0),
    TreeSegment(2, 3, 0),
    TreeSegment(3, 6, -1),
    TreeSegment(6, 7, 3),
    TreeSegment(7, 8, 3),
)
SEES = ["0", "01", "02", "3", "34", "345", "3456", "3457"]


def reading(pieces=PIECES):
    tokens = tuple(
        TreeToken("<image>" if w == "Q" else w, 3 if w == "Q" else 1, "q" * (w == "Q"), w in "xy") for w in WORDS
    )
    return TreeView("e", 1, 4, 24, 12, tokens, pieces)


def test_pieces_are_nested_and_numbered_as_the_model_counts():
    first, second = branches(reading())
    assert [(b.title, b.first) for b in (first, *first.below)] == [("trunk", 0), ("answer", 3), ("answer", 4)]
    assert [(b.title, b.first) for b in (second, *second.below)] == [("trunk", 5), ("answer", 10), ("answer", 11)]
    assert [(box.text, box.times, box.scored) for box in second.boxes] == [
        ("A", 1, False),
        ("a", 1, False),
        ("picture", 3, False),
    ]
    line = TreeView(
        "e", 1, 1, 2, 2, (TreeToken(" a\n", 1, "", False), TreeToken("", 1, "", True)), (TreeSegment(0, 2, -1),)
    )
    (only,) = branches(line)
    assert (only.title, [box.text for box in only.boxes]) == ("branch", ["·a⏎", "∅"])


def test_the_mask_shows_who_sees_whom():
    """Drawn again cell by cell: rectangles as they are, stairs up to the diagonal."""
    svg = mask(reading())
    shown = np.zeros((8, 8), bool)
    for x, y, w, h in re.findall(r'class="sees" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', svg):
        shown[int(y) : int(y) + int(h), int(x) : int(x) + int(w)] = True
    for start, steps in re.findall(r'd="M(\d+) \1((?:H\d+V\d+)+)H\1Z"', svg):
        for across, down in re.findall(r"H(\d+)V(\d+)", steps):
            assert across == down
            shown[int(down) - 1, int(start) : int(across)] = True
    expected = np.array([[str(k) in row for k in range(8)] for row in SEES])
    assert (shown == expected).all()
    assert re.findall(r'class="asked" x="-2" y="(\d)"', svg) == ["1", "2", "6", "7"]
