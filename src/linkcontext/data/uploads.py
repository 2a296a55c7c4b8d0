"""Untrusted uploads: archives are checked before they are unpacked, and pictures get the names of their folders.

No file is opened under a name that an upload gives. Such names become class names, never paths outside of a new folder.
"""

import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from urllib.parse import quote_from_bytes

from linkcontext.data.formats import KINDS
from linkcontext.data.layout import class_name, is_blank, is_printable, mixes_scripts, name_key, read_layout
from linkcontext.data.manifest import MANIFEST
from linkcontext.data.problems import Problems
from linkcontext.data.scan import ScannedFile, is_litter, is_sidecar, scan
from linkcontext.errors import InputError, excerpt, first_few

MB = 1_000_000
UPLOAD_BYTES = 100 * MB  # of one file; enough for hundreds of photographs
FILES = 1_000  # a context holds some hundred pictures; for more, there is `linkcontext eval`
UNPACKED_BYTES = 500 * MB  # of an archive on the disk
RATIO = 100  # of unpacked to packed bytes; pictures are compressed already, so a larger ratio is a zip bomb
PATH_LENGTH, PART_LENGTH = 400, 200  # bytes of a path in an archive and of its parts, below the limits of file systems
UTF8, UNICODE_PATH = 0x800, 0x7075  # of a zip: the flag for names in UTF-8, and the id of the field with such a name
LAYOUT = "one folder of pictures for each name, as in cactihog/1.png, plimbo/1.png"


@dataclass(frozen=True, slots=True)
class PicturesByName:
    """Pictures by the names of their folders. `problems` are sentences about what is left out."""

    pictures: Mapping[str, tuple[Path, ...]]
    problems: tuple[str, ...]


