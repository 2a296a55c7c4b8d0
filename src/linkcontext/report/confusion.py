"""Confusion matrices: which class was answered for which right class.

An episode has few of the classes, and often its own names for them. Classes are therefore identified by their ids, and
a share counts only the queries in whose episode the other class was a candidate.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from linkcontext.evaluation.metrics import Pair, best_candidates
from linkcontext.evaluation.text import format_share
from linkcontext.report.tables import Grid

MOST = 12  # classes of a matrix, at most
WORST = 3  # pairs that a sentence lists


@dataclass(frozen=True, slots=True)
class Cell:
    """Of `met` queries of the row's class that had the column's class as a candidate, `answered` got it as answer."""

    answered: float  # a tie counts 1 / (number tied)
    met: int

    @property
    def share(self) -> float | None:
        """The share of these queries; None if the two classes never met."""
        return self.answered / self.met if self.met else None


@dataclass(frozen=True, slots=True)
class Confusion:
    """`cells[row][column]` counts answers with the column's class to queries of the row's class.

    `nothing` counts answers that name no candidate, or several.
    """

    classes: tuple[str, ...]  # the id, and the name that people use if it is another word
    cells: tuple[tuple[Cell, ...], ...]
    nothing: tuple[Cell, ...]
    of: int  # number of classes of the run
    worst: tuple[tuple[str, str, Cell], ...]  # right, answered

    @property
    def silent(self) -> bool:
        """Whether any answer names no candidate, or several."""
        return any(cell.answered for cell in self.nothing)


def confusion(pairs: Iterable[Pair], scoring: str, most: int = MOST) -> Confusion:
    """The confusion matrix of the `most` classes with the most queries (the most mistaken if equal), sorted by id."""
    answered: defaultdict[tuple[str, str], float] = defaultdict(float)
    met: Counter[tuple[str, str]] = Counter()
    nothing: Counter[str] = Counter()
    truths: dict[str, str] = {}
    for episode, prediction in pairs:
        gold = prediction.gold
        best = best_candidates(prediction, scoring, episode.candidates)
        for candidate in episode.candidates:
            met[gold, candidate.class_id] += 1
            truths.setdefault(candidate.class_id, candidate.truth)
        for class_id in best:
            answered[gold, class_id] += 1 / len(best)
        nothing[gold] += not best
    queries = {gold: met[gold, gold] for gold, _ in met}
    often = sorted(queries, key=lambda c: (-queries[c], answered[c, c] / queries[c], c))
    kept = sorted(often[:most])

    def label(class_id: str) -> str:
        return class_id if truths[class_id] == class_id else f"{class_id} ({truths[class_id]})"

    wrong = [(label(a), label(b), Cell(answered[a, b], n)) for (a, b), n in met.items() if a != b and answered[a, b]]
    wrong.sort(key=lambda pair: (-pair[2].answered, pair[2].met, pair[:2]))
    return Confusion(
        tuple(map(label, kept)),
        tuple(tuple(Cell(answered[a, b], met[a, b]) for b in kept) for a in kept),
        tuple(Cell(nothing[a], queries[a]) for a in kept),
        len(queries),
        tuple(wrong[:WORST]),
    )


def confusion_grid(matrix: Confusion) -> Grid:
    """The shares as a table with a line per right class, and a column for answers without a name if there are any."""
    lines = tuple(
        (
            name,
            *(format_share(cell.share) for cell in cells),
            *([format_share(none.share)] if matrix.silent else []),
            str(none.met),
        )
        for name, cells, none in zip(matrix.classes, matrix.cells, matrix.nothing, strict=True)
    )
    return Grid(("right / answered", *matrix.classes, *(["none"] if matrix.silent else []), "n queries"), lines)
