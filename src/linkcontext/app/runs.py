"""The runs that the web page shows. Only runs in its list can be opened."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linkcontext.app import html
from linkcontext.errors import InputError
from linkcontext.evaluation.compare import compare_runs, comparison_notes
from linkcontext.evaluation.run_dir import read_run
from linkcontext.report.tables import comparison_grid, lift_constants
from linkcontext.storage import read_errors

DEPTH = 3  # of folders that are searched: runs/demo/runs/mini-digits is a run


def run_names(root: Path) -> list[str]:
    """The run folders below `root`, as paths relative to it. Links are not followed."""
    names = []
    for place, folders, files in os.walk(root):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEPTH else []
        if depth and {"config.json", "predictions.jsonl"} <= set(files):
            names.append(Path(place).relative_to(root).as_posix())
    return sorted(names)


def report(root: Path, name: str | None) -> str:
    """The report of a run as HTML."""
    folder = _run(root, name)
    page = folder / "report.html"
    if not page.is_file() or page.is_symlink():
        raise InputError(f"{name}: has no report yet. Write it with: linkcontext report {folder}")
    with _relative_errors(root), read_errors(page):
        try:
            return html.report_frame(str(name), page.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{page}: is not UTF-8. Write it again with: linkcontext report") from error


def comparison(root: Path, a: str | None, b: str | None) -> str:
    """The paired differences of two runs as HTML."""
    first, second = _run(root, a), _run(root, b)
    if a == b:
        raise InputError("choose two different runs to compare.")
    with _relative_errors(root):
        one, other = read_run(first), read_run(second)
        sentence, grid = lift_constants(comparison_grid(compare_runs(one, other), str(a), str(b)))
        notes = [note.replace(f"{root}{os.sep}", "") for note in comparison_notes(one, other, f"{a} and {b}")]
        return html.table(" ".join([f"{sentence}.", *notes]), grid)


@contextmanager
def _relative_errors(root: Path) -> Iterator[None]:
    """Shorten paths in errors to those relative to `root`: a browser must not learn where that is."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(f"{root}{os.sep}", "")) from error


def _run(root: Path, name: str | None) -> Path:
    """The folder of a run in the list. Raises `InputError` for any other name."""
    if not name:
        raise InputError("Choose a run first.")
    if name not in run_names(root):
        raise InputError(f"{name}: no such run in the list. Choose one from the list.")
    return root / name
