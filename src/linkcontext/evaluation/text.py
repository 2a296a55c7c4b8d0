"""How figures and lists are written in sentences and tables."""

from collections.abc import Sequence

ABSENT = "–"


def share(value: float | None) -> str:
    """Three digits without a leading zero, as `.953` or `1.000`; a dash where there is none."""
    return ABSENT if value is None else f"{value:.3f}".removeprefix("0")


def listed(words: Sequence[str]) -> str:
    """Join words as `a`, `a and b` or `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
