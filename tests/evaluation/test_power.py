import numpy as np
import pytest
from scipy.stats import nct

from linkcontext.evaluation.compare import paired_interval
from linkcontext.evaluation.intervals import t95
from linkcontext.evaluation.power import detectable, holm


def test_holm_by_hand():
    # .005 x 4, .01 x 3, .03 x 2, and .04 x 1 may not come before .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_the_smallest_difference_by_hand():
    # With many episodes half an interval is 1.960 errors, and 1.960 + .842 of them are found in four of five runs.
    assert detectable((0.4, 0.6), 100_000) == pytest.approx(0.1 * (1 + 0.8416 / 1.9600), abs=1e-4)
    assert detectable((-1.0, 1.0), 1) is None
    assert detectable((-1.0, 1.0), 2) == 1.0


@pytest.mark.parametrize("episodes", [10, 50, 400])
def test_it_is_found_in_four_of_five_runs(episodes):
    """Against the power of Student's test itself."""
    differences = np.random.default_rng(episodes).normal(0, 0.4, 2 * episodes).clip(-1, 1)
    ci95 = paired_interval(differences, [str(i // 2) for i in range(2 * episodes)])
    error = (ci95[1] - ci95[0]) / 2 / t95(episodes - 1)
    assert nct.sf(t95(episodes - 1), episodes - 1, detectable(ci95, episodes) / error) == pytest.approx(0.8, abs=0.02)
