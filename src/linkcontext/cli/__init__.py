"""Teach vision-language models by pictures in their context, and measure what they learn."""

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
from typing import Any, NoReturn

import tyro

from linkcontext.cli.ask import AskPack
from linkcontext.cli.data import Data, Episodes, Mine, World
from linkcontext.cli.evaluate import Compare, Eval, Probe, Report, Validate
from linkcontext.cli.serve import App, Serve
from linkcontext.cli.teach import ChangePack, Chat, Demo, Teach
from linkcontext.cli.terminal import complain, output
from linkcontext.cli.train import Average, Cache, Mini, Train
from linkcontext.errors import UNDECODED, UNREACHABLE, InputError, path_error
from linkcontext.launch import is_main_process, process_count
from linkcontext.scoring.engine_names import with_current_names
from linkcontext.storage import remove_workspaces

# Errors of a disk that is full, read-only or gone: they are not the program's fault.
DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),
    *(errno.EMFILE, errno.ENFILE),
)
PATIENCE = 1.0  # seconds that other threads have to end when a command is stopped
RECORDING = ("eval", "probe", "train", "demo", "average")  # commands that write their arguments into files
RESUMABLE = ("eval", "probe", "train", "mine")  # these commands also run in several processes


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input and an output that cannot be written give a sentence on stderr and exit code 2.

    The exit code is 141 if the reader of a pipe has closed it, as in a shell, 130 after Ctrl-C and 143 after SIGTERM.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    commands: dict[str, Any] = {
        "world": World,
        "data": Data,
        "episodes": Episodes,
        "validate": Validate,
        "eval": Eval,
        "probe": Probe,
        "report": Report,
        "compare": Compare,
        "mine": Mine,
        "train": Train,
        "average": Average,
        "serve": Serve,
        "mini": Mini,
        "cache": Cache,
        "demo": Demo,
        "teach": Teach,
        "ask": AskPack,
        "pack": ChangePack,
        "chat": Chat,
        "app": App,
    }
    with output(), _terminable():
        _run(commands, arguments)


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
    complain(f"stopped.{again if command_line.startswith(RESUMABLE) else ''}", "\n")
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
            f"{arguments[0]}: runs in one process, and {process_count()} were launched. Start it without torchrun "
            f"and accelerate launch; only {', '.join(RESUMABLE)} share their work between processes."
        )


def _run(commands: dict[str, Any], arguments: list[str] | None) -> None:
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        _check_encoding(arguments)
        _check_processes(arguments)
        logging.basicConfig(level=logging.WARNING if is_main_process() else logging.ERROR, format="%(message)s")
        command = tyro.extras.subcommand_cli_from_dict(
            commands, args=with_current_names(arguments), prog="linkcontext", description=__doc__
        )
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
        complain(f"{where}{error.strerror}. Is the disk full, read-only or gone? Mend that, and run the command again.")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        command_line = shlex.join(sys.argv[1:] if arguments is None else arguments)
        _stopped(command_line, 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))
