"""Figures in plain words: what a comparison shows, and the few rows of a long table that a terminal shows."""

from collections.abc import Sequence

from linkcontext.evaluation.example_selection import main_scoring, main_shots
from linkcontext.evaluation.metrics import Row

SURE = 0.05  # an adjusted p-value below it counts as a difference
TERMINAL_ROWS = 20


def comparison_verdict(rows: Sequence[Row], a: str, b: str) -> str:
    """Which of two runs is better, in a sentence, by the rows of `compare` in their main scoring.

    `a` and `b` are the names of the runs. Rows count as different by their p-values adjusted for all rows.
    """
    scoring = main_scoring([row["scoring"] for row in rows])
    judged = [row for row in rows if row["scoring"] == scoring]
    better = {
        f"B ({b})": [row for row in judged if row["p_holm"] < SURE and row["difference"] > 0],
        f"A ({a})": [row for row in judged if row["p_holm"] < SURE and row["difference"] < 0],
    }
    parts = [f"{run} is better {_where(won, judged)}" for run, won in better.items() if won]
    even = [row for row in judged if not any(row in won for won in better.values())]
    if not parts:
        return f"Verdict: no difference shows between A ({a}) and B ({b}) {_where(even, judged)}.{_visible(even)}"
    if even:
        parts.append(f"no difference shows {_where(even, judged)}")
    return f"Verdict: {', and '.join(parts)}."


def main_rows(rows: Sequence[Row], most: int = TERMINAL_ROWS) -> Sequence[Row]:
    """The rows that a terminal shows: all, or of more than `most` those of the main scoring and the main shots."""
    shots = next((key for key in ("shots_per_class", "shots") if rows and key in rows[0]), None)
    if len(rows) > most:
        scoring = main_scoring([row["scoring"] for row in rows])
        rows = [row for row in rows if row["scoring"] == scoring]
    if len(rows) > most and shots is not None:
        main = main_shots([row[shots] for row in rows])
        rows = [row for row in rows if row[shots] == main]
    return rows[:most]


def _where(rows: Sequence[Row], judged: Sequence[Row]) -> str:
    """At which shots some rows are, with the largest difference; or how many they are, of rows of several settings."""
    largest = max(rows, key=lambda row: abs(row["difference"]))
    figures = f"{_percent(largest['accuracy_b'])} right in B, {_percent(largest['accuracy_a'])} in A"
    if len({(row["task"], row["names"], row["ways"]) for row in judged}) > 1:
        return f"in {len(rows)} of {len(judged)} rows ({figures}, where they differ most)"
    numbers = [str(row["shots_per_class"]) for row in rows]
    listed = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    most = "" if len(rows) == 1 else f", at {largest['shots_per_class']}"
    shots = "shot" if numbers == ["1"] else "shots"
    return f"at {listed} {shots} per class ({figures}{most})"


def _visible(rows: Sequence[Row]) -> str:
    """A sentence about how large a difference would have shown."""
    known = [row["detectable"] for row in rows if row["detectable"] is not None]
    return f" One of {_percent(min(known))} or more would probably have shown." if known else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
