"""The command line: `main` runs a command, and ends it with a sentence and an exit code."""

import errno
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from linkcontext.cli.parser import Verbosity, command_first, overview, parse, versions
from linkcontext.cli.terminal import complain, output
from linkcontext.errors import UNDECODED, UNREACHABLE, InputError, path_error
from linkcontext.launch import is_main_process, process_count
from linkcontext.storage import remove_workspaces

# Errors of a disk that is full, read-only or gone: they are not the program's fault.
DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),
    *(errno.EMFILE, errno.ENFILE),
)
PATIENCE = 1.0  # seconds that other threads have to end when a command is stopped
RECORDING = ("eval", "probe", "train", "demo", "average")  # commands that write their arguments into files
# transformers and the hub read these when they are imported, which a command does when it runs.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
RESUMABLE = ("eval", "probe", "train", "mine")  # these commands also run in several processes


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input and an output that cannot be written give a sentence on stderr and exit code 2.

    The exit code is 141 if the reader of a pipe has closed it, as in a shell, 130 after Ctrl-C and 143 after SIGTERM.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with output(), _terminable():
        _run(sys.argv[1:] if arguments is None else arguments)


class Terminated(KeyboardInterrupt):
    """The command received SIGTERM: a service manager, a container or a batch system stops it."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM stop the command as Ctrl-C does: unfinished files are removed, and the same command resumes."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second SIGTERM ends the process at once
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stopped(command_line: str, code: int) -> NoReturn:
    """Print how to resume, and exit. Threads have a second to end: one may be writing, others may wait for a server."""
    again = f" To resume, run the same command again: linkcontext {command_line}"
    kept = " A pack is written in one step at the end: it is either as it was before, or complete."
    if not command_line.startswith(RESUMABLE):
        again = kept if command_line.startswith(("teach", "pack")) else ""
    complain(f"stopped.{again}", "\n")
    threads = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    remove_workspaces()
    if any(thread.is_alive() for thread in threads):  # Python would wait for them
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not valid text, because neither a run's files nor a model can hold them.

    Commands that only read accept any bytes in the path of an existing file.
    """
    for argument in arguments:
        readable = arguments[0] not in RECORDING and os.path.exists(argument)  # noqa: PTH110 - False for long texts
        if UNDECODED.search(argument) and not readable:
            encoding = sys.getfilesystemencoding().upper()
            advice = "Rename it, or write it in UTF-8." if encoding == "UTF-8" else "Set LC_ALL=C.UTF-8."
            raise InputError(f"{os.fsencode(argument)!r}: this argument is not {encoding}. {advice}")


def _check_processes(arguments: Sequence[str]) -> None:
    """Refuse to run a command several times at once that does not share its work."""
    if process_count() > 1 and arguments and not arguments[0].startswith("-") and arguments[0] not in RESUMABLE:
        raise InputError(
            f"{arguments[0]}: this command runs in one process, but {process_count()} were launched. Start "
            "it without torchrun "
            f"and accelerate launch; only {', '.join(RESUMABLE)} share their work between processes."
        )


def _set_verbosity(verbosity: Verbosity) -> None:
    """Print warnings and progress, or also what is done (--verbose), or neither (--quiet)."""
    logging.basicConfig(level=logging.WARNING if is_main_process() else logging.ERROR, format="%(message)s")
    level = logging.INFO if verbosity.verbose else logging.ERROR if verbosity.quiet else logging.WARNING
    logging.getLogger("linkcontext").setLevel(level if is_main_process() else logging.ERROR)
    if verbosity.quiet:
        logging.getLogger().setLevel(logging.ERROR)
        os.environ |= QUIET


def _run(given: Sequence[str]) -> None:
    try:
        arguments = command_first(given)
        if not arguments:
            print(overview(), file=sys.stderr)
            raise SystemExit(2)
        if arguments[0] in ("-h", "--help"):
            print(overview())
            return
        if arguments[0] == "--version":
            print(versions())
            return
        _check_encoding(arguments)
        _check_processes(arguments)
        command, verbosity = parse(arguments)
        _set_verbosity(verbosity)
        command.run()
    except InputError as error:
        complain(str(error))
        raise SystemExit(2) from error
    except OSError as error:
        if error.errno in UNREACHABLE:
            complain(path_error(error))
            raise SystemExit(2) from error
        if error.errno not in DISK:
            raise
        where = f"{Path(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        complain(f"{where}{error.strerror}. Is the disk full, read-only or gone? Fix that, and run the command again.")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        _stopped(shlex.join(given), 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))
