"""Progress of work that takes a while: a bar on a terminal, a line every ten seconds elsewhere."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from linkcontext.launch import is_main_process

PATIENCE_S = 1.0  # before work is worth a bar
EVERY_S = 10.0  # between lines
REFRESH_S = 0.1  # of a bar
log = logging.getLogger("linkcontext")
_display = threading.Lock()  # of work inside other work, only the outer one is shown


class Advance(Protocol):
    """Counts one more piece of work as done; `note` is shown beside the count."""

    def __call__(self, note: str = "") -> None:
        """Count it."""


@dataclass
class Work:
    """Work that is going on: `done` of `total` pieces, of which `before` were done at the beginning."""

    text: str
    total: int | None
    before: int = 0
    done: int = 0
    note: str = ""
    begun: float = field(default_factory=time.monotonic)

    def advance(self, note: str = "") -> None:
        """Count one more piece."""
        self.done += 1
        self.note = note or self.note

    def line(self) -> str:
        """What is known now, in a line: `Reading pictures: 120 of 1,000 in 20 s, about 2 min left`."""
        seconds = time.monotonic() - self.begun
        if self.total is None:
            return f"{self.text}: {format_seconds(seconds)}"
        line = f"{self.text}: {self.done:,} of {self.total:,} in {format_seconds(seconds)}"
        if (pieces := self.done - self.before) and self.done < self.total:
            line += f", about {format_seconds(seconds / pieces * max(0, self.total - self.done))} left"
        return f"{line}  {self.note}".rstrip()


@contextmanager
def progress(text: str, total: int | None, done: int = 0, stays: bool = False) -> Iterator[Advance]:
    """Show the progress of the block on stderr, in the main process, unless the logger is told to be quiet.

    Args:
        text: What is being done: `Reading pictures`.
        total: How many pieces there are; None if that is not known, for example while a model is loaded.
        done: How many of them were done before.
        stays: Whether the bar, or a last line, stays when the work has ended.
    """
    work = Work(text, total, done, done)
    shown = is_main_process() and log.isEnabledFor(logging.WARNING) and _display.acquire(blocking=False)
    ended = threading.Event()
    display = threading.Thread(target=_show, args=(work, ended, stays), name="progress", daemon=True)
    try:
        if shown:
            display.start()
        yield work.advance
    finally:
        ended.set()
        if shown:
            display.join()
            _display.release()
    log.info("%s: %s", work.text, format_seconds(time.monotonic() - work.begun))


def shows_bars() -> bool:
    """Whether stderr is a terminal, where bars can be drawn."""
    return Console(stderr=True).is_terminal


def format_seconds(seconds: float) -> str:
    """A duration in words: `0.4 s`, `20 s`, `3 min`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _show(work: Work, ended: threading.Event, stays: bool) -> None:
    """Show the progress until the work has ended. Runs in a thread, so that a single long step is shown, too."""
    console = Console(stderr=True)
    with suppress(OSError, ValueError):  # stderr may be closed
        if console.is_terminal and work.total is not None:
            if stays or not ended.wait(PATIENCE_S):
                _bar(work, ended, stays, console)
            return
        while not ended.wait(EVERY_S):
            console.print(work.line(), markup=False, highlight=False, soft_wrap=True)
        if stays:
            console.print(work.line(), markup=False, highlight=False, soft_wrap=True)


def _bar(work: Work, ended: threading.Event, stays: bool, console: Console) -> None:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
    with Progress(*columns, *times, console=console, transient=not stays) as bar:
        task = bar.add_task(work.text, total=work.total, completed=work.done, note="")
        while not ended.wait(REFRESH_S):
            bar.update(task, completed=work.done, note=work.note)
        bar.update(task, completed=work.done, note=work.note)
