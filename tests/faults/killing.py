"""Commands in processes of their own that are killed at a chosen moment. Importing torch once serves all of them."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import linkcontext

SOURCE = Path(linkcontext.__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "linkcontext.cli",
        "linkcontext.mining.embed",
        "linkcontext.report.page",
        "linkcontext.teach.learner",
        "linkcontext.train.loop",
    ]
)
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime")
GROWS = ("os.mkdir", "os.rename")  # besides opening to write: what a full disk refuses


class Moments:
    """Counts what a process does to files below a folder, and does something to it just before the one numbered `at`.

    `fault` is "kill", "vanish", which removes the folder, or the number of an error that the disk has from then on.
    """

    def __init__(self, folder, at, fault):
        self.folder, self.at, self.fault, self.count = str(folder), at, fault, 0

    def __call__(self, event, arguments):
        if event not in EVENTS:
            return
        paths = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        if not any(path == self.folder or path.startswith(self.folder + os.sep) for path in paths):
            return
        self.count += 1
        if self.at is None or self.count <= self.at:
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "vanish":
            self.at = None  # once
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self._is_refused(event, arguments):
            raise OSError(self.fault, os.strerror(self.fault), paths[0])

    def _is_refused(self, event, arguments):
        writes = event in GROWS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return writes or self.fault == errno.EIO or (self.fault == errno.EROFS and event != "open")


def _run(arguments, folder, at, said, fault, largest, environment):
    from linkcontext.cli import main  # noqa: PLC0415

    torch.set_num_threads(1)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
    moments = Moments(folder, at, fault)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(said, "a", encoding="utf-8"))  # noqa: PTH123
        printed = log if largest is None else io.StringIO()  # what is printed is no file of the command's
        stack.callback(lambda: printed is log or log.write(printed.getvalue()))
        if largest is not None:  # bytes of a file, as with `ulimit -f`
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
            stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(printed))
        sys.addaudithook(moments)
        main(arguments)
        moments.at = None
    Path(said).with_suffix(".count").write_text(str(moments.count))


def start(arguments, folder, said, at=None, fault="kill", largest=None, **environment):
    """A process that runs a command. What it prints goes to `said`. For faults see `Moments`."""
    with pytest.MonkeyPatch.context() as patch:  # the server that forks does not get this process's sys.path
        patch.setenv("PYTHONPATH", str(SOURCE))
        forkserver.ensure_running()
    told = ([str(a) for a in arguments], folder, at, said, fault, largest, environment)
    process = CONTEXT.Process(target=_run, args=told)
    process.start()
    return process


def finish(arguments, folder, said, *codes, **options):
    """The exit code of a command, which is one of these, or 0. Anything else fails, with what it printed."""
    process = start(arguments, folder, said, **options)
    process.join(300)
    assert process.exitcode in (0, *codes), Path(said).read_text()
    return process.exitcode


EVAL = ("--ways", "2", "--shots", "0", "1", "--episodes", "6", "--queries", "2", "--explain", "1")
TRAIN = ("--support", "4", "--queries", "2", "--steps", "4", "--batch", "2", "--save-every", "1", "--keep", "1")
DRAW = ("--episodes", "9", "--shots", "1", "--queries", "2")
VARYING = ("answers_per_second",)  # of the lines of a log


def commands(nano, pictures, out):
    """Commands that write: the arguments, the folder that they write into, and what in it is always the same."""
    local = ("--model", nano, "--data", pictures, "--device", "cpu")
    told = ("config.json", "episodes.jsonl", "predictions.jsonl", "explain.json")
    world = ("--classes", "6", "--images", "4", "--sheet", out / "w.png")
    return {
        "eval": (["eval", *local, *EVAL, "--out", out / "run"], out / "run", told),
        "train": (["train", *local, *TRAIN, "--out", out / "run"], out / "run", ("*",)),
        "mine": (["mine", "--data", pictures, "--out", out / "n.jsonl", "--sheet", out / "n.png"], out, ("*",)),
        "teach": (["teach", *local, "--out", out / "z.pack"], out, ("*",)),
        "world": (["world", "--out", out / "w", *world], out, ("*",)),
        "digits": (["data", "digits"], out / "cache", ("digits-64",)),
        "average": (["average", nano, nano, "--out", out / "avg"], out, ("*",)),
        "episodes": (["episodes", "--data", pictures, *DRAW, "--out", out / "e.jsonl"], out, ("*",)),
        "bundle": (["mini", "path", "mini"], out / "cache", ("models",)),
    }


def contents(folder, wanted, out):
    """Path to content of the wanted files; the names of this attempt's folder are left out of them."""
    tops = [top for pattern in wanted for top in folder.glob(pattern)]
    same = {}
    for path in [path for top in tops for path in (top, *top.rglob("*"))]:
        if path.is_file() and not path.name.endswith(".lock"):
            value = content(path)
            name = str(path.relative_to(out))
            same[name] = value.replace(str(out).encode(), b"OUT") if isinstance(value, bytes) else value
    return same


def content(path):
    """What a file says, without what may differ between two runs that say the same."""
    if path.suffix in (".safetensors", ".pack"):  # whose header has its parts in any order
        with safe_open(path, "np") as file:
            about = sorted((file.metadata() or {}).items())
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return about, {
            n: (str(t.dtype), t.shape, t.view(-1).view(torch.uint8).numpy().tobytes()) for n, t in tensors.items()
        }
    if path.name == "explain.json":
        return re.sub(rb'"seconds":[0-9.]+', b"", path.read_bytes())
    if path.name.endswith("log.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in VARYING} for line in lines]
    return path.read_bytes()
