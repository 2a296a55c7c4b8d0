"""Format figures and lists for sentences and tables."""

from collections.abc import Sequence

ABSENT = "–"


def format_share(value: float | None) -> str:
    """A share with three decimals and without a leading zero, as `.953` or `1.000`; a dash for None."""
    return ABSENT if value is None else f"{value:.3f}".removeprefix("0")


def format_difference(value: float) -> str:
    """A difference of shares with its sign, such as `+.012`; one that rounds to zero is `.000`."""
    text = format_share(abs(value))
    return text if text == ".000" else ("−" if value < 0 else "+") + text


def join_words(words: Sequence[str]) -> str:
    """Join words as `a`, `a and b` or `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
