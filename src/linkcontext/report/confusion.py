"""Which class was answered where which was right, over episodes in which both could be answered.

An episode has few of the classes, and names that often are its own; so classes are told by their ids, and a share is
taken among the queries in whose episode the other class was a candidate.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from linkcontext.evaluation.metrics import Pair, favourites
from linkcontext.evaluation.text import share
from linkcontext.report.tables import Grid

MOST = 12  # classes: more would be no picture any more
WORST = 3  # pairs that are told in words


@dataclass(frozen=True, slots=True)
class Cell:
    """Of `met` queries of the row's class with the column's among the candidates, `said` were answered with that."""

    said: float  # a tie counts 1 / (number tied)
    met: int

    @property
    def share(self) -> float | None:
        """None where the two never met."""
        return self.said / self.met if self.met else None


@dataclass(frozen=True, slots=True)
class Confusion:
    """`cells[row][column]`: the row's class is right. `nothing` are answers that name no candidate, or several."""

    classes: tuple[str, ...]  # the id, and what people call it where that is another word
    cells: tuple[tuple[Cell, ...], ...]
    nothing: tuple[Cell, ...]
    of: int  # classes there are
    worst: tuple[tuple[str, str, Cell], ...]  # right, answered

    @property
    def silent(self) -> bool:
        """Whether any answer named no candidate, or several."""
        return any(cell.said for cell in self.nothing)


def confusion(pairs: Iterable[Pair], scoring: str, most: int = MOST) -> Confusion:
    """The classes with most queries; where equal, those that were mistaken most often. Ordered by id."""
    said: defaultdict[tuple[str, str], float] = defaultdict(float)
    met: Counter[tuple[str, str]] = Counter()
    nothing: Counter[str] = Counter()
    called: dict[str, str] = {}
    for episode, prediction in pairs:
        gold = prediction.gold
        best = favourites(prediction, scoring, episode.candidates)
        for candidate in episode.candidates:
            met[gold, candidate.class_id] += 1
            called.setdefault(candidate.class_id, candidate.truth)
        for class_id in best:
            said[gold, class_id] += 1 / len(best)
        nothing[gold] += not best
    asked = {gold: met[gold, gold] for gold, _ in met}
    often = sorted(asked, key=lambda c: (-asked[c], said[c, c] / asked[c], c))
    kept = sorted(often[:most])

    def label(class_id: str) -> str:
        return class_id if called[class_id] == class_id else f"{class_id} ({called[class_id]})"

    wrong = [(label(a), label(b), Cell(said[a, b], n)) for (a, b), n in met.items() if a != b and said[a, b]]
    wrong.sort(key=lambda told: (-told[2].said, told[2].met, told[:2]))
    return Confusion(
        tuple(map(label, kept)),
        tuple(tuple(Cell(said[a, b], met[a, b]) for b in kept) for a in kept),
        tuple(Cell(nothing[a], asked[a]) for a in kept),
        len(asked),
        tuple(wrong[:WORST]),
    )


def confusion_grid(found: Confusion) -> Grid:
    """Shares, the right class in front; a column for answers that name nothing where there are such."""
    lines = tuple(
        (name, *(share(cell.share) for cell in cells), *([share(none.share)] if found.silent else []), str(none.met))
        for name, cells, none in zip(found.classes, found.cells, found.nothing, strict=True)
    )
    return Grid(("right / answered", *found.classes, *(["none"] if found.silent else []), "n queries"), lines)
