"""What `linkcontext.evaluate` returns: the metrics of a run, and where its files are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linkcontext.errors import InputError


@dataclass(frozen=True)
class EvaluationResult:
    """The metrics of one run.

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
