"""The retention benchmark's rows for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from linkcontext.report.tables import bounds, share

CAPTION = "blind: the best that one and the same reply to every question would get"
FIGURES = {"accuracy": "right", "f1": "F1", "exact_match": "same", "vqa_accuracy": "VQA"}


def retention_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each task and scoring: figure, interval, number of questions, chance, the best blind reply."""
    table = Table(caption=CAPTION, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.caption_justify = "left"
    for heading in ("task", "scoring", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("mean [95 %]", "n queries", "chance", "blind"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["task"],
            row["scoring"].replace("_", " "),
            FIGURES[row["metric"]],
            f"{share(row['accuracy'])} {bounds(row['ci95'])}",
            f"{row['n_queries']:,}",
            share(row["chance"]),
            share(row["blind"]),
        )
    return table
