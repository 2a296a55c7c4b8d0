"""Scanning a folder: which files are good pictures, and a sentence for each thing that was left out.

A picture is what its content says, whatever it is called. Every picture is decoded once to know that it is good. What
was learnt is kept in the cache, so the next scan of the same folder only asks each file for its size and its time.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data import formats, images
from linkcontext.data.manifest import MANIFEST
from linkcontext.data.problems import Problems
from linkcontext.errors import InputError, first_few
from linkcontext.progress import progress
from linkcontext.storage import cache_dir, write_text

# Files that other programs leave beside pictures.
LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SIDECARS = {  # folders of thumbnails, of resource forks, of what was deleted
    *("@eadir", "@recycle", "@recently-snapshot", "@__thumb", "@tmp", "#recycle", "#snapshot"),  # network drives
    *("__macosx", "network trash folder", "temporary items"),  # macOS
    *("$recycle.bin", "recycler", "system volume information", "found.000"),  # Windows
    *("lost+found", "__pycache__", "node_modules", "_gsdata_", "_vti_cnf"),
}
PREVIEWS = (".lrdata", ".lrcat", ".lrlibrary", ".cocatalogdb", ".photoslibrary", ".aplibrary")  # of photo libraries
SETTLED_NS = 2_000_000_000  # a younger file may change again within one tick of its file system's clock


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a file of this size and time: its looks, or the `reason` why it is not a picture.

    The reason is `OTHER` for a file that is neither named as a picture nor is one.
    """

    size: int
    mtime_ns: int
    sha256: str
    reason: str
    looks: images.Looks | None = None

    @property
    def pixels(self) -> str:
        """The hash of a good picture's pixels."""
        assert self.looks is not None
        return self.looks.pixels


OTHER = "-"


def scan(root: Path, problems: Problems) -> dict[str, Seen]:
    """The good pictures below `root`: path relative to it to what was seen in it, sorted by path."""
    files = dict(sorted(_walk(root, problems)))
    index = cache_dir() / "scans" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.json"
    known = _read_index(index, problems)
    keep: dict[str, Seen] = {}
    pictures: dict[str, Seen] = {}
    wrong: dict[str, list[str]] = {}  # reason -> paths
    begun = time.time_ns()
    with progress(f"Reading the pictures in {root}", len(files)) as advance:
        for path, (size, mtime_ns) in files.items():
            seen = known.get(path)
            if seen is None or (seen.size, seen.mtime_ns) != (size, mtime_ns):
                seen = look(root / path, size, mtime_ns)
            if seen.sha256 and mtime_ns + SETTLED_NS < begun:
                keep[path] = seen
            if not seen.reason:
                pictures[path] = seen
            elif problems.strict and seen.reason != OTHER:
                raise InputError(f"{root / path}: {seen.reason}")
            else:
                wrong.setdefault(seen.reason, []).append(path)
                problems.reasons[path] = seen.reason
            advance()
    _tell(root, pictures, wrong, problems)
    if keep != known:
        _write_index(index, keep, problems)
    return pictures


def _tell(root: Path, pictures: dict[str, Seen], wrong: dict[str, list[str]], problems: Problems) -> None:
    """Report the files that were left out, by reason, and the pictures with notes."""
    others = wrong.pop(OTHER, [])
    for reason, paths in wrong.items():
        if len(paths) == 1:
            problems.add(f"{root / paths[0]}: {reason}")
        else:
            problems.add(f"{root}: files left out: {len(paths)} ({first_few(paths)}): {reason}")
    if others:
        problems.note(f"{root}: files left out because they are no pictures: {len(others)} ({first_few(others)}).")
    for note, sentence in images.NOTES.items():
        if paths := [path for path, seen in pictures.items() if seen.looks is not None and note in seen.looks.notes]:
            problems.note(f"{root}: {sentence}: {len(paths)} ({first_few(paths)}).")