def unpack(archive: Path, into: Path) -> None:
    """Unpack all files of a zip into the empty folder `into`.

    Everything is checked before the first byte is written. Raises `InputError` if the file is not a zip, is damaged or
    has a password, for a member that is a link or has a path outside of the folder, for folder names that cannot be
    decoded, and for too many files or bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [(_spelt(member), member) for member in opened.infolist()]
            _check(members, archive.stat().st_size)
            for path, member in members:
                target = into / path
                if path.endswith("/"):
                    target.mkdir(parents=True, exist_ok=True)  # `pictures_by_folder` reports the empty ones
                elif not is_litter(path.rpartition("/")[2]):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, target.open("xb") as file:
                        shutil.copyfileobj(source, file)  # zipfile reads at most the declared size
    except OSError as error:
        raise InputError(
            f"the archive cannot be unpacked ({error.strerror or error}). Pack it again as an ordinary zip."
        ) from error
    except (
        *(zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, zlib.error, LZMAError),
        UnicodeDecodeError,  # of a name that is marked as UTF-8
    ) as error:
        raise InputError(
            f"the archive cannot be unpacked ({excerpt(str(error))}). Pack it again as an ordinary zip."
        ) from error


def _spelt(member: zipfile.ZipInfo) -> str:
    """The path of a member, with / between its parts.

    A name without the flag for UTF-8 is in an unknown encoding, usually that of the country where the archive was
    packed. This matters for the name of a folder, which becomes a class name, but not for that of a file.
    """
    path = member.orig_filename
    if unicode_path := _unicode_path(member):
        path = unicode_path
    elif not path.isascii() and not member.flag_bits & UTF8:
        raw = path.encode("cp437")  # as `zipfile` has read it
        folder, slash, name = raw.replace(b"\\", b"/").rpartition(b"/")
        if _is_utf8(raw):
            path = raw.decode()
        elif folder.isascii() and name:
            path = (folder + slash).decode() + quote_from_bytes(name)
        else:
            raise InputError(
                f"the archive names folders in an encoding that it does not state ({excerpt(repr(raw))}), so their "
                "names cannot be read. Pack it again with a program that writes UTF-8, as 7-Zip does."
            )
    return path if "/" in path else path.replace("\\", "/")  # some Windows programs write \ alone


def _unicode_path(member: zipfile.ZipInfo) -> str:
    """The path in the Info-ZIP Unicode Path field, which WinRAR and others add to a name in another encoding.

    It is "" if there is no such field, or if the field belongs to another name.
    """
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(field) > 5 and field[0] == 1 and not member.flag_bits & UTF8:
            (checksum,) = struct.unpack_from("<I", field, 1)
            if checksum == zlib.crc32(member.orig_filename.encode("cp437")):
                return field[5:].decode()
    return ""


def _is_utf8(raw: bytes) -> bool:
    """Whether a name without the flag is UTF-8, as macOS writes it, and not only by accident.

    Letters of two bytes can also be Chinese, Japanese or Korean in an older encoding. This is assumed if they mix
    scripts, or if there are no other letters and every pair of bytes is a letter in the older encoding too.
    """
    try:
        letters = raw.decode()
    except UnicodeDecodeError:
        return False
    pairs = [letter for letter in letters if "\x80" <= letter < "\u0800"]
    if any(letter >= "\u0800" for letter in letters):
        return True
    beside = any(letter.isascii() and letter.isalpha() for letter in letters.rpartition("/")[0] or letters)
    return not mixes_scripts(letters) and (beside or any(letter.encode()[1] < 0xA1 for letter in pairs))


def copy_files(files: Mapping[str, Path], into: Path) -> None:
    """Copy uploaded files into the empty folder `into`. Keys are their paths below the folder that the user chose."""
    _check_count(files)
    for path in files:
        _check_path(path)
    try:
        for path, file in files.items():
            if not is_litter(path.rpartition("/")[2]):
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, into / path)
    except OSError as error:
        raise InputError(f"the folder cannot be copied ({error.strerror}). Send it as a zip.") from error


def pictures_by_folder(root: Path) -> PicturesByName:
    """The pictures below a folder that can be used, by the names of their folders.

    Raises `InputError` if there is none, for two folders with the same name, and for a picture in folders of two names.
    """
    problems = Problems(strict=False)
    seen = scan(root, problems)
    layout = read_layout(seen)
    names: dict[str, str] = {}  # path -> name
    folders: dict[str, str] = {}  # key of a name -> class id
    loose, blank = [], []
    for path in seen:
        class_id = layout.place(path)[1]
        name = class_name(class_id)
        if not class_id:
            loose.append(path)
        elif is_blank(name):
            blank.append(path)
        else:
            same = folders.setdefault(name_key(name), class_id)
            if same != class_id:
                raise InputError(f"{same} and {class_id}: two folders have the same name. Rename one, or merge them.")
            names[path] = name
    if (root / MANIFEST).is_file():
        problems.note(f"{MANIFEST}: not read here; names are those of the folders.")
    if loose:
        problems.add(
            f"pictures that lie in no folder and so have no name: {len(loose)} ({first_few(loose)}). Wanted: {LAYOUT}."
        )
    if blank:
        problems.add(f"pictures in a folder whose name is blank: {len(blank)} ({first_few(blank)}). Rename it.")
    for doubt in layout.doubts:
        problems.note(doubt)
    sentences = tuple(sentence.replace(f"{root}/", "").replace(f"{root}: ", "") for sentence in problems.sentences)
    if not names:
        raise InputError(" ".join([f"no picture was found in a folder. Expected: {LAYOUT}, {KINDS}.", *sentences[:3]]))
    _refuse_disputed(names, seen)
    pictures: dict[str, tuple[Path, ...]] = {}
    for path, name in names.items():
        pictures[name] = (*pictures.get(name, ()), root / path)
    return PicturesByName(pictures, sentences)


def _refuse_disputed(names: Mapping[str, str], seen: Mapping[str, ScannedFile]) -> None:
    first: dict[str, str] = {}
    for path, name in names.items():
        other = first.setdefault(seen[path].pixels, path)
        if names[other] != name:
            raise InputError(
                f"{other} and {path}: the same picture has the names {names[other]!r} and {name!r}. Give it one name."
            )


def _check(members: Sequence[tuple[str, zipfile.ZipInfo]], size: int) -> None:
    files = [path for path, _ in members if not path.endswith("/")]
    if twice := [path for path, count in Counter(files).items() if count > 1]:
        raise InputError(f"{first_few(twice)}: is twice in the archive. Pack it again from inside its folder.")
    _check_count(files)
    _check_count((path for path, _ in members if path.endswith("/")), "folders")
    for path, member in members:
        _check_path(path)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{excerpt(path)!r}: a link or another special file. Pack the pictures themselves.")
        if member.flag_bits & 1:
            raise InputError("the archive is locked with a password. Pack it again without.")
    total = sum(member.file_size for _, member in members)
    if total > UNPACKED_BYTES:
        raise InputError(
            f"the archive unpacks to {total / MB:,.0f} MB, and at most {UNPACKED_BYTES // MB} MB are "
            "accepted. Send fewer pictures."
        )
    if total > RATIO * max(size, 1):
        raise InputError(
            f"the archive grows to {total / size:,.0f} times its size, which an archive of pictures does "
            "not. Send PNG or JPEG files."
        )


def _check_count(paths: Iterable[str], what: str = "files") -> None:
    count = sum(not any(map(is_sidecar, path.split("/"))) for path in paths)
    if count > FILES:
        raise InputError(
            f"{count:,} {what} are more than the {FILES:,} that are accepted at once. A few pictures of "
            "each name are enough to teach it; "
            "to measure on many, use linkcontext eval."
        )


def _check_path(path: str) -> None:
    """Raise an `InputError` for a path that would lead out of its folder on any system, or that is too long."""
    parts = path.rstrip("/").split("/")
    lengths = [len(part.encode("utf-8", "replace")) for part in parts]
    if sum(lengths) > PATH_LENGTH or max(lengths) > PART_LENGTH or not is_printable(path):
        raise InputError(
            f"{excerpt(path)!r}: the path is too long or cannot be read. Use shorter, plainer names in it."
        )
    if "\\" in path or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise InputError(
            f"{excerpt(path)!r}: a path that leads out of the folder. Pack it again from inside its folder."
        )
