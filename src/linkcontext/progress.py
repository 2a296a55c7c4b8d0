"""A progress bar for work on many files."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from linkcontext.launch import is_main_process

PATIENCE_S = 1.0  # before a progress bar is worth its line


@contextmanager
def progress(text: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, on a terminal and in the main process only, when it takes longer than a second or so."""
    begun = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    shown = bar.console.is_terminal and is_main_process()
    task = bar.add_task(escape(text), total=total)

    def advance() -> None:
        bar.advance(task)
        late = time.monotonic() - begun > PATIENCE_S
        if late and shown and not bar.live.is_started:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
