"""How small a difference a run can show, and how sure one may be of several at once."""

from collections.abc import Sequence

from scipy.special import stdtrit  # type: ignore[import-untyped]

from linkcontext.evaluation.intervals import t95

LEVEL, POWER = 0.05, 0.8


def detectable(ci95: Sequence[float], clusters: int) -> float | None:
    """The smallest true difference that a test at .05, two-sided, would find in four of five such runs.

    (t.975 + t.80) standard errors with `clusters` - 1 degrees of freedom (Bloom 1995, "Minimum detectable effects").
    The error is that of the interval, half of which is t.975 of it, so that it is clustered as the interval is: between
    two runs for the interval of a paired difference, from a fixed figure such as chance for that of an accuracy.
    `clusters` are episodes or query pictures, the fewer of them. None with one, which shows nothing.
    """
    if clusters < 2:
        return None
    half = (ci95[1] - ci95[0]) / 2
    return min(1.0, half * (1 + float(stdtrit(clusters - 1, POWER)) / t95(clusters - 1)))


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values adjusted for being looked at together, in their order (Holm 1979): the smallest of m times m, the
    next times m - 1, and so on, none below the one before."""
    adjusted, least = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = least
    return adjusted
