"""Processes in which linkcontext runs, each with its stdin, stdout and stderr in files.

Every command is a process of its own that imports linkcontext anew. It is forked from a process that has imported torch
and transformers, because importing them again for each command would take most of the time.
"""

import importlib
import multiprocessing
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

PROGRAM = "linkcontext"
SECONDS = 900  # that a command may take
ENVIRONMENT = {"COLUMNS": "200", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
ENVIRONMENT |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
PRELOADED = (
    "torch",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama",
)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/v1")


def preload() -> None:
    """Import what takes long, and nothing of linkcontext."""
    for name in PRELOADED:
        importlib.import_module(name)


@contextmanager
def process(root: Path, here: Path, arguments: list[str]) -> Iterator[BaseProcess]:
    """A process of `linkcontext ARGUMENTS` in the folder `root`, with its streams in files of `here`.

    When the block ends it is over, or is killed after `SECONDS`.
    """
    running = multiprocessing.get_context("fork").Process(target=_command, args=(root, here, arguments))
    running.start()
    try:
        yield running
    finally:
        running.join(SECONDS)
        if running.is_alive():
            running.kill()
            running.join()


@contextmanager
def serving(running: BaseProcess, here: Path) -> Iterator[str]:
    """The address that a server prints, once it has; the server is stopped when the block ends."""
    end = time.monotonic() + SECONDS
    while not (printed := ADDRESS.search((here / "stdout.txt").read_text())):
        if not running.is_alive() or time.monotonic() > end:
            raise RuntimeError(f"the server did not start: {(here / 'stderr.txt').read_text()}")
        time.sleep(0.1)
    try:
        yield printed[0]
    finally:
        assert running.pid is not None
        os.kill(running.pid, signal.SIGTERM)


def _command(root: Path, here: Path, arguments: list[str]) -> None:
    """Become `python -m linkcontext ARGUMENTS`."""
    os.chdir(root)
    sys.stdout.flush()
    for name, descriptor, flags in (
        ("stdin", 0, os.O_RDONLY),
        ("stdout", 1, os.O_WRONLY),
        ("stderr", 2, os.O_WRONLY),
    ):
        opened = os.open(here / f"{name}.txt", flags)
        os.dup2(opened, descriptor)
        os.close(opened)
        setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.argv = [PROGRAM, *arguments]
    runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
