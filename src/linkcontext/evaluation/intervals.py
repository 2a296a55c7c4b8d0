"""95 % intervals for dependent queries: those of one episode, one picture or one class are not independent.

Values clustered in two ways, by episode and by query picture, get the wider of the two intervals.
"""

import math
from collections.abc import Collection, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # type: ignore[import-untyped]

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]
Values = Sequence[float] | Floats

Z95 = NormalDist().inv_cdf(0.975)
FEWEST_CLASSES = 6  # with fewer classes the variance between them cannot be estimated


def t95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with `freedom` degrees of freedom."""
    return float(stdtrit(freedom, 0.975))


def wilson(share: float, n: float) -> Interval:
    """Wilson's 95 % interval for a share observed in `n` independent trials; `n` need not be an integer."""
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    # Algebraically the interval contains the share and stays within [0, 1]; rounding must not change that.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def episode_sums(values: Values, episodes: Sequence[str]) -> tuple[Floats, Floats]:
    """For each of G episodes the sum and the number of its queries' values: float[G], float[G]."""
    _, index = np.unique(np.asarray(episodes), return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    return np.bincount(index, weights=np.asarray(values, np.float64)).astype(np.float64), sizes


def variance_of_mean(sums: Floats, sizes: Floats) -> float:
    """Variance of the mean over all queries, estimated between G episodes (the ratio estimator).

    G / (G - 1) * sum_g (sum_g - size_g * mean)^2 / n^2. It needs at least two episodes.
    """
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float(len(sums) / (len(sums) - 1) * (residuals**2).sum() / sizes.sum() ** 2)


def smallest_n(sizes: Floats) -> float:
    """Effective number of queries if all of an episode always agree: n^2 / sum size^2, which is G for equal sizes."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def effective_n(values: Values, episodes: Sequence[str]) -> float:
    """The effective number of independent queries.

    It is p (1 - p) / Var(mean) with the variance between the G episodes, times (1.96 / t)^2 at G - 1 degrees of
    freedom, because that variance is itself an estimate (Korn and Graubard 1998). It is at least `smallest_n` and at
    most the number of queries: queries that are counterbalanced within an episode have a smaller variance than
    independent ones, which does not justify a larger n. With one episode, or if all queries are alike, the variance
    cannot be estimated and it is `smallest_n`.
    """
    sums, sizes = episode_sums(values, episodes)
    n = float(sizes.sum())
    share = float(sums.sum()) / n
    least = smallest_n(sizes)
    if len(sums) == 1 or share in (0.0, 1.0):
        return least
    variance = variance_of_mean(sums, sizes)
    if variance == 0.0:
        return n
    effective = share * (1 - share) / variance * (Z95 / t95(len(sums) - 1)) ** 2
    return min(n, max(least, effective))


def clustered_wilson(values: Values, *clusterings: Sequence[str]) -> Interval:
    """95 % interval of the mean of `values` (each in [0, 1]) for new queries of the same classes.

    Each of `clusterings` names the cluster of every value, such as its episode or its query picture. The widest
    interval is returned.
    """
    return wilson(float(np.mean(values)), min(effective_n(values, clusters) for clusters in clusterings))


def class_jackknife(
    values: Values, queried: Sequence[str], taking_part: Sequence[Collection[str]]
) -> tuple[float, float, int] | None:
    """Delete-one-class jackknife: the mean, its standard error over the draw of classes, and the number of classes.

    A class is left out together with every episode in which it is a candidate (`taking_part`, for each value). Only
    classes that were `queried` are left out. Returns None with fewer than 6 classes, or if a class is in all episodes.
    """
    classes = sorted(set(queried))
    if len(classes) < FEWEST_CLASSES:
        return None
    sums, counts = dict.fromkeys(classes, 0.0), dict.fromkeys(classes, 0)
    for value, members in zip(values, taking_part, strict=True):
        for member in members:
            if member in sums:
                sums[member] += value
                counts[member] += 1
    total, n = float(np.sum(values)), len(values)
    if n in counts.values():
        return None
    without = np.array([(total - sums[c]) / (n - counts[c]) for c in classes])
    variance = (len(classes) - 1) / len(classes) * float(((without - without.mean()) ** 2).sum())
    return total / n, math.sqrt(variance), len(classes)


def for_new_classes(
    values: Values, queried: Sequence[str], taking_part: Sequence[Collection[str]], these: Interval
) -> Interval | None:
    """95 % t-interval of the mean for new classes, by `class_jackknife`; None if that gives no estimate.

    It is never narrower than `these`, the interval for the same classes, because uncertainty about the queried classes
    carries over to new ones even if the queried ones happened to do equally well. In simulation it covers the true
    mean in .93 to .99 of the draws, but in only .82 to .92 with 6 to 10 classes of which most are near 1 and a few are
    not: a rare hard class is easily missed.
    """
    jackknife = class_jackknife(values, queried, taking_part)
    if jackknife is None:
        return None
    mean, error, classes = jackknife
    half = t95(classes - 1) * error
    return max(0.0, min(these[0], mean - half)), min(1.0, max(these[1], mean + half))
