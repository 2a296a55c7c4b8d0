"""Scanning a folder: which files are good pictures, and a sentence for each thing that was left out.

Every picture is decoded once to know that it is good. What was learnt is kept in the cache, so the next scan
of the same folder only asks each file for its size and its time.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from linkcontext.data import images
from linkcontext.data.manifest import MANIFEST, cache_dir
from linkcontext.errors import InputError
from linkcontext.records import write_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
KINDS = "PNG, JPEG, WebP or GIF"
SETTLED_NS = 2_000_000_000  # a younger file may change again within one tick of its file system's clock
PATIENCE_S = 1.0  # before a progress bar is worth its line


@dataclass(slots=True)
class Problems:
    """Sentences about what was left out. With `strict` the first one is raised."""

    strict: bool
    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """Something the user gave was left out."""
        if self.strict:
            raise InputError(sentence)
        self.sentences.append(sentence)

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """What is found wrong with a record inside leaves that record out."""
        try:
            yield
        except InputError as error:
            self.add(str(error))

    def note(self, sentence: str) -> None:
        """Nothing is lost, but the user should know."""
        self.sentences.append(sentence)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was learnt of a file when it had this size and this time: its hash, or why it is no picture."""

    size: int
    mtime_ns: int
    sha256: str
    reason: str


def scan(root: Path, problems: Problems) -> dict[str, str]:
    """The good pictures below `root`: path relative to it to the hash of the bytes, sorted by path."""
    files = dict(sorted(_walk(root, problems)))
    index = cache_dir() / "scans" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.json"
    known = _read_index(index, problems)
    keep: dict[str, Seen] = {}
    pictures: dict[str, str] = {}
    begun = time.time_ns()
    with progress(f"Reading the pictures in {root}", len(files)) as advance:
        for path, (size, mtime_ns) in files.items():
            seen = known.get(path)
            if seen is None or (seen.size, seen.mtime_ns) != (size, mtime_ns):
                seen = _look(root / path, size, mtime_ns)
            if seen.sha256 and mtime_ns + SETTLED_NS < begun:
                keep[path] = seen
            if seen.reason:
                problems.add(f"{root / path}: {seen.reason}")
            else:
                pictures[path] = seen.sha256
            advance()
    if keep != known:
        _write_index(index, keep, problems)
    return pictures


@contextmanager
def progress(text: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, on a terminal only and only when it takes longer than a second or so."""
    begun = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(text, total=total)

    def advance() -> None:
        bar.advance(task)
        late = time.monotonic() - begun > PATIENCE_S
        if late and bar.console.is_terminal and not bar.live.is_started:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def _walk(root: Path, problems: Problems) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path below the root, size and time of every file called a picture; never out of the folder."""
    top = os.path.realpath(root)
    folders, others = [""], 0
    while folders:
        folder = folders.pop()
        for entry in _entries(root, folder, problems):
            path = f"{folder}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and (wrong := _wrong_link(entry.path, top)):
                problems.add(f"{root / path}: {wrong}, so it was not followed. Put a copy there instead.")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
            elif not entry.name.lower().endswith(SUFFIXES):
                others += path != MANIFEST
            elif status := _status(entry, root / path, problems):
                yield path, status
    if others:
        problems.note(f"{root}: files ignored because they are not called {', '.join(SUFFIXES)}: {others}.")


def _entries(root: Path, folder: str, problems: Problems) -> list["os.DirEntry[str]"]:
    where = root / folder
    try:
        with os.scandir(where) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        sentence = f"{where}: the folder cannot be read ({error.strerror}). Check its permissions."
        if not folder:
            raise InputError(sentence) from error
        problems.add(sentence)
        return []


def _wrong_link(path: str, top: str) -> str:
    """Why a link is not followed; empty for a link to a file inside the folder."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(top):
        return "the link leads out of the folder"
    if target.is_file():
        return ""
    return "the link leads to a folder" if target.is_dir() else "the link leads nowhere"


def _status(entry: "os.DirEntry[str]", path: Path, problems: Problems) -> tuple[int, int] | None:
    try:
        entry.name.encode()
        status = entry.stat()
    except UnicodeEncodeError:
        problems.add(f"{os.fsencode(path)!r}: the name is not UTF-8. Rename the file.")
        return None
    except OSError as error:
        problems.add(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.")
        return None
    return status.st_size, status.st_mtime_ns


def _look(path: Path, size: int, mtime_ns: int) -> Seen:
    """Read a file. A file that cannot be read has no hash and is asked again the next time."""
    sha256 = ""
    try:
        sha256 = images.sha256(path)
        images.open_image(path)
    except InputError as error:
        return Seen(size, mtime_ns, sha256, str(error).removeprefix(f"{path}: "))
    return Seen(size, mtime_ns, sha256, "")


def _read_index(file: Path, problems: Problems) -> dict[str, Seen]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["reader"] != images.READER:
            return {}
        return {
            path: Seen(int(size), int(mtime_ns), str(sha256), str(reason))
            for path, (size, mtime_ns, sha256, reason) in stored["pictures"].items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.note(f"{file}: cannot be read ({error.strerror}), so every picture was decoded again.")
    except (ValueError, LookupError, TypeError, AttributeError):
        problems.note(f"{file}: was damaged, so every picture was decoded again and the file written anew.")
    return {}


def _write_index(file: Path, seen: dict[str, Seen], problems: Problems) -> None:
    pictures = {path: [s.size, s.mtime_ns, s.sha256, s.reason] for path, s in seen.items()}
    try:
        write_text(json.dumps({"reader": images.READER, "pictures": pictures}), file)
    except (OSError, InputError):
        problems.note(
            f"{file}: cannot be written, so the next scan will be as slow. "
            "Name another cache folder with LINKCONTEXT_CACHE."
        )
