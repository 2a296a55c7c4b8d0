"""Scans a folder: which files are pictures that can be used, and a sentence for everything that is left out.

A file is a picture by its content, not by its name. Every picture is decoded once. The result is cached by size and
time of the file, so that the next scan of the folder opens only files that have changed.
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

# Files that file managers write beside pictures.
LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SIDECARS = {  # folders of thumbnails, of resource forks and of deleted files
    *("@eadir", "@recycle", "@recently-snapshot", "@__thumb", "@tmp", "#recycle", "#snapshot"),  # network drives
    *("__macosx", "network trash folder", "temporary items"),  # macOS
    *("$recycle.bin", "recycler", "system volume information", "found.000"),  # Windows
    *("lost+found", "__pycache__", "node_modules", "_gsdata_", "_vti_cnf"),
}
PREVIEWS = (".lrdata", ".lrcat", ".lrlibrary", ".cocatalogdb", ".photoslibrary", ".aplibrary")  # of photo libraries
SETTLED_NS = 2_000_000_000  # a younger file is not cached: it may change within one tick of its file system's clock


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file of this size and time: the summary of the picture, or the `reason` why it cannot be used.

    The reason is `OTHER` for a file that is not a picture and does not have the suffix of one.
    """

    size: int
    mtime_ns: int
    sha256: str
    reason: str
    summary: images.ImageSummary | None = None

    @property
    def pixels(self) -> str:
        """The hash of the pixels of a picture that can be used."""
        assert self.summary is not None
        return self.summary.pixels


OTHER = "-"


def scan(root: Path, problems: Problems) -> dict[str, ScannedFile]:
    """The pictures below `root` that can be used: paths below it to files, sorted by path."""
    files = dict(sorted(_walk(root, problems)))
    index = cache_dir() / "scans" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.json"
    known = _read_index(index, problems)
    keep: dict[str, ScannedFile] = {}
    pictures: dict[str, ScannedFile] = {}
    wrong: dict[str, list[str]] = {}  # reason -> paths
    begun = time.time_ns()
    with progress(f"Reading the pictures in {root}", len(files)) as advance:
        for path, (size, mtime_ns) in files.items():
            seen = known.get(path)
            if seen is None or (seen.size, seen.mtime_ns) != (size, mtime_ns):
                seen = scan_file(root / path, size, mtime_ns)
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
    _report(root, pictures, wrong, problems)
    if keep != known:
        _write_index(index, keep, problems)
    return pictures


def _report(root: Path, pictures: dict[str, ScannedFile], wrong: dict[str, list[str]], problems: Problems) -> None:
    """Report the files that are left out, by reason, and the pictures with notes."""
    others = wrong.pop(OTHER, [])
    for reason, paths in wrong.items():
        if len(paths) == 1:
            problems.add(f"{root / paths[0]}: {reason}")
        else:
            problems.add(f"{root}: files left out: {len(paths)} ({first_few(paths)}): {reason}")
    if others:
        problems.note(f"{root}: files left out because they are no pictures: {len(others)} ({first_few(others)}).")
    for note, sentence in images.NOTES.items():
        if paths := [
            path for path, seen in pictures.items() if seen.summary is not None and note in seen.summary.notes
        ]:
            problems.note(f"{root}: {sentence}: {len(paths)} ({first_few(paths)}).")


def _walk(root: Path, problems: Problems) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path below the root, size and time of every file that may be a picture. Links out of the folder are refused."""
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
    """Whether a file is written by a file manager, and need not be reported."""
    return name.startswith("._") or name.lower() in LITTER


def is_sidecar(name: str) -> bool:
    """Whether a file or folder is hidden, or written by another program beside the pictures: thumbnails, a bin."""
    return name.startswith(".") or name.lower() in SIDECARS or name.lower().endswith(PREVIEWS)


def is_text(name: str) -> bool:
    """Whether the name of a file is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(root: Path, folder: str, problems: Problems) -> list["os.DirEntry[str]"] | None:
    """The entries of a folder, sorted by name; None for a folder that cannot be read, which is reported."""
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
    """Why a link is not followed; "" for a link to a file inside the folder."""
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


def scan_file(path: Path, size: int, mtime_ns: int) -> ScannedFile:
    """Read a file. One that cannot be read gets no SHA-256, and is read again by the next scan."""
    sha256 = ""
    try:
        if not path.name.lower().endswith(formats.SUFFIXES):
            start = images.head(path)
            if formats.readable(start) is None and not formats.unread(start, path.name):
                return ScannedFile(size, mtime_ns, OTHER, OTHER)
        sha256 = images.sha256(path)
        return ScannedFile(size, mtime_ns, sha256, "", images.summarize(path))
    except InputError as error:
        return ScannedFile(size, mtime_ns, sha256, str(error).removeprefix(f"{path}: "))


def _read_index(file: Path, problems: Problems) -> dict[str, ScannedFile]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["reader"] != images.READER:
            return {}
        return {path: from_row(*row) for path, row in stored["pictures"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.note(f"{file}: cannot be read ({error.strerror}), so every picture was decoded again.")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        problems.note(f"{file}: was damaged, so every picture was decoded again and the file written anew.")
    return {}


def from_row(size: int, mtime_ns: int, sha256: str, reason: str, *looks: str) -> ScannedFile:
    """The file of a row that `to_row` made."""
    if reason:
        return ScannedFile(int(size), int(mtime_ns), str(sha256), str(reason))
    pixels, sketch, notes = looks
    seen = images.ImageSummary(str(pixels), base64.b64decode(sketch, validate=True), tuple(notes.split()))
    return ScannedFile(int(size), int(mtime_ns), str(sha256), "", seen)


def to_row(seen: ScannedFile) -> list[str | int]:
    """The file as a row for JSON."""
    row: list[str | int] = [seen.size, seen.mtime_ns, seen.sha256, seen.reason]
    if seen.summary is None:
        return row
    return [*row, seen.summary.pixels, base64.b64encode(seen.summary.sketch).decode(), " ".join(seen.summary.notes)]


def _write_index(file: Path, seen: dict[str, ScannedFile], problems: Problems) -> None:
    pictures = {path: to_row(each) for path, each in seen.items()}
    try:
        write_text(json.dumps({"reader": images.READER, "pictures": pictures}), file)
    except (OSError, InputError):
        problems.note(
            f"{file}: cannot be written, so the next scan will be as slow. "
            "Name another cache folder with LINKCONTEXT_CACHE."
        )
