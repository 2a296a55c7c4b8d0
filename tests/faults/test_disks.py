"""Disks that are full, read-only, failing or gone: one sentence, nothing half-written, and then all goes on."""

import errno
import random
import shutil
import subprocess

import pytest
from killing import commands, contents, finish

pytestmark = pytest.mark.heavy
FAULTS = (errno.ENOSPC, errno.EROFS, errno.EIO, "vanish")
UNTIDY = (errno.EROFS, errno.EIO)  # disks that do not even let anything be removed
NAMES = ("eval", "train", "mine", "teach", "world", "digits", "average", "episodes", "bundle")
SENTENCE, CACHED = 2, ("digits", "bundle")


def prepared(name, nano, pictures, out):
    arguments, folder, wanted = commands(nano, pictures, out)[name]
    cache = {"LINKCONTEXT_CACHE": str(out / "cache")} if name in CACHED else {}
    return arguments, folder, wanted, cache


def is_a_sentence(code, said):
    """A command that failed said why, and nothing else."""
    printed = said.read_text()
    assert "Traceback" not in printed, printed
    assert (code == SENTENCE) == ("linkcontext: " in printed), printed
    return code == SENTENCE


def parts(folder):
    """What is half-written."""
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fails_at_any_moment(name, nano, pictures, tmp_path, count):
    said = tmp_path / "said"
    arguments, folder, wanted, options = prepared(name, nano, pictures, tmp_path / "whole")
    finish(arguments, folder, said, **options)
    whole = contents(folder, wanted, tmp_path / "whole")
    moments = int(said.with_suffix(".count").read_text())
    lot = random.Random(name)
    for attempt in range(count(40)):
        out, said, fault = tmp_path / str(attempt), tmp_path / f"{attempt}.said", FAULTS[attempt % len(FAULTS)]
        arguments, folder, wanted, options = prepared(name, nano, pictures, out)
        code = finish(arguments, folder, said, SENTENCE, at=lot.randrange(moments), fault=fault, **options)
        is_a_sentence(code, said)
        assert fault in UNTIDY or not parts(out)
        if fault == "vanish":
            continue
        if code == SENTENCE:  # the disk is mended
            finish(arguments, folder, said, **options)
            assert not parts(out)
        assert contents(folder, wanted, out) == whole, fault


@pytest.mark.parametrize("name", NAMES)
def test_files_may_not_grow(name, nano, pictures, tmp_path, count):
    """Every write beyond so many bytes of a file fails, as with `ulimit -f`."""
    refused = 0
    for attempt in range(count(20)):
        out, said = tmp_path / str(attempt), tmp_path / f"{attempt}.said"
        arguments, folder, _, options = prepared(name, nano, pictures, out)
        largest = (0, 3_000, 40_000, 300_000)[attempt % 4]
        refused += is_a_sentence(finish(arguments, folder, said, SENTENCE, largest=largest, **options), said)
        assert not parts(out)
    assert refused


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small disk in memory; skips where that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("mounting a disk is not allowed here")
        return disk

    yield mount
    subprocess.run(["umount", "-l", disk], capture_output=True, check=False)


@pytest.mark.parametrize("options", ["size=4k", "size=200k", "size=40M,nr_inodes=4", "ro"])
@pytest.mark.parametrize("name", NAMES)
def test_a_real_disk_that_is_small_or_read_only(name, options, nano, pictures, tmp_path, mounted):
    disk, said = mounted(options), tmp_path / "said"
    arguments, folder, _, more = prepared(name, nano, pictures, disk)
    assert is_a_sentence(finish(arguments, folder, said, SENTENCE, **more), said) or options != "ro"
    empty = [
        path
        for path in disk.rglob("*")
        if path.is_file() and not path.name.endswith(".lock") and not path.stat().st_size
    ]
    assert not parts(disk) + empty


@pytest.mark.parametrize("command", ["report", "compare", "probe", "data"])
@pytest.mark.parametrize("fault", FAULTS)
def test_commands_that_write_into_what_is_there(command, fault, nano, pictures, tmp_path, count):
    whole, said = tmp_path / "whole", tmp_path / "said"
    arguments, folder, _, _ = prepared("eval", nano, pictures, whole)
    finish(arguments, folder, said)
    shutil.copytree(pictures, whole / "pictures")
    lot = random.Random(command)
    for attempt in range(count(20)):
        copy = tmp_path / str(attempt)
        shutil.copytree(whole, copy)
        probe = ("--device", "cpu", "--episodes", "4", "--shots", "1", "--out", copy / "probe")
        more = {
            "report": [copy / "run"],
            "compare": [copy / "run", whole / "run"],
            "probe": ["--model", nano, "--data", pictures, *probe],
            "data": [copy / "pictures", "--write"],
        }[command]
        said = tmp_path / f"{attempt}.said"
        is_a_sentence(finish([command, *more], copy, said, SENTENCE, at=lot.randrange(30), fault=fault), said)
        assert fault in UNTIDY or not parts(copy)
        if fault != "vanish":
            finish([command, *more], copy, said)
            assert not parts(copy)
