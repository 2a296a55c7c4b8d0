"""Scores in portions are those of one tree, and what portions begin with is computed once."""

import pytest
import torch
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prefix_tree import line

from linkcontext.inference.engine import Engine
from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.portions import scores_in_portions
from linkcontext.inference.prefix_tree import merge


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return FAMILIES["llava"]()[0]


def whole(network, lines):
    return Engine(network, 10**6).scores(TreeInputs(merge(lines), []))


texts = st.lists(st.text("abc", min_size=2, max_size=12), min_size=1, max_size=10)


@settings(deadline=None, max_examples=30)
@given(texts=texts, portion=st.integers(1, 5), answer=st.integers(1, 4))
def test_portions_score_what_one_tree_scores(network, texts, portion, answer):
    """In any order, also where an answer begins right behind what is kept, or the path parts."""
    lines = [line(text, min(answer, len(text) - 1)) for text in texts]
    found = list(scores_in_portions(Engine(network, 6, 3), iter(lines), [], portion))
    assert found == pytest.approx(whole(network, lines), abs=1e-4)


def test_in_the_order_of_the_tree_a_trunk_is_computed_once(network, monkeypatch):
    support = "a long support, "
    lines = [line(support + query + answer) for query in ("abcd", "efgh", "ijkl") for answer in "xy"]
    ran = []
    decode = TreeForward.decode
    monkeypatch.setattr(TreeForward, "decode", lambda self, x, *rest: ran.append(x.shape[1]) or decode(self, x, *rest))
    assert list(scores_in_portions(Engine(network, 32, 8), lines, [], 2)) == pytest.approx(
        whole(network, lines), abs=1e-4
    )
    del ran[-1]  # of the whole tree
    assert sum(ran) == len(support) + 3 * 4
