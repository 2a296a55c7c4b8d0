"""Where commands print."""

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from linkcontext.errors import CONTROL

SHOWN = 20  # problems: a file may have hundreds of thousands
WIDE = 200  # columns in a file or a pipe, which has no edge to cut a table at
READER_GONE = 141  # the exit code that a shell gives for SIGPIPE
UNWRITTEN = 2

console = Console(markup=False)  # names and paths may hold [brackets]
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDE


class Output:
    """Standard output during a command: a write that fails ends the command with an exit code and no traceback."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        if isinstance(stream, io.TextIOWrapper):  # what the encoding cannot write becomes an escape like \\u732b
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text."""
        with self._watched():
            return int(self.stream.write(text))

    def flush(self) -> None:
        """Write what is buffered."""
        with self._watched():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python flushes once more when it ends, and would fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if isinstance(error, BrokenPipeError):  # `linkcontext ... | head`
                raise SystemExit(READER_GONE) from error
            complain(f"the output could not be written ({error.strerror}). Free some space, or send it elsewhere.")
            raise SystemExit(UNWRITTEN) from error


@contextmanager
def output() -> Iterator[None]:
    """Print through `Output` until the block ends. Without stdout or stderr (`>&-`) what is printed goes nowhere."""
    for descriptor in (0, 1, 2):  # a file opened later must not take the place of a closed stdin, stdout or stderr
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    with ExitStack() as streams:
        nowhere = streams.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        streams.enter_context(redirect_stderr(sys.stderr or nowhere))
        guarded = Output(sys.stdout or nowhere)
        streams.enter_context(redirect_stdout(cast("io.TextIOBase", guarded)))
        try:
            yield
        finally:
            guarded.flush()  # so that it fails here, and not when Python ends


def complain(sentence: str, before: str = "") -> None:
    """Print a sentence to stderr, which may be closed."""
    with suppress(OSError):
        print(f"{before}linkcontext: {harmless(sentence)}", file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """A text with control characters as escapes: names of files and packs from others may hold them."""
    return CONTROL.sub(lambda letter: f"\\x{ord(letter[0]):02x}", text)


def print_problems(problems: Sequence[str]) -> None:
    """Print sentences about what was left out; of very many only the first and the last."""
    shown = list(problems)
    if len(shown) > SHOWN:
        shown[SHOWN // 2 : -SHOWN // 2] = [f"... and {len(shown) - SHOWN:,} problems more ..."]
    for problem in shown:
        console.print(harmless(problem), style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_json(payload: Any) -> None:
    """Print JSON on one line, with JSON's own escapes if the output's encoding lacks a letter."""
    line = json.dumps(payload, ensure_ascii=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(payload)
    print(line)
