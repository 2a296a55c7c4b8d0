"""Killed at any moment and started again, a command writes what it would have written."""

import json
import os
import random
import re
import signal
import time

import pytest
from killing import finish, start
from safetensors import safe_open
from safetensors.numpy import load_file

pytestmark = pytest.mark.heavy
EVAL = ("--ways", "2", "--shots", "0", "1", "--episodes", "6", "--queries", "2", "--explain", "1")
TRAIN = ("--support", "4", "--queries", "2", "--steps", "4", "--batch", "2", "--save-every", "1", "--keep", "1")
VARYING = ("answers_per_second",)  # of the lines of a log


def commands(nano, pictures, out):
    """What is killed: the arguments, the folder that it writes into, and what of it must be the same."""
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
        "mini": (["build", out / "mini"], out / "mini", ("*",)),
    }


def content(path):
    """What a file says, whatever may differ between two runs that say the same."""
    if path.suffix in (".safetensors", ".pack"):  # whose header has its parts in any order
        with safe_open(path, "np") as file:
            about = sorted((file.metadata() or {}).items())
        return about, {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in load_file(path).items()}
    if path.name == "explain.json":
        return re.sub(rb'"seconds":[0-9.]+', b"", path.read_bytes())
    if path.name.endswith("log.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in VARYING} for line in lines]
    return path.read_bytes()


def contents(folder, wanted, out):
    """Path to content of the wanted files, the names of this attempt's folder left out of them."""
    tops = [top for pattern in wanted for top in folder.glob(pattern)]
    same = {}
    for path in [path for top in tops for path in (top, *top.rglob("*"))]:
        if path.is_file() and path.name != ".lock":
            value = content(path)
            name = str(path.relative_to(out))
            same[name] = value.replace(str(out).encode(), b"OUT") if isinstance(value, bytes) else value
    return same


@pytest.mark.parametrize("name", ["eval", "train", "mine", "teach", "world", "digits", "mini"])
def test_killed_anywhere_the_same_command_writes_the_same(name, nano, pictures, tmp_path, count):
    def prepared(attempt):
        out = tmp_path / attempt
        out.mkdir()
        arguments, folder, wanted = commands(nano, pictures, out)[name]
        cache = {"LINKCONTEXT_CACHE": str(out / "cache")} if name == "digits" else {}
        return arguments, folder, wanted, out, tmp_path / f"{attempt}.stdout", cache

    arguments, folder, wanted, out, said, cache = prepared("whole")
    assert finish(arguments, folder, said, **cache)
    whole, moments = contents(folder, wanted, out), int(said.with_suffix(".count").read_text())
    assert whole and moments > 3
    lot, kills, wished = random.Random(name), 0, count(20)
    while kills < wished:
        arguments, folder, wanted, out, said, cache = prepared(str(kills))
        for _ in range(2):  # what goes on is killed once more
            kills += not finish(arguments, folder, said, lot.randrange(moments), **cache)
        assert finish(arguments, folder, said, **cache), said.read_text()
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
    while process.is_alive() and not any(path.is_file() and path.name != ".lock" for path in tmp_path.rglob("*/*")):
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.01)
    begun = time.monotonic()
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code, said.read_text()
    assert "stopped." in said.read_text()
    assert time.monotonic() - begun < 10  # it is under a second on a machine with nothing else to do
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
