"""The smallest detectable difference of a run, and p-values adjusted for multiple comparisons."""

from collections.abc import Sequence

from scipy.special import stdtrit  # type: ignore[import-untyped]

from linkcontext.evaluation.intervals import t95

LEVEL, POWER = 0.05, 0.8


def detectable(ci95: Sequence[float], clusters: int) -> float | None:
    """The smallest true difference that a two-sided test at .05 detects with 80 % power.

    It is (t.975 + t.80) standard errors with `clusters` - 1 degrees of freedom (Bloom 1995, "Minimum detectable
    effects"). The standard error is taken from `ci95`, half of which is t.975 standard errors. For the interval of a
    paired difference the result is a difference between two runs; for that of an accuracy, a difference from a fixed
    value such as chance. `clusters` is the number of episodes or of query pictures, whichever is smaller. Returns None
    with a single cluster.
    """
    if clusters < 2:
        return None
    half = (ci95[1] - ci95[0]) / 2
    return min(1.0, half * (1 + float(stdtrit(clusters - 1, POWER)) / t95(clusters - 1)))


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values adjusted for multiple comparisons (Holm 1979), in the given order.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one
    before, and none exceeds 1.
    """
    adjusted, least = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = least
    return adjusted
