import math

import numpy as np
import pytest
from scipy import stats

from linkcontext.evaluation.intervals import (
    class_jackknife,
    clustered_wilson,
    effective_n,
    for_new_classes,
    t95,
    variance_of_mean,
    wilson,
)


def clustered_draws(draws, episodes, queries, mean, correlation):
    """Right or wrong, float[episodes * queries], where an episode's queries share its own difficulty."""
    spread = (1 - correlation) / correlation
    ease = draws.beta(mean * spread, (1 - mean) * spread, episodes)
    return (draws.random((episodes, queries)) < ease[:, None]).astype(float).ravel()


def ids(episodes, queries):
    return [f"e{i // queries}" for i in range(episodes * queries)]


def test_wilson_by_hand():
    # 8 of 10 and 0 of 10, as printed in tables of the Wilson interval.
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (1, 7), (50, 100), (997, 1000), (1000, 1000)])
def test_wilson_equals_scipy(right, n):
    oracle = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_t_by_hand():
    assert t95(5) == pytest.approx(2.5706, abs=1e-4)


def test_variance_between_episodes_equals_that_of_episode_means():
    sums, sizes = np.array([2.0, 1.0, 0.0, 2.0]), np.full(4, 2.0)
    assert variance_of_mean(sums, sizes) == pytest.approx(np.var(sums / 2, ddof=1) / 4)


def test_effective_n_by_hand():
    # Means 1, .5, 0, 1: p = .625, variance of the mean .0572917, t(3) = 3.1824; .625 * .375 / .0572917
    # = 4.0909, times (1.95996 / 3.18245)^2 = 1.5516; the floor of four episodes holds.
    assert effective_n([1, 1, 1, 0, 0, 0, 1, 1], ids(4, 2)) == 4.0
    # Forty episodes, half of them with one right of two, half with both: p = .75.
    values = [1, 0] * 20 + [1, 1] * 20
    # Variance between episodes .25^2 * 40 / 39 / 40; .1875 / .00160256 = 117, more than 80 queries.
    assert effective_n(values, ids(40, 2)) == 80.0


def test_effective_n_between_its_bounds_by_hand():
    # 10 episodes 1 1, 5 of 1 0, 5 of 0 0: p = .625; residuals of the means .375, -.125, -.625.
    values = [1, 1] * 10 + [1, 0] * 5 + [0, 0] * 5
    variance = (10 * 0.375**2 + 5 * 0.125**2 + 5 * 0.625**2) / 19 / 20
    expected = 0.625 * 0.375 / variance * (1.959964 / 2.093024) ** 2
    assert 20 < expected < 40
    assert effective_n(values, ids(20, 2)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_alike_counts_episodes_and_not_queries(share):
    assert clustered_wilson([share] * 40, ids(10, 4)) == wilson(share, 10)


def test_one_episode_is_worth_one_query():
    assert clustered_wilson([1, 0, 1, 1], ["e0"] * 4) == wilson(0.75, 1)


def test_counterbalanced_queries_claim_no_more_than_independent_ones():
    assert clustered_wilson([1, 0] * 50, ids(50, 2)) == wilson(0.5, 100)


def test_unequal_episodes_by_hand():
    # Sizes 3 and 1: 4^2 / (9 + 1) = 1.6 when all are right.
    assert effective_n([1, 1, 1, 1], ["a", "a", "a", "b"]) == 1.6


def test_order_of_queries_changes_nothing():
    draws = np.random.default_rng(5)
    values, episodes = clustered_draws(draws, 30, 3, 0.8, 0.4), np.array(ids(30, 3))
    order = draws.permutation(90)
    assert clustered_wilson(values[order], list(episodes[order])) == pytest.approx(
        clustered_wilson(values, list(episodes)), abs=1e-14
    )


@pytest.mark.parametrize(("episodes", "mean", "correlation"), [(12, 0.7, 0.5), (60, 0.9, 0.7), (150, 0.5, 0.6)])
def test_coverage_where_plain_wilson_fails(episodes, mean, correlation):
    draws = np.random.default_rng(1)
    held = plain = 0
    for _ in range(400):
        values = clustered_draws(draws, episodes, 4, mean, correlation)
        low, high = clustered_wilson(values, ids(episodes, 4))
        held += low <= mean <= high
        low, high = wilson(values.mean(), len(values))
        plain += low <= mean <= high
    assert held >= 0.925 * 400
    assert plain <= 0.87 * 400


def test_jackknife_by_hand():
    # Six classes, one query each in an episode of its own with nobody else: the jackknife of a mean.
    values = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    classes = list("abcdef")
    mean, error, count = class_jackknife(values, classes, [{c} for c in classes])
    assert (mean, count) == (pytest.approx(4 / 6), 6)
    assert error == pytest.approx(np.std(values, ddof=1) / math.sqrt(6))
    low, high = for_new_classes(values, classes, [{c} for c in classes], (0.5, 0.7))
    assert low == pytest.approx(4 / 6 - 2.570582 * error)
    assert high == 1.0  # 4/6 + 2.57 * .211 is more than all


def test_jackknife_leaves_out_whole_episodes():
    # "a" is bad to have around: every query of its episodes fails, also those about others.
    episodes = [{"a", c} for c in "bcdef"] + [{"b", "c"}, {"d", "e"}, {"f", "b"}]
    queried = ["a", "c", "d", "e", "f", "c", "d", "b"]
    values = [0.0] * 5 + [1.0] * 3
    without = np.array([3 / 3, 1 / 5, 2 / 6, 2 / 6, 2 / 6, 2 / 6])  # without a, b, c, d, e, f
    _, error, _ = class_jackknife(values, queried, episodes)
    assert error == pytest.approx(math.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum()))


