"""What a stranger sends: archives unpacked safely, pictures told apart by their folders, all of it or nothing.

Nothing is opened under a name that came from outside: names say what a picture is called, never where it lies.
"""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path

from linkcontext.data.layout import named, place
from linkcontext.data.scan import KINDS, SUFFIXES, Problems, scan
from linkcontext.errors import InputError

MB = 1_000_000
UPLOAD_BYTES = 100 * MB  # of one file: hundreds of photographs, and still in memory or on any disk in seconds
FILES = 1_000  # a model's context holds some hundred pictures; more is a data set, for `linkcontext eval`
UNPACKED_BYTES = 500 * MB  # what an archive may take on the disk
RATIO = 100  # pictures are compressed already and hardly shrink again; an archive that does is no archive of pictures
PATH_LENGTH = 400  # of a name in an archive, below what file systems take
LAYOUT = "one folder of pictures for each name, as in cactihog/1.png, plimbo/1.png"


@dataclass(frozen=True, slots=True)
class Named:
    """Pictures by the names of their folders. `problems` are sentences about what was left out."""

    pictures: Mapping[str, tuple[Path, ...]]
    problems: tuple[str, ...]


def unpack(archive: Path, into: Path) -> None:
    """Unpack the files of a zip that are called pictures into the empty folder `into`.

    Everything is checked before the first byte is written. Raises `InputError` for what is no zip, is damaged or
    locked, for a member that would lie outside of the folder or is a link, and for more files or bytes than allowed.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check(members, archive.stat().st_size)
            for member in members:
                if _wanted(member.filename):
                    target = into / member.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, target.open("xb") as file:
                        shutil.copyfileobj(source, file)  # never more than the size that was declared
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, zlib.error, LZMAError) as error:
        raise InputError(f"the archive cannot be unpacked ({error}). Pack it again as an ordinary zip.") from error


def lay_out(files: Mapping[str, Path], into: Path) -> None:
    """Put sent files, by their paths below the folder that was chosen, into the empty folder `into`."""
    if len(files) > FILES:
        raise InputError(_too_many(len(files)))
    for path in files:
        _check_path(path)
    try:
        for path, file in files.items():
            if _wanted(path):
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, into / path)
    except OSError as error:
        raise InputError(f"the folder cannot be taken over ({error.strerror}). Send it as a zip.") from error


def by_folder(root: Path) -> Named:
    """The good pictures below a folder by the names of their folders. Raises `InputError` where there is none."""
    problems = Problems(strict=False)
    classes: dict[str, list[Path]] = {}
    loose = 0
    for path in scan(root, problems):
        class_id = place(path)[1]
        if class_id:
            classes.setdefault(class_id, []).append(root / path)
        loose += not class_id
    if loose:
        problems.add(f"pictures that lie in no folder and so have no name: {loose}. Wanted: {LAYOUT}.")
    said = tuple(sentence.replace(f"{root}/", "").replace(f"{root}: ", "") for sentence in problems.sentences)
    if not classes:
        raise InputError(" ".join([f"no picture in a folder was found. Wanted: {LAYOUT}, {KINDS}.", *said[:3]]))
    pictures: dict[str, tuple[Path, ...]] = {}
    folders: dict[str, str] = {}
    for class_id, paths in classes.items():
        name = named(class_id)
        same = folders.setdefault(name.casefold(), class_id)
        if same != class_id:
            raise InputError(f"{same} and {class_id}: two folders of one name. Rename one, or put them together.")
        pictures[name] = tuple(paths)
    return Named(pictures, said)


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    files = [member for member in members if not member.is_dir()]
    if len(files) > FILES:
        raise InputError(_too_many(len(files)))
    for member in members:
        _check_path(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(
                f"{_short(member.filename)}: a link or another special file. Pack the pictures themselves."
            )
        if member.flag_bits & 1:
            raise InputError("the archive is locked with a password. Pack it again without.")
    total = sum(member.file_size for member in members)
    if total > UNPACKED_BYTES:
        raise InputError(
            f"the archive unpacks to {total / MB:,.0f} MB, and {UNPACKED_BYTES // MB} are taken. Send fewer pictures."
        )
    if total > RATIO * max(size, 1):
        raise InputError(
            f"the archive grows to {total / size:,.0f} times its size, which pictures do not. Send PNG or JPEG files."
        )


def _check_path(path: str) -> None:
    """Whether a path stays below the folder that it is put in, on any system."""
    parts = path.rstrip("/").split("/")
    if len(path) > PATH_LENGTH or not path.isprintable():
        raise InputError(f"{_short(path)}: a path that is too long or cannot be read. Rename what is in it.")
    if "\\" in path or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{_short(path)}: a path that leads out of the folder. Pack it again from inside its folder.")


def _wanted(path: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.split("/"))
    return path.lower().endswith(SUFFIXES) and not hidden


def _too_many(count: int) -> str:
    return (
        f"{count:,} files are more than the {FILES:,} that are taken at once. A handful of each name teaches it; to "
        "measure on many, use linkcontext eval."
    )


def _short(path: str) -> str:
    return repr(path if len(path) <= 80 else path[:80] + "...")
