"""Files and folders are whole or not there, whatever stops their writer; what it left is removed by the next."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import save_file

from linkcontext import storage
from linkcontext.errors import InputError
from linkcontext.storage import lock_folder, replacing, write_errors, write_folder, write_text, written_once

SOURCE = str(Path(storage.__file__).parents[1])
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from linkcontext import storage

def die(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

getattr(storage, sys.argv[2])(Path(sys.argv[3]), die)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_in(function, folder):
    done = subprocess.run([sys.executable, "-c", KILLED, SOURCE, function, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = folder.parent.iterdir() if not folder.exists() else folder.iterdir()
    assert left.name.startswith(f".{folder.name}.")


@pytest.mark.parametrize(
    ("function", "there"), [("written_once", False), ("write_folder", False), ("write_folder", True)]
)
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, function, there):
    folder = tmp_path / "world"
    if there:
        folder.mkdir()
    killed_in(function, folder)
    getattr(storage, function)(folder, lambda new: (new / "a.png").write_text("a"))
    assert names(tmp_path) == ["world"]
    assert names(folder) == ["a.png"]


def test_the_cache_is_cleared_of_what_other_drawings_left(tmp_path):
    killed_in("written_once", tmp_path / "v1-8")
    written_once(tmp_path / "v1-9", lambda new: (new / "a.png").touch())
    assert names(tmp_path) == ["v1-9"]


def test_a_folder_that_is_new_is_removed_where_nothing_is_written_into_it(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(InputError, match="refused"), lock_folder(tmp_path / name):
            raise InputError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(InputError, match="refused"), lock_folder(tmp_path / "new"):
        write_text("1", tmp_path / "new" / "config.json")
        raise InputError("refused")
    assert (tmp_path / "new" / "config.json").exists()


def test_a_folder_that_vanishes_while_it_is_held_leaves_the_error_of_the_work(tmp_path):
    with pytest.raises(InputError, match="the disk is gone"), lock_folder(tmp_path / "new"):
        shutil.rmtree(tmp_path / "new")
        raise InputError("the disk is gone")


def test_a_run_folder_is_cleared_when_it_is_held(tmp_path):
    killed_in("write_folder", tmp_path / "checkpoint-3")
    with lock_folder(tmp_path):
        assert names(tmp_path) == [".lock"]


def test_what_another_process_is_writing_stays(tmp_path):
    with replacing(tmp_path / "a.txt") as new:
        new.write_text("first")
        write_text("second", tmp_path / "a.txt")
        storage.remove_leftovers(tmp_path)
        assert new.read_text() == "first"
    assert (tmp_path / "a.txt").read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_hidden_folders_of_others_stay(tmp_path):
    (tmp_path / ".movie.part").mkdir()
    (tmp_path / ".a.txt.part").write_text("theirs")
    write_text("text", tmp_path / "a.txt")
    with lock_folder(tmp_path):
        assert names(tmp_path) == [".a.txt.part", ".lock", ".movie.part", "a.txt"]


def test_a_workspace_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    acquired = FileLock.acquire
    removed = []

    def late(lock, *args, **options):
        taken = acquired(lock, *args, **options)
        if not removed:
            removed.append(Path(lock.lock_file).parent)
            Path(lock.lock_file).unlink()
            removed[0].rmdir()
        return taken

    monkeypatch.setattr(FileLock, "acquire", late)
    write_text("text", tmp_path / "a.txt")
    assert removed and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), KeyError("x")]
)
def test_whatever_stops_the_writer_the_old_folder_stays(tmp_path, error):
    folder = tmp_path / "checkpoint"
    with replacing(folder) as new:
        new.mkdir()
        (new / "a").write_text("old")
    with pytest.raises((InputError, KeyboardInterrupt, KeyError)), replacing(folder) as new:
        new.mkdir()
        (new / "a").write_text("new")
        raise error
    assert names(tmp_path) == ["checkpoint"] and (folder / "a").read_text() == "old"
    with replacing(folder) as new:
        new.mkdir()
        (new / "b").write_text("new")
    assert names(folder) == ["b"]


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path):
    (tmp_path / "there").mkdir(mode=0o750)
    before = (tmp_path / "there").stat()
    assert write_folder(tmp_path / "there", lambda new: (new / "a").write_text("abc")) == 3
    after = (tmp_path / "there").stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert names(tmp_path / "there") == ["a"]


def test_the_folder_one_stands_in_is_filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(Path(), lambda new: (new / "a").touch())
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("make", [Path.touch, lambda path: (path.mkdir(), (path / "a").touch())])
def test_what_is_there_is_not_written_into(tmp_path, make):
    make(tmp_path / "w")
    with pytest.raises(InputError, match="the folder is not empty"):
        write_folder(tmp_path / "w", lambda new: (new / "b").touch())
    assert not list(tmp_path.rglob("b"))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (OSError(errno.EFBIG, "File too large"), "Free some space"),
        (OSError(errno.EROFS, "Read-only file system"), "change its permissions or choose another place"),
        (OSError(errno.EIO, "Input/output error"), "Is the disk still there"),
        (SafetensorError("Error: I/O error: No space left on device (os error 28)"), "Free some space"),
        (Exception("File too large (os error 27)"), "Free some space"),  # as tokenizers raises it
    ],
)
def test_the_sentence_names_the_path_the_cause_and_what_to_do(tmp_path, error, advice):
    with pytest.raises(InputError) as raised, write_errors(tmp_path / "w"):
        raise error
    sentence = str(raised.value)
    assert sentence.startswith(f"{tmp_path / 'w'}: could not be written (") and advice in sentence
    assert "os error" not in sentence


def test_a_file_in_a_folder_that_is_being_written_is_named_by_its_place(tmp_path):
    def write(new):
        with write_errors(new / "manifest.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError) as raised:
        write_folder(tmp_path / "w", write)
    assert str(raised.value).startswith(f"{tmp_path / 'w'}: could not be written (No space left on device)")
    assert ".part" not in str(raised.value)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_and_texts_have_the_permissions_that_the_umask_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "weights") as new:
            new.mkdir()
            save_file({"a": np.zeros(2)}, new / "model.safetensors")
            write_text("{}", new / "config.json")
        with replacing(tmp_path / "zoo.pack") as new:
            save_file({"a": np.zeros(2)}, new)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [mode] * 3


def test_a_parent_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for write in (
        lambda: write_text("text", tmp_path / "file" / "a.txt"),
        lambda: write_folder(tmp_path / "file" / "w", Path.exists),
        lambda: written_once(tmp_path / "file" / "w", Path.exists),
    ):
        with pytest.raises(InputError, match="could not be written"):
            write()
    with pytest.raises(InputError, match="could not be written"), lock_folder(tmp_path / "file" / "run"):
        pass


def test_an_interrupted_removal_is_made_up_for(tmp_path, monkeypatch):
    """Ctrl-C can come while a hidden folder is being removed."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage.shutil, "rmtree", interrupted)
        storage.write_text("whole", tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]
    storage.remove_workspaces()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_nothing_half_written_is_left(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"could not be written \(No space left on device\)"):
        written_once(tmp_path / "cache" / "set", fail)
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "a_file").touch()
    with pytest.raises(InputError, match="LINKCONTEXT_CACHE"):
        written_once(tmp_path / "a_file" / "set", os.fspath)


@pytest.mark.parametrize("moment", ["before", "between"])
def test_another_process_that_was_faster_wins(tmp_path, monkeypatch, moment):
    folder = tmp_path / "set"

    def write(mine):
        (mine / "mine").touch()
        if moment == "before":
            other()

    def other():
        folder.mkdir()
        (folder / "theirs").touch()

    if moment == "between":  # after the check, before the rename
        real = storage.Path.rename
        monkeypatch.setattr(storage.Path, "rename", lambda path, to: (other(), real(path, to)))
    assert written_once(folder, write) == folder
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [folder]
