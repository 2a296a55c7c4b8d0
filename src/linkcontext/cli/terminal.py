"""The terminal output of commands."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from linkcontext.errors import CONTROL, InputError
from linkcontext.launch import is_main_process, process_number

SHOWN = 20  # problems printed, of the hundreds of thousands that a file may have
WIDE = 200  # columns of a table in a file or a pipe
READER_GONE = 141  # the exit code of a shell for SIGPIPE
UNWRITTEN = 2  # the exit code if the output cannot be written

console = Console(markup=False)  # names and paths may contain [brackets]
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDE


class Output:
    """Standard output during a command. A failed write ends the command with an exit code and without a traceback."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        if isinstance(stream, io.TextIOWrapper):  # characters outside the encoding become escapes like \\u732b
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
            # Python flushes again when it exits, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if isinstance(error, BrokenPipeError):  # `linkcontext ... | head`
                raise SystemExit(READER_GONE) from error
            complain(f"the output could not be written ({error.strerror}). Free some space, or send it elsewhere.")
            raise SystemExit(UNWRITTEN) from error


@contextmanager
def output() -> Iterator[None]:
    """Print through `Output` during the block. With a closed stdout or stderr (`>&-`) the output is discarded."""
    for descriptor in (0, 1, 2):  # a file opened later must not get the descriptor of a closed standard stream
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
            guarded.flush()  # so that a failure is raised here, and not when Python exits


def complain(sentence: str, before: str = "") -> None:
    """Print a message to stderr, which may be closed."""
    of_process = ""
    with suppress(InputError):  # the message may be about the variables of the launch
        of_process = "" if is_main_process() else f"process {process_number()}: "
    with suppress(OSError):
        print(f"{before}linkcontext: {of_process}{harmless(sentence)}", file=sys.stderr, flush=True)


def remark(sentence: str) -> None:
    """Print a sentence about a result to stderr, so that stdout has results alone; nothing with --quiet."""
    if logging.getLogger("linkcontext").isEnabledFor(logging.WARNING):
        with suppress(OSError):
            print(harmless(sentence), file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """The text with its control characters as escapes: files and packs from other people may contain them."""
    return CONTROL.sub(lambda letter: f"\\x{ord(letter[0]):02x}", text)


def print_problems(problems: Sequence[str]) -> None:
    """Print problems, a sentence each; of more than `SHOWN`, only the first and the last ones."""
    shown = list(problems)
    if len(shown) > SHOWN:
        shown[SHOWN // 2 : -SHOWN // 2] = [f"... and {len(shown) - SHOWN:,} more problems ..."]
    for problem in shown:
        console.print(harmless(problem), style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_json(payload: Any) -> None:
    """Print JSON on one line, with JSON escapes if the output's encoding lacks a character."""
    line = json.dumps(payload, ensure_ascii=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(payload)
    print(line)
