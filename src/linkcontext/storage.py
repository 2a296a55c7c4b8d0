"""Files and folders that appear whole or not at all, and folders that one process at a time writes into.

What is written grows in a hidden folder `.NAME.01234567.part` beside its place, and is renamed when it is whole. Its
writer holds a lock in that folder meanwhile. Where the lock is free, the writer was killed: whoever writes there next
removes the folder.
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
RUST_ERROR = re.compile(r"os error (\d+)")  # how safetensors and tokenizers, written in Rust, say what the disk said
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
    except Unwritten as inner:  # about a file in a hidden folder, which the user does not know
        raise Unwritten(path, inner.error, advice) from inner.error
    except Exception as error:
        # The tokenizers library raises no other type than this for a disk that is full.
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
    """A path for a new file or folder, which replaces `path` when the block ends.

    Raises `InputError` if it cannot be written. If the block raises, `path` is left as it was.
    """
    with write_errors(path, advice), _workspace(path) as workspace:
        new = workspace / path.name
        yield new
        _open_to_umask(new)
        if path.is_file():
            new.chmod(stat.S_IMODE(path.stat().st_mode))  # who may read a file does not change with what is in it
        _sync(new)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        new.replace(path)


def write_text(text: str, path: Path) -> None:
    """Write a file that is there whole or not at all."""
    write_lines((text,), path)


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write pieces of text one after the other, as `write_text` does; they are never in memory together."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line)


def append_line(line: str, path: Path) -> None:
    """Write a line behind those of a file. Raises `InputError` where the disk does not take it."""
    with write_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")


def write_folder(folder: Path, write: Callable[[Path], Result]) -> Result:
    """Let `write` fill a folder, and put its content into `folder` whole or not at all; returns what `write` returns.

    Raises `InputError` if `folder` is neither new nor empty, and if it cannot be written.
    """
    place = folder.absolute()
    with write_errors(folder):
        if place.exists():  # a killed process may have left its hidden folder too
            _remove_leftovers_of(place)
        if occupied(place):
            raise InputError(f"{folder}: there is something in it already. Choose an empty or new folder.")
        there = place.is_dir()
        # An empty folder is filled and not replaced: it may be a mounted disk, or have permissions for other users.
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
    """Whether there is anything but an empty folder; leftovers of killed processes do not count."""
    if not folder.is_dir():
        return folder.exists()
    with read_errors(folder):
        return any(not WORKSPACE.fullmatch(entry.name) for entry in folder.iterdir())


def holds_files(folder: Path) -> bool:
    """Whether a folder is there and holds anything that is not hidden."""
    with read_errors(folder):
        return folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir())


def written_once(folder: Path, write: Callable[[Path], None], durable: bool = False) -> Path:
    """`folder`, which is in the cache; if it does not exist, `write` fills it, whole or not at all.

    With `durable` its files are on the disk before it is renamed, so that a power failure does not leave half of it.
    That takes milliseconds a file: too long for thousands of pictures, whose damage is noticed when they are read.
    """
    with suppress(OSError):  # there may be no cache yet, or one without write permission
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
def held(folder: Path) -> Iterator[None]:
    """Lock a folder for this process. A new one is removed if the block fails before anything is written into it.

    Raises `InputError` if another process has locked it.
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
            with suppress(OSError):  # another process has just come, or the disk is gone: the block's own error counts
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
    """Remove what killed processes left beside a file or folder."""
    # os.listdir, because a folder of features has thousands of files, and Paths take longer to make than to look for
    if any(name.startswith(f".{path.name}.") for name in os.listdir(path.parent)):  # noqa: PTH208
        remove_leftovers(path.parent)


@contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """A hidden folder of this process's own beside `path`, which is removed in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_of(path)
    with ExitStack() as stack:
        while True:
            folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            _WORKSPACES.add(folder)
            stack.callback(_remove_workspace, folder)
            folder.mkdir()
            with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
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
    """Give weights the permissions of other new files: safetensors makes them readable by their owner only."""
    mode = new.parent.stat().st_mode & 0o666
    for path in new.rglob("*.safetensors") if new.is_dir() else (new,):
        path.chmod(mode)


def _sync(new: Path) -> None:
    """Wait until a new file or folder is on the disk."""
    for path in new.rglob("*") if new.is_dir() else (new,):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def cache_dir() -> Path:
    """Where things are kept that can be made again.

    $LINKCONTEXT_CACHE, else $XDG_CACHE_HOME/linkcontext, else ~/.cache/linkcontext.
    """
    own = os.environ.get("LINKCONTEXT_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "linkcontext"
