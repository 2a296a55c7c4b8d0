"""Atomic writes of files and folders, locks of folders, and the cache folder.

Everything is written in a hidden folder `.NAME.01234567.part` beside its destination, and renamed when it is complete.
The writer holds a lock in the hidden folder. If the lock is free, the writer was killed, and the next writer removes
the folder.
"""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from linkcontext.errors import InputError

Result = TypeVar("Result")
LOCK = ".lock"
_WORKSPACES: set[Path] = set()  # hidden folders of this process
WORKSPACE = re.compile(r"\..*\.[0-9a-f]{8}\.part")
RUST_ERROR = re.compile(r"os error (\d+)")  # how libraries in Rust (safetensors, tokenizers) report errors of the disk
SPACE = "Free some space or choose another place."
PERMISSION = "Nothing may be written there: change its permissions or choose another place."
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), PERMISSION),
}


class Unwritten(InputError):
    """A file or folder that could not be written."""

    def __init__(self, path: Path, error: Exception, advice: str = "") -> None:
        self.error = error
        reason, number = str(error), None
        if isinstance(error, OSError):
            reason, number = error.strerror or reason, error.errno
        elif code := RUST_ERROR.search(reason):
            number = int(code[1])
            reason = os.strerror(number)
        advice = advice or ADVICE.get(number or 0, "Is the disk still there, and the path right?")
        super().__init__(f"{path}: could not be written ({reason}). {advice}")


