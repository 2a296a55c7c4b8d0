"""The retention benchmark's rows: for a terminal, and beside a run's own figures in its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from linkcontext.evaluate.folder import read_object
from linkcontext.report.tables import Grid, bounds, share

CAPTION = "blind: the best that one and the same reply to every question would get"
FIGURES = {"accuracy": "right", "f1": "F1", "exact_match": "same", "vqa_accuracy": "VQA"}
WORDS = ("task", "scoring", "figure")


def retention_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The grid for a terminal."""
    table, grid = Table(caption=CAPTION, box=None, padding=(0, 1, 0, 0), pad_edge=False), retention_grid(rows)
    table.caption_justify = "left"
    for heading in grid.headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right", no_wrap=True)
    for line in grid.lines:
        table.add_row(*line)
    return table


def retention_grid(rows: Sequence[dict[str, Any]]) -> Grid:
    """A line for each task and scoring: figure, interval, number of questions, chance, the best blind reply."""
    return Grid(
        (*WORDS, "mean [95 %]", "n queries", "chance", "blind"),
        tuple(
            (
                row["task"],
                row["scoring"].replace("_", " "),
                FIGURES[row["metric"]],
                f"{share(row['accuracy'])} {bounds(row['ci95'])}",
                f"{row['n_queries']:,}",
                share(row["chance"]),
                share(row["blind"]),
            )
            for row in rows
        ),
    )


def retention_of(run: Path) -> Grid | None:
    """Of the folder `retention` in a run's folder; None where there is none."""
    path = run / "retention" / "metrics.json"
    return retention_grid(read_object(path, ("rows",))["rows"]) if path.is_file() else None
