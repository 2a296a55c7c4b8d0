"""Rows of metrics and of comparisons as tables for a terminal, for Markdown and for a page.

An accuracy is never alone: interval, n, chance, blind policies and nearest centroid are in the same line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from linkcontext.evaluation.metrics import BASELINES, Row
from linkcontext.evaluation.power import detectable
from linkcontext.evaluation.published_results import Beside
from linkcontext.evaluation.text import ABSENT, format_difference, format_share

# Columns that are written once above the table if all lines agree.
LIFTED = ("episodes", "queries / episodes / pictures", "not paired A / B", "chance", "answered")
# Columns whose cells may be wrapped in a narrow terminal.
BREAKABLE = ("episodes", "tasks", "new classes [95 %]", "queries / episodes / pictures")
CAPTION = "sum, mean, pmi, calibrated: how the candidates' likelihoods are scored"
SHORTER_HEADING = "shorter name chosen / right / of"
SHORTER = (
    "shorter name: how often the shortest name was chosen / was the right one / queries whose names differ in length"
)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts: headings, and lines with as many cells."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def format_interval(pair: Sequence[float] | None) -> str:
    """An interval as text, such as `[.941, .963]`; a dash for None."""
    return ABSENT if pair is None else f"[{format_share(pair[0])}, {format_share(pair[1])}]"


def episode_setting(row: Row) -> str:
    """The setting of a row's episodes in words: `link, pseudo names, 2-way`."""
    ways = f"{row['ways']}-way" if row["ways"] > 1 else "shots in all"
    return f"{row['task']}, {row['names']} names, {ways}"


def metrics_grid(rows: Sequence[Row]) -> Grid:
    """The rows of metrics.json as a table. Columns that would be empty or constant by definition are left out."""
    policies = [
        name for name in BASELINES if name != "majority" or any(row["baselines"][name] is not None for row in rows)
    ]
    columns: dict[str, Callable[[Row], str]] = {
        "episodes": episode_setting,
        "shots per class": lambda row: str(row["shots_per_class"]),
        "scoring": lambda row: _words(row["scoring"]),
        "accuracy [95 %]": lambda row: f"{format_share(row['accuracy'])} {format_interval(row['ci95'])}",
        "new classes [95 %]": lambda row: format_interval(row["ci95_classes"]),
        "queries / episodes / pictures": _counts,
        "chance": lambda row: format_share(row["chance"]),
        **{_words(name): _baseline(name) for name in policies},
    }
    if any(row["scoring"] == "generate" for row in rows):
        columns["answered"] = lambda row: format_share(row["answered"])
    if any(row["shorter"] is not None for row in rows):
        columns[SHORTER_HEADING] = _shorter
    if any(row["truth"] is not None for row in rows):
        columns["true name"] = lambda row: format_share(row["truth"])
    return _grid(columns, rows)


def comparison_grid(rows: Sequence[Row], a: str = "A", b: str = "B") -> Grid:
    """The rows of `evaluation.compare` as a table: both accuracies, B - A with its interval, p, n and chance.

    `a` and `b` are the names of the two runs in the headings.
    """
    columns: dict[str, Callable[[Row], str]] = {
        "episodes": episode_setting,
        "shots per class": lambda row: str(row["shots_per_class"]),
        "scoring": lambda row: _words(row["scoring"]),
        a: lambda row: format_share(row["accuracy_a"]),
        b: lambda row: format_share(row["accuracy_b"]),
        f"{b} − {a} [95 %]": lambda row: (
            f"{format_difference(row['difference'])} [{', '.join(map(format_difference, row['ci95']))}]"
        ),
        "p": lambda row: format_p(row["p"]),
        "queries / episodes / pictures": _counts,
        f"not paired {a} / {b}": lambda row: f"{row['unpaired_a']:,} / {row['unpaired_b']:,}",
        "chance": lambda row: format_share(row["chance"]),
    }
    if len(rows) > 1:
        columns["p (Holm)"] = lambda row: format_p(row["p_holm"])
    return _grid(columns, rows)


def format_p(p: float) -> str:
    """A p-value."""
    return "<.001" if p < 0.001 else format_share(p)


def power_note(rows: Sequence[Row]) -> str:
    """A sentence about the smallest detectable difference, from a fixed value or between two runs."""
    smallest = [detectable(row["ci95"], min(row["n_episodes"], row["n_pictures"])) for row in rows]
    known = sorted({format_share(value) for value in smallest if value is not None})
    counted = {f"{row['n_queries']:,} queries in {row['n_episodes']:,} episodes" for row in rows}
    if not known:
        return "No difference is detectable: more than one episode and more than one query picture are needed."
    sizes = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}, by row"
    queries = f"{counted.pop()}, " if len(counted) == 1 else ""
    test = "80 % power, two-sided .05, clustered by episode and by query picture"
    return f"Smallest detectable difference: {sizes} ({queries}{test})."


def pictures_note(rows: Sequence[Row]) -> str:
    """A sentence about the number of distinct query pictures, if they are fewer than the queries; else ""."""
    few = min(rows, key=lambda row: row["n_pictures"] / row["n_queries"])
    if few["n_pictures"] == few["n_queries"]:
        return ""
    counted = f"{few['n_queries']:,} queries show {few['n_pictures']:,} distinct pictures"
    if few["n_pictures"] > few["n_queries"] / 2:
        return f"The {counted}; intervals count pictures."
    return f"Warning: the {counted}. Intervals count pictures and not queries, so more queries will not narrow them."


