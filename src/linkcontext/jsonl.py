"""Records as JSON: one line each, in files that are written whole or appended to, and checked when they are read.

Everything here works on any frozen dataclass (`linkcontext.records` has the package's nouns). Whatever a file holds, a
reader returns records of the right types or raises an `InputError` that names the file and the line.
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from linkcontext.errors import InputError, quoted
from linkcontext.storage import lock_folder, read_errors, write_errors, write_lines
from linkcontext.versions import check_format

Record = TypeVar("Record")
INT64 = 2**63
LIMIT = 10_000_000  # maximum bytes of a line: a longer one is damage, or an attempt to fill the memory
BLOCK = 1 << 20  # bytes read at a time
BOM = b"\xef\xbb\xbf"  # the byte order mark that Windows writes before UTF-8
PICKLE = (
    "a pickle, which is never read: unpickling runs whatever code its author put into it. "
    "Ask its author for JSON, or convert it where nothing can be lost (json.dump), and give that file."
)
# Field name -> key in files: `class` is a keyword in Python, and explain.json has had `asked` since version 0.1.
JSON_NAMES = {"class_id": "class", "scored": "asked"}


def to_json(record: Any) -> str:
    """The record as one line of JSON, its keys in the order of the fields."""
    return json.dumps(_plain(record), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {JSON_NAMES.get(f.name, f.name): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def from_dict(kind: type[Record], values: dict[str, Any], where: str) -> Record:
    """Build a record from parsed JSON. Raises `InputError`, naming `where`, for missing and unknown keys."""
    fields = {JSON_NAMES.get(f.name, f.name): f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    missing = sorted(
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        complaint = "; ".join(
            f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names
        )
        raise InputError(
            f"{where}: not a line of {kind.__name__}s: {complaint}. Was the file written by another version?"
        )
    hints = _hints(kind)  # type: ignore[arg-type]
    return kind(**{fields[n].name: typed(hints[fields[n].name], value, where, n) for n, value in values.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def typed(hint: Any, value: Any, where: str, name: str) -> Any:
    """Convert a JSON value to the type `hint`: lists become tuples, and objects become records.

    Raises `InputError`, naming `where` and the field `name`, for values of another type, numbers that are not finite
    and integers of more than 64 bits.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and value is not None:
        hint = next(arg for arg in args if arg is not type(None))  # a field has one type besides None
        return typed(hint, value, where, name)
    if origin is tuple and isinstance(value, list):
        return tuple(typed(args[0], v, where, name) for v in value)
    if origin is dict and isinstance(value, dict):
        return {key: typed(args[1], v, where, name) for key, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_dict(hint, value, where)
    if not _fits(hint, value):
        raise InputError(
            f"{where}: {name} must be {_expected(hint)}, and is {quoted(value)}. "
            "The file is damaged; correct it or write it again."
        )
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value that is neither a list nor an object has the type `hint`."""
    if hint is Any or value is None:
        return hint is Any or type(None) in typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint not in (int, float) or isinstance(value, bool) or not isinstance(value, int | hint):
        return False  # in Python, True is an integer
    return math.isfinite(value) if isinstance(value, float) else abs(value) < INT64


def _expected(hint: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a finite number"}
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return names.get(hint) or ("a list" if typing.get_origin(hint) is tuple else "an object")


def parse_json(text: str, where: str) -> Any:
    """Parse a JSON text. Raises `InputError`, naming `where`, for a text that is not JSON.

    Valid JSON that Python or a file cannot hold raises it as well: nesting that is too deep, numbers of thousands of
    digits and half a surrogate pair.
    """
    try:
        values = json.loads(text)
        if "\\ud" in text.lower():  # half a pair can be written only as an escape
            json.dumps(values, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg}). The file is damaged; write it again.") from error
    except RecursionError as error:
        raise InputError(f"{where}: lists or objects are nested too deeply. The file is damaged.") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: a text holds half a surrogate pair. Save the file as UTF-8.") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise InputError(f"{where}: a number is too long ({error}). The file is damaged.") from error
    return values


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `InputError` if it cannot be read or is not JSON."""
    with read_errors(path):
        content = path.read_bytes()
    try:
        return parse_json(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error


def read_jsonl(
    kind: type[Record], path: Path, whole_lines: bool = False, file_format: str | None = None
) -> Iterator[Record]:
    """Stream the records of a file. Raises `InputError`, naming file and line, for a line that is not such a record.

    With a `file_format` the first line may be {"format": ...}, which must be that one.

    Blank lines, a byte order mark and the line endings of Windows and old Macs are accepted. With `whole_lines` a last
    line without a line ending is skipped, because its writer was killed or is still writing.
    """
    with read_errors(path), path.open("rb") as file:
        for number, line in enumerate(_lines(file, path), 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            if whole_lines and not line.endswith((b"\n", b"\r")):
                return
            if number == 1 and line.startswith(b"\x80"):
                raise InputError(f"{path}: {PICKLE}")
            try:
                values = parse_json(line.decode(), where)
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
            if not isinstance(values, dict):
                raise InputError(f"{where}: expected a JSON object, got {type(values).__name__}.")
            if number == 1 and file_format is not None and values.keys() == {"format"}:
                check_format(values["format"], file_format, where)
                continue
            yield from_dict(kind, values, where)


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of a file with any line ending, which no JSON text contains. At most one block is in memory."""
    head = file.read(len(BOM))
    left, number = head.removeprefix(BOM), 0
    while block := file.read(BLOCK):
        *lines, left = (left + block).splitlines(keepends=True)
        yield from lines
        number += len(lines)
        if len(left) > LIMIT:
            where = f"{path}:{number + 1}"
            raise InputError(
                f"{where}: more than {LIMIT // 1_000_000} MB in a line. The file is damaged; write it again."
            )
        if left.endswith(b"\n"):
            yield left
            left, number = b"", number + 1
    yield from left.splitlines(keepends=True)


def write_jsonl(records: Iterable[Any], path: Path, file_format: str | None = None) -> None:
    """Write records to a file that appears whole or not at all: they are written beside `path` and then renamed.

    With a `file_format` the first line is {"format": ...}.
    """
    header = [{"format": file_format}] if file_format is not None else []
    write_lines((to_json(record) + "\n" for record in chain(header, records)), path)


@contextmanager
def appending(path: Path) -> Iterator[Callable[[Iterable[Any]], None]]:
    """Lock the folder of `path` for the block, and yield a function that appends records to the file at once.

    An incomplete last line, which a killed process left, is removed first.
    """
    with lock_folder(path.parent), ExitStack() as opened:
        with write_errors(path):
            # Unbuffered, because closing a file with a full buffer on a full disk would fail again.
            file = opened.enter_context(path.open("a+b", buffering=0))
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)

        def append(records: Iterable[Any]) -> None:
            left = "".join(to_json(record) + "\n" for record in records).encode()
            with write_errors(path):
                while left:
                    left = left[file.write(left) :]

        yield append


def cut_log(path: Path, start: int) -> None:
    """Remove the lines about steps from `start` on, which will be run again, and an incomplete last line.

    Raises `InputError` for a line that has no `step`.
    """
    if not path.exists():
        return
    with read_errors(path):
        content = path.read_bytes()
    kept = []
    for number, line in enumerate(content.decode(errors="replace").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            continue
        values = parse_json(line, f"{path}:{number}")
        if not isinstance(values, dict) or type(values.get("step")) is not int:
            raise InputError(f"{path}:{number}: not a line about a step. Correct the line, or remove the file.")
        if values["step"] < start:
            kept.append(line)
    write_lines(kept, path)
