"""The rows of the retention benchmark as tables for a terminal and for the report of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from linkcontext.errors import InputError
from linkcontext.evaluation.run_dir import check_types, read_object
from linkcontext.evaluation.text import format_share
from linkcontext.jsonl import typed
from linkcontext.report.tables import Grid, format_interval
from linkcontext.storage import read_errors

CAPTION = "blind: the metric of the best constant reply"
FIGURES = {"accuracy": "right", "f1": "F1", "exact_match": "same", "vqa_accuracy": "VQA"}
ROW = {
    "task": str,
    "scoring": str,
    "metric": Literal["accuracy", "f1", "exact_match", "vqa_accuracy"],
    "accuracy": float,
    "ci95": tuple[float, ...],
    "n_queries": int,
    "chance": float | None,
    "blind": float | None,
}
WORDS = ("task", "scoring", "figure")


def retention_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The table for a terminal."""
    table, grid = Table(caption=CAPTION, box=None, padding=(0, 1, 0, 0), pad_edge=False), retention_grid(rows)
    table.caption_justify = "left"
    for heading in grid.headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right", no_wrap=True)
    for line in grid.lines:
        table.add_row(*line)
    return table


def retention_grid(rows: Sequence[dict[str, Any]]) -> Grid:
    """A line for each task and scoring: metric, interval, number of questions, chance, best constant reply."""
    return Grid(
        (*WORDS, "mean [95 %]", "n queries", "chance", "blind"),
        tuple(
            (
                row["task"],
                row["scoring"].replace("_", " "),
                FIGURES[row["metric"]],
                f"{format_share(row['accuracy'])} {format_interval(row['ci95'])}",
                f"{row['n_queries']:,}",
                format_share(row["chance"]),
                format_share(row["blind"]),
            )
            for row in rows
        ),
    )


def retention_of(run: Path) -> Grid | None:
    """The table of the folder `retention` in the folder of a run; None if there is none."""
    path = run / "retention" / "metrics.json"
    if not path.is_file():
        return None
    rows = typed(tuple[dict[str, Any], ...], read_object(path, ("rows",))["rows"], str(path), "rows")
    for row in rows:
        check_types(row, ROW, path)
        if not row.keys() >= ROW.keys() or len(row["ci95"]) != 2:
            raise InputError(f"{path}: a row is damaged. Run the same command with --retention again.")
    return retention_grid(rows)


def retention_unfinished(run: Path) -> str:
    """A sentence about missing answers in the folder `retention` of a run; "" if there is none or it is complete."""
    folder = run / "retention"
    if not (folder / "config.json").is_file():
        return ""
    questions, answers = (_lines(folder / name) for name in ("questions.jsonl", "answers.jsonl"))
    if questions == answers and (folder / "metrics.json").is_file():
        return ""
    return (
        f"The retention run of this run is not finished: {questions - answers:,} of its {questions:,} answers are "
        "missing. Run the same command again to finish it."
    )


def _lines(path: Path) -> int:
    """The number of complete lines of a file; 0 if it does not exist."""
    if not path.is_file():
        return 0
    with read_errors(path):
        return path.read_bytes().count(b"\n")
