"""Killed at any moment and started again, a command writes what it would have written."""

import os
import random
import signal
import time

import pytest
from killing import commands, contents, finish, start

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("name", ["eval", "train", "mine", "teach", "world", "digits"])
def test_killed_anywhere_the_same_command_writes_the_same(name, nano, pictures, tmp_path, count):
    def prepared(attempt):
        out = tmp_path / attempt
        out.mkdir()
        arguments, folder, wanted = commands(nano, pictures, out)[name]
        cache = {"LINKCONTEXT_CACHE": str(out / "cache")} if name == "digits" else {}
        return arguments, folder, wanted, out, tmp_path / f"{attempt}.stdout", cache

    arguments, folder, wanted, out, said, cache = prepared("whole")
    finish(arguments, folder, said, **cache)
    whole, moments = contents(folder, wanted, out), int(said.with_suffix(".count").read_text())
    assert whole and moments > 3
    lot, kills, wished = random.Random(name), 0, count(20)
    while kills < wished:
        arguments, folder, wanted, out, said, cache = prepared(str(kills))
        for _ in range(2):  # what goes on is killed once more
            code = finish(arguments, folder, said, -signal.SIGKILL, at=lot.randrange(moments), **cache)
            kills += code == -signal.SIGKILL
        done = (2,) if name == "world" else ()  # killed after its last step, it refuses to write over what is there
        finish(arguments, folder, said, *done, **cache)
        assert contents(folder, wanted, out) == whole, f"after {kills} kills"
        assert not [path for path in out.rglob("*") if path.name.endswith(".part")]


LONG = {
    "eval": ("--episodes", "500"),
    "train": ("--steps", "9000", "--save-every", "5"),
    "mine": (),
    "world": ("--classes", "900"),
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", LONG)
def test_stopped_it_ends_at_once_with_the_documented_code(name, number, code, nano, pictures, tmp_path):
    arguments, folder, _ = commands(nano, pictures, tmp_path)[name]
    said = tmp_path / "stdout"
    process = start([*arguments, *LONG[name]], folder, said)
    deadline = time.monotonic() + 120
    while process.is_alive() and not any(
        path.is_file() and not path.name.endswith(".lock") for path in tmp_path.rglob("*/*")
    ):
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.01)
    begun = time.monotonic()
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code, said.read_text()
    assert "stopped." in said.read_text()
    assert time.monotonic() - begun < 10  # it is under a second on a machine with nothing else to do
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