def test_new_classes_need_six_and_episodes_without_each():
    classes = list("abcde")
    assert class_jackknife([1.0] * 5, classes, [{c} for c in classes]) is None
    everyone = set("abcdef")
    assert class_jackknife([1.0] * 6, sorted(everyone), [everyone] * 6) is None


def test_new_classes_are_never_surer_than_these():
    classes = list("abcdef")
    assert for_new_classes([1.0] * 6, classes, [{c} for c in classes], (0.7, 1.0)) == (0.7, 1.0)


def test_coverage_for_new_classes():
    draws = np.random.default_rng(2)
    held = same = 0
    for _ in range(150):
        ease = draws.beta(6, 4, 12)  # classes differ in how hard they are, .6 on average
        pairs = np.array([draws.choice(12, 2, replace=False) for _ in range(120)])
        values = (draws.random((120, 2)) < ease[pairs]).astype(float).ravel()
        these = clustered_wilson(values, ids(120, 2))
        taking_part = [set(pairs[i // 2]) for i in range(240)]
        low, high = for_new_classes(values, list(pairs.ravel()), taking_part, these)
        held += low <= 0.6 <= high
        same += these[0] <= 0.6 <= these[1]
    assert held >= 0.92 * 150
    assert same <= 0.87 * 150  # the interval for these classes does not hold for others, and says so


def test_the_wider_of_two_clusterings_holds():
    """600 queries in 300 episodes about 17 pictures, each of which is always right or always wrong."""
    pictures = [f"p{i % 17}" for i in range(600)]
    episodes = ids(300, 2)
    right = [float(int(picture[1:]) % 2) for picture in pictures]
    low, high = clustered_wilson(right, episodes, pictures)
    assert (low, high) == clustered_wilson(right, pictures)
    assert high - low > 0.4  # by episode it would be .08
    assert clustered_wilson(right, episodes)[1] - clustered_wilson(right, episodes)[0] < 0.1
    each = [f"p{i}" for i in range(600)]
    assert clustered_wilson(right, episodes, each) == clustered_wilson(right, episodes)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_all_are_alike_pictures_count(share):
    pictures = [f"p{i % 17}" for i in range(600)]
    low, high = clustered_wilson([share] * 600, ids(300, 2), pictures)
    assert high - low > 0.18  # Wilson's interval of 17 of 17
