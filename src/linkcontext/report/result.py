"""What `linkcontext.evaluate` returns: the metrics of a run, and where its files are."""

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linkcontext.errors import InputError, first_few
from linkcontext.evaluation.metrics import Row
from linkcontext.evaluation.text import format_share
from linkcontext.report.plots import accuracy_by_shots, draw_accuracy
from linkcontext.report.tables import Grid, metrics_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_SHOWN = 30  # in a notebook; the page has them all


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """The metrics of one run. A notebook shows it as a table and a plot.

    Attributes:
        metrics: the content of the run's metrics.json.
        folder: the folder with the run's files.
    """

    metrics: dict[str, Any] = field(repr=False)
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each task, kind of names, ways, shots per class and scoring; docs/evaluate.md lists its keys."""
        return list(self.metrics["rows"])

    @property
    def has_episodes(self) -> bool:
        """Whether queries follow a support. Runs of questions without one have no page."""
        return "questions" not in self.metrics["counters"]

    @property
    def report(self) -> Path:
        """The page about the run, a self-contained HTML file."""
        return self.folder / "report.html"

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame. Raises `InputError` if pandas is not installed."""
        try:
            import pandas as pd  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise InputError("to_pandas needs the package pandas: pip install pandas.") from error
        return pd.DataFrame(self.rows)

    def plot(self, axes: "Axes | None" = None, task: str | None = None) -> "Axes":
        """Draw accuracy by shots per class with 95 % intervals, chance and nearest centroid.

        Args:
            axes: Where to draw. Default: new axes of matplotlib.pyplot.
            task: Which task, of a run of several.

        Raises:
            InputError: The run has several tasks and none is named, has no such task, or has no shots.
        """
        rows = self._rows_of(task)
        if axes is None:
            import matplotlib.pyplot as plt  # noqa: PLC0415 - it looks for a screen

            axes = plt.subplots(layout="constrained")[1]
        draw_accuracy(axes, {self.folder.name: rows})
        axes.legend(fontsize=9)
        return axes

    def _rows_of(self, task: str | None) -> list[Row]:
        """The rows of one task, as it is named in a plot."""
        if not self.has_episodes:
            raise InputError(f"{self.folder}: this run asks without a support, so there is nothing to plot by shots.")
        rows: list[Row] = self.metrics["rows"]
        tasks = list(dict.fromkeys(row["task"] for row in rows))
        if (len(tasks) > 1 and task is None) or (task is not None and task not in tasks):
            raise InputError(f"task={task!r}: name one of the tasks of this run: {first_few(tasks)}.")
        return [row for row in rows if task is None or row["task"] == task]

    def __repr__(self) -> str:
        """The accuracy at each number of shots, by the first scoring of the run, and the folder."""
        rows = self.rows
        scoring = rows[0].get("scoring") if rows else None
        parts = [
            f"{row['shots_per_class']} shots {format_share(row['accuracy'])}"
            for row in rows
            if self.has_episodes and row["scoring"] == scoring and row["task"] == rows[0]["task"]
        ]
        more = f", {len(rows) - len(parts)} more rows" if len(rows) > len(parts) else ""
        return f"EvaluationResult({', '.join(parts)}{more}, folder={str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """The table and the plot, for a notebook."""
        if not self.has_episodes:
            return f"<pre>{escape(repr(self))}</pre>"
        rows: list[Row] = self.metrics["rows"]
        tasks = {row["task"] for row in rows}
        plot = accuracy_by_shots({self.folder.name: rows}) if len(tasks) == 1 else ""
        hidden = len(rows) - ROWS_SHOWN
        more = f"<p>{hidden} more rows are in the report.</p>" if hidden > 0 else ""
        return (
            f"{_table(metrics_grid(rows[:ROWS_SHOWN]))}{more}"
            f'<div style="max-width: 30em">{plot}</div><p>Report: <code>{escape(str(self.report))}</code></p>'
        )


def _table(grid: Grid) -> str:
    """A table of texts in HTML."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in grid.headings)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in line) for line in grid.lines)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
