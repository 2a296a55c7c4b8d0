"""Learning rates by hand."""

import pytest

from linkcontext.train.schedule import cosine, warmup_stable_decay


def test_cosine_by_hand():
    assert [cosine(step, 12, 0.25) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert cosine(3, 12, 0.25) == 1  # the fall begins at the peak
    assert cosine(7, 11, 0.3) == pytest.approx(0.5)
    assert 0 < cosine(11, 12, 0.25) < 0.1
    assert cosine(0, 1, 0.0) == 1


def test_warmup_stable_decay_by_hand():
    def rate(step):
        return warmup_stable_decay(step, 100, warmup=10, decay=0.5, floor=0.05)

    assert rate(0) == pytest.approx(0.1)
    assert rate(9) == rate(49) == 1.0
    assert rate(75) == pytest.approx(0.05 + 0.95 * 0.5)
    assert rate(99) == pytest.approx(0.05 + 0.95 * 0.02)