def _shorter(row: Row) -> str:
    """How often the shortest name was chosen, how often it was right, and the number of queries that count."""
    figures = row["shorter"]
    return (
        ABSENT
        if figures is None
        else f"{format_share(figures['chosen'])} / {format_share(figures['right'])} / {figures['n_queries']:,}"
    )


def _counts(row: Row) -> str:
    """The numbers of queries, episodes and query pictures."""
    return f"{row['n_queries']:,} / {row['n_episodes']:,} / {row['n_pictures']:,}"


def summary_grid(rows: Sequence[Row]) -> Grid:
    """The rows of `evaluation.aggregate.mean_rows` as a table: means over subjects by tasks, form and shots."""
    columns: dict[str, Callable[[Row], str]] = {
        "tasks": lambda row: row["tasks"],
        "form": lambda row: row["form"],
        "shots in all": lambda row: str(row["shots"]),
        "scoring": lambda row: _words(row["scoring"]),
        "accuracy [95 %]": lambda row: f"{format_share(row['accuracy'])} {format_interval(row['ci95'])}",
        "chance": lambda row: format_share(row["chance"]),
        "copy first": lambda row: format_share(row["baselines"]["copy_first"]),
        "copy last": lambda row: format_share(row["baselines"]["copy_last"]),
        "subjects / queries / pictures": lambda row: (
            f"{row['n_subjects']} / {row['n_queries']:,} / {row['n_pictures'] or ABSENT}"
        ),
    }
    return _grid(columns, rows)


def curves_grid(rows: Sequence[Row]) -> Grid:
    """The rows of `evaluation.aggregate.shot_curves` as a table: zero-shot accuracy, peak and ICL efficiency."""
    columns: dict[str, Callable[[Row], str]] = {
        "tasks": lambda row: row["tasks"],
        "form": lambda row: row["form"],
        "scoring": lambda row: _words(row["scoring"]),
        "no shots": lambda row: format_share(row["zero_shot"]),
        "peak": lambda row: f"{format_share(row['peak'])} at {row['peak_shots']}",
        "ICL efficiency": lambda row: ABSENT if row["efficiency"] is None else format_difference(row["efficiency"]),
    }
    return _grid(columns, rows)


def published_grid(table: Beside) -> Grid:
    """A published table with its two decimals and this run below it, in columns of total shots."""
    lines = []
    for line in table.lines:
        cells = []
        for total in table.total_shots:
            value, row = line.accuracy.get(total), line.rows.get(total)
            printed = ABSENT if value is None else f"{value:.2f}".removeprefix("0")
            cells.append(f"{format_share(row['accuracy'])} {format_interval(row['ci95'])}" if row else printed)
        chances = ", ".join(sorted({format_share(row["chance"]) for row in line.rows.values()}))
        lines.append((f"{line.model} ({line.origin}{', chance ' * bool(chances)}{chances})", *cells))
    return Grid((table.label, *map(str, table.total_shots)), tuple(lines))


def metrics_table(rows: Sequence[Row]) -> Table:
    """The table of metrics for a terminal."""
    return _rich(metrics_grid(rows), f"{power_note(rows)}\n{pictures_note(rows)}".strip())


def summary_table(rows: Sequence[Row]) -> Table:
    """The table of means over tasks for a terminal."""
    counted = [row for row in rows if row["n_pictures"] is not None]
    return _rich(summary_grid(rows), pictures_note(counted) if counted else "")


def curves_table(rows: Sequence[Row]) -> Table:
    """The table of curves for a terminal."""
    return _rich(curves_grid(rows))


def comparison_table(rows: Sequence[Row]) -> Table:
    """The table of a comparison for a terminal."""
    return _rich(comparison_grid(rows), f"{power_note(rows)}\n{pictures_note(rows)}".strip())


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table with right-aligned numbers."""
    rule = ["---" if column == 0 else "---:" for column in range(len(grid.headings))]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in (grid.headings, rule, *grid.lines))


def _grid(columns: dict[str, Callable[[Row], str]], rows: Sequence[Row]) -> Grid:
    return Grid(tuple(columns), tuple(tuple(write(row) for write in columns.values()) for row in rows))


def lift_constants(grid: Grid) -> tuple[str, Grid]:
    """Move columns of `LIFTED` with one value into a line of text; return that line and the remaining columns."""
    columns = list(zip(grid.headings, zip(*grid.lines, strict=True), strict=True))
    constant = [heading for heading, cells in columns if heading in LIFTED and len(set(cells)) == 1]
    lifted = [cells[0] if h == "episodes" else f"{h} {cells[0]}" for h, cells in columns if h in constant]
    kept = [(heading, cells) for heading, cells in columns if heading not in constant]
    lines = tuple(zip(*(cells for _, cells in kept), strict=True))
    return "; ".join(lifted), Grid(tuple(heading for heading, _ in kept), lines)


def _rich(grid: Grid, note: str = "") -> Table:
    """The grid for 80 columns: headings are wrapped at every space, cells only in the columns of `BREAKABLE`."""
    title, grid = lift_constants(grid)
    shorter = SHORTER if SHORTER_HEADING in grid.headings else ""
    caption = "\n".join(part for part in (CAPTION, shorter, note) if part)
    table = Table(title=Text(title, "table.title"), caption=caption, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    for heading in grid.headings:
        table.add_column(
            heading.replace(" ", "\n").replace("\n%", " %"),
            justify="left" if heading in ("episodes", "tasks", "scoring") else "right",
            no_wrap=heading not in BREAKABLE,
            overflow="fold",
        )
    for line in grid.lines:
        table.add_row(*(Text(cell.removeprefix("likelihood ")) for cell in line))
    return table


def _baseline(name: str) -> Callable[[Row], str]:
    return lambda row: format_share(row["baselines"][name])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
