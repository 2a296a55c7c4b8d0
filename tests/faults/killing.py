"""Commands in processes of their own that are killed at a chosen moment. Importing torch once serves all of them."""

import contextlib
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

import linkcontext

SOURCE = Path(linkcontext.__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "linkcontext.cli",
        "linkcontext.mini.build",
        "linkcontext.mining.embed",
        "linkcontext.report.page",
        "linkcontext.teach.learner",
        "linkcontext.train.loop",
    ]
)
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime")


class Moments:
    """Counts what a process does to files below a folder, and kills it just before the one numbered `at`."""

    def __init__(self, folder, at):
        self.folder, self.at, self.count = str(folder), at, 0

    def __call__(self, event, arguments):
        if event not in EVENTS:
            return
        paths = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        if any(path.startswith(self.folder) for path in paths):
            if self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1


def build(out):
    """A build of the bundled models that has hardly begun. Its states are saved at every step."""
    import torch  # noqa: PLC0415

    from linkcontext.mini import build, stage  # noqa: PLC0415
    from linkcontext.mini.recipe import recipe  # noqa: PLC0415

    stage.SAVE_EVERY = 0.0
    short = recipe("nano", clip_steps=3, base_steps=4, tune_steps=4, taught=8, fresh=8, tokens=512)
    build.build(short, Path(out), torch.device("cpu"))


def _run(arguments, folder, at, said, environment):
    import torch  # noqa: PLC0415

    from linkcontext.cli import main  # noqa: PLC0415

    torch.set_num_threads(1)
    os.environ.update(environment)
    moments = Moments(folder, at)
    with open(said, "a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):  # noqa: PTH123
        sys.addaudithook(moments)
        if arguments[0] == "build":
            build(arguments[1])
        else:
            main(arguments)
    Path(said).with_suffix(".count").write_text(str(moments.count))


def start(arguments, folder, said, at=None, **environment):
    """A process that runs a command, and kills itself before it does the `at`-th thing to files below `folder`."""
    with pytest.MonkeyPatch.context() as patch:  # the server that forks does not get this process's sys.path
        patch.setenv("PYTHONPATH", str(SOURCE))
        forkserver.ensure_running()
    process = CONTEXT.Process(target=_run, args=([str(a) for a in arguments], folder, at, said, environment))
    process.start()
    return process


def finish(arguments, folder, said, at=None, **environment):
    """Whether the command ended well: False where it was killed. Anything else fails, with what it printed."""
    process = start(arguments, folder, said, at, **environment)
    process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL), Path(said).read_text()
    return process.exitcode == 0