@contextmanager
def write_errors(path: Path, advice: str = "") -> Iterator[None]:
    """Raise `Unwritten` if the block, which writes `path`, fails at the disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise Unwritten(path, error, advice) from error
    except Unwritten as inner:  # it names a file in a hidden folder, which the user does not know
        raise Unwritten(path, inner.error, advice) from inner.error
    except Exception as error:
        # The tokenizers library raises a plain Exception for a full disk.
        if type(error) is Exception and RUST_ERROR.search(str(error)):
            raise Unwritten(path, error, advice) from error
        raise


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Raise `InputError` if the block cannot read `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}). Is it still there?") from error


@contextmanager
def replacing(path: Path, advice: str = "") -> Iterator[Path]:
    """Yield a path for a new file or folder, which replaces `path` when the block ends.

    If the block raises, `path` stays unchanged. Raises `InputError` if it cannot be written.
    """
    with write_errors(path, advice), _workspace(path) as workspace:
        new = workspace / path.name
        yield new
        _open_to_umask(new)
        if path.is_file():
            new.chmod(stat.S_IMODE(path.stat().st_mode))  # a rewritten file keeps its permissions
        _sync(new)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        new.replace(path)


def write_text(text: str, path: Path) -> None:
    """Write a file that appears whole or not at all."""
    write_lines((text,), path)


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write pieces of text like `write_text`, without holding them all in memory."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line)


def append_line(line: str, path: Path) -> None:
    """Append a line to a file. Raises `InputError` if it cannot be written."""
    with write_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")


def write_folder(folder: Path, write: Callable[[Path], Result]) -> Result:
    """Let `write` fill a folder that appears as `folder` whole or not at all; return the result of `write`.

    Raises `InputError` if `folder` is neither new nor empty, and if it cannot be written.
    """
    place = folder.absolute()
    with write_errors(folder):
        if place.exists():  # a killed process may have left its hidden folder
            _remove_leftovers_of(place)
        if occupied(place):
            raise InputError(f"{folder}: the folder is not empty. Choose an empty or a new one.")
        there = place.is_dir()
        # An empty folder is filled and not replaced, because it may be a mount point or have special permissions.
        with _workspace(place / place.name if there else place) as workspace:
            new = workspace / "new"
            new.mkdir()
            result = write(new)
            _open_to_umask(new)
            if there:
                for entry in sorted(new.iterdir()):
                    entry.replace(place / entry.name)
            else:
                new.rename(place)
    return result


def occupied(folder: Path) -> bool:
    """Whether the path exists and is not an empty folder. Hidden folders of killed processes do not count."""
    if not folder.is_dir():
        return folder.exists()
    with read_errors(folder):
        return any(not WORKSPACE.fullmatch(entry.name) for entry in folder.iterdir())


def holds_files(folder: Path) -> bool:
    """Whether a folder exists and contains anything that is not hidden."""
    with read_errors(folder):
        return folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir())


def written_once(folder: Path, write: Callable[[Path], None], durable: bool = False) -> Path:
    """Return `folder`, which is in the cache. If it does not exist, let `write` fill it, whole or not at all.

    With `durable`, its files are synced to the disk before it is renamed, so that a power failure does not leave an
    incomplete folder. That takes milliseconds per file, which is too slow for thousands of pictures; their damage is
    noticed when they are read.
    """
    with suppress(OSError):  # the cache may not exist yet, or may not be writable
        remove_leftovers(folder.parent)
    if folder.is_dir():
        return folder
    advice = "Free some space, or name another cache folder with LINKCONTEXT_CACHE."
    with write_errors(folder, advice), _workspace(folder) as workspace:
        new = workspace / folder.name
        new.mkdir()
        write(new)
        _open_to_umask(new)
        if durable:
            _sync(new)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    return folder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for this process. A new folder is removed if the block fails before it has written anything.

    Raises `InputError` if another process has the lock.
    """
    with ExitStack() as stack:
        with write_errors(folder):
            fresh = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(folder / LOCK).acquire(timeout=0))
            except Timeout as error:
                raise InputError(
                    f"{folder}: another process is writing into it. Wait for it, or choose another --out."
                ) from error
            remove_leftovers(folder)
        try:
            yield
        except BaseException:
            with suppress(OSError):  # whatever goes wrong here, the error of the block is raised
                if fresh and [entry.name for entry in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                    folder.rmdir()
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove the hidden folders that killed processes left in a folder."""
    for entry in [entry for entry in folder.iterdir() if WORKSPACE.fullmatch(entry.name)]:
        with suppress(OSError), FileLock(entry / LOCK, timeout=0):  # not where another process still writes
            shutil.rmtree(entry)


def _remove_leftovers_of(path: Path) -> None:
    """Remove the hidden folders that killed processes left beside a file or folder."""
    # os.listdir is faster than Path.iterdir, and a folder of features has thousands of files.
    if any(name.startswith(f".{path.name}.") for name in os.listdir(path.parent)):  # noqa: PTH208
        remove_leftovers(path.parent)


@contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """Yield a locked hidden folder beside `path`, which is removed at the end of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_of(path)
    with ExitStack() as stack:
        while True:
            folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            _WORKSPACES.add(folder)
            stack.callback(_remove_workspace, folder)
            folder.mkdir()
            with suppress(FileNotFoundError):  # another process removed it before it was locked
                stack.enter_context(FileLock(folder / LOCK).acquire())
                if (folder / LOCK).exists():
                    break
        yield folder


def _remove_workspace(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _WORKSPACES.discard(folder)


def remove_workspaces() -> None:
    """Remove the hidden folders that an interruption kept this process from removing."""
    for folder in tuple(_WORKSPACES):
        _remove_workspace(folder)


def _open_to_umask(new: Path) -> None:
    """Give weights the permissions of other new files, because safetensors lets only their owner read them."""
    mode = new.parent.stat().st_mode & 0o666
    for path in new.rglob("*.safetensors") if new.is_dir() else (new,):
        path.chmod(mode)


def _sync(new: Path) -> None:
    """Wait until the files of a new file or folder are synced to the disk."""
    for path in new.rglob("*") if new.is_dir() else (new,):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def cache_dir() -> Path:
    """The folder for files that can be made again.

    It is $LINKCONTEXT_CACHE, or else $XDG_CACHE_HOME/linkcontext, or else ~/.cache/linkcontext.
    """
    own = os.environ.get("LINKCONTEXT_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "linkcontext"