def _walk(root: Path, problems: Problems) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path below the root, size and time of every file that may be a picture; never out of the folder."""
    top = os.path.realpath(root)
    folders, hidden, empty = [""], [], []
    while folders:
        folder = folders.pop()
        entries = _entries(root, folder, problems)
        if folder and entries is not None and all(is_litter(e.name) or is_sidecar(e.name) for e in entries):
            empty.append(folder[:-1])
        for entry in entries or ():
            path = f"{folder}{entry.name}"
            if is_litter(entry.name) or path == MANIFEST:
                continue
            if not is_text(entry.name):
                kind = "folder" if entry.is_dir(follow_symlinks=False) else "file"
                problems.add(f"{os.fsencode(root / path)!r}: the name is not UTF-8. Rename the {kind}.")
            elif is_sidecar(entry.name):
                if entry.is_dir(follow_symlinks=False) or entry.name.lower().endswith(formats.SUFFIXES):
                    hidden.append(path)
            elif entry.is_symlink() and (wrong := _wrong_link(entry.path, top)):
                problems.add(f"{root / path}: {wrong}, so it was not followed. Put a copy there instead.")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
            elif status := _status(entry, root / path, problems):
                yield path, status
    if hidden:
        problems.note(
            f"{root}: hidden files and folders, and folders of other programs, left out: {len(hidden)} "
            f"({first_few(hidden)})."
        )
    if empty:
        problems.note(f"{root}: empty folders, which are no classes: {len(empty)} ({first_few(sorted(empty))}).")


def is_litter(name: str) -> bool:
    """Whether a file is left by a file manager, and need not be reported."""
    return name.startswith("._") or name.lower() in LITTER


def is_sidecar(name: str) -> bool:
    """Whether a file or folder is hidden, or made by another program beside the pictures: thumbnails, a bin."""
    return name.startswith(".") or name.lower() in SIDECARS or name.lower().endswith(PREVIEWS)


def is_text(name: str) -> bool:
    """Whether the name of a file is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(root: Path, folder: str, problems: Problems) -> list["os.DirEntry[str]"] | None:
    """What is in a folder, by name; `None` for a folder that cannot be read, which is reported."""
    where = root / folder
    try:
        with os.scandir(where) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        sentence = f"{where}: the folder cannot be read ({error.strerror}). Check its permissions."
        if not folder:
            raise InputError(sentence) from error
        problems.add(sentence)
        return None


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
        status = entry.stat()
    except OSError as error:
        problems.add(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.")
        return None
    return status.st_size, status.st_mtime_ns


def look(path: Path, size: int, mtime_ns: int) -> Seen:
    """Read a file. A file that cannot be read has no hash and is looked at again the next time."""
    sha256 = ""
    try:
        if not path.name.lower().endswith(formats.SUFFIXES):
            start = images.head(path)
            if formats.readable(start) is None and not formats.unread(start, path.name):
                return Seen(size, mtime_ns, OTHER, OTHER)
        sha256 = images.sha256(path)
        return Seen(size, mtime_ns, sha256, "", images.examine(path))
    except InputError as error:
        return Seen(size, mtime_ns, sha256, str(error).removeprefix(f"{path}: "))


def _read_index(file: Path, problems: Problems) -> dict[str, Seen]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["reader"] != images.READER:
            return {}
        return {path: revived(*row) for path, row in stored["pictures"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.note(f"{file}: cannot be read ({error.strerror}), so every picture was decoded again.")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        problems.note(f"{file}: was damaged, so every picture was decoded again and the file written anew.")
    return {}


def revived(size: int, mtime_ns: int, sha256: str, reason: str, *looks: str) -> Seen:
    """The file that `as_row` wrote as a row."""
    if reason:
        return Seen(int(size), int(mtime_ns), str(sha256), str(reason))
    pixels, sketch, notes = looks
    seen = images.Looks(str(pixels), base64.b64decode(sketch, validate=True), tuple(notes.split()))
    return Seen(int(size), int(mtime_ns), str(sha256), "", seen)


def as_row(seen: Seen) -> list[str | int]:
    """What is known of a file, as a row for JSON."""
    row: list[str | int] = [seen.size, seen.mtime_ns, seen.sha256, seen.reason]
    if seen.looks is None:
        return row
    return [*row, seen.looks.pixels, base64.b64encode(seen.looks.sketch).decode(), " ".join(seen.looks.notes)]


def _write_index(file: Path, seen: dict[str, Seen], problems: Problems) -> None:
    pictures = {path: as_row(each) for path, each in seen.items()}
    try:
        write_text(json.dumps({"reader": images.READER, "pictures": pictures}), file)
    except (OSError, InputError):
        problems.note(
            f"{file}: cannot be written, so the next scan will be as slow. "
            "Name another cache folder with LINKCONTEXT_CACHE."
        )
