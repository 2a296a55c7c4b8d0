"""Reads JSON files of any size one record at a time: a list, JSON lines, or a list inside an object."""

import codecs
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from linkcontext.errors import InputError
from linkcontext.jsonl import BLOCK, BOM, LIMIT, PICKLE

EDGE = 16  # characters; a number, a word or an escape that ends the window may go on, and is shorter than this
PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth")
TYPE_NAMES: dict[type, str] = {list: "list", str: "text", dict: "object"}

Value = TypeVar("Value")


def read_records(path: Path, inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each record of a list or of JSON lines after its place: `FILE:LINE: record 7`, counted from 0.

    With `inside`, the records are those of the list under that key of the file's object. Raises `InputError` for a file
    that cannot be read, is a pickle, compressed, not JSON or not UTF-8, and for a record of more than 10 MB.
    """
    with _open_window(path) as window:
        records: Iterator[tuple[int, Any]]
        if inside:
            records = (record for key in window.entries() if key == inside for record in window.items())
        else:
            records = window.items() if window.peek() == "[" else window.values()
        for number, (line, value) in enumerate(records):
            yield f"{path}:{line}: record {number}", value
        if not inside and window.peek():
            window.damaged("there is more after the end")


def read_key(path: Path, key: str) -> Any:
    """The value of a key of the file's object, None if it has no such key. Raises as `read_records`."""
    with _open_window(path) as window:
        return next((window.value() for name in window.entries() if name == key), None)


def first_key(path: Path, known: tuple[str, ...]) -> str | None:
    """The first of these keys in the file's object, or in its first record. Raises as `read_records`."""
    with _open_window(path) as window:
        if window.peek() == "[":
            window.take("[")
        if window.peek() == "{":
            return next((key for key in window.entries() if key in known), None)
    return None


def require_value(record: Any, key: str, kind: type[Value], where: str) -> Value:
    """The value of a key. Raises `InputError` if it is missing, empty or of another type."""
    if not isinstance(record, dict) or not isinstance(record.get(key), kind) or not record[key]:
        raise InputError(f"{where}: `{key}` is missing, empty or not a {TYPE_NAMES[kind]}. Correct the record.")
    value: Value = record[key]
    return value


def require_text(record: Any, key: str, where: str) -> str:
    """The value of a key (an id, an answer) as a text. Numbers are converted. Raises `InputError` for anything else."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        raise InputError(f"{where}: `{key}` is missing or neither a number nor a text. Correct the record.")
    return str(value)


class _Window:
    """The part of a file that is in memory: at most one record, and what was read beyond it.

    `text[at:]` is not parsed yet; `line` is the line of `text[counted]`.
    """

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.line, self.counted = "", 0, 1, 0
        self.characters = codecs.getincrementaldecoder("utf-8")()
        self.decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Skip white space and return the next character, "" at the end of the file."""
        while True:
            self.at = _skip_spaces(self.text, self.at)
            if self.at < len(self.text) or not self._more():
                return self.text[self.at : self.at + 1]

    def take(self, expected: str) -> None:
        """Skip a character. Raises `InputError` if the next one is another."""
        if self.peek() != expected:
            self.damaged(f"{expected} expected")
        self.at += 1

    def value(self) -> Any:
        """Read the next value."""
        self.peek()
        start = self.at
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, start)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or error.pos + EDGE > len(self.text)
                if not (cut_off and self._more()):
                    self.damaged(error.msg)
            except RecursionError:
                self.damaged("nested too deeply")
            except ValueError as error:  # a number of thousands of digits
                self.damaged(str(error))
            else:
                if end < len(self.text) or not self._more():  # a number at the end of the window may go on
                    break
            start = self.at
        # Python holds a lone surrogate (\ud83d without its second half) in memory, but cannot write it.
        if _SURROGATES.search(self.text, start, end) and not _can_be_written(value):
            self.damaged("one half of a character written as two escapes")
        self.at = end
        if end - start > LIMIT:
            self._too_long()
        return value

    def values(self) -> Iterator[tuple[int, Any]]:
        """Yield the values that follow each other up to the end of the file, each after its line."""
        while self.peek():
            yield self._line(), self.value()

    def items(self) -> Iterator[tuple[int, Any]]:
        """Yield the values of the next list, each after its line."""
        self.take("[")
        more = self.peek() != "]"
        while more:
            self.peek()
            yield self._line(), self.value()
            more = self.peek() == ","
            self.at += more
        self.take("]")

    def entries(self) -> Iterator[str]:
        """Yield the keys of the next object. A value that the caller does not read is skipped, a list item by item."""
        if self.peek() == "[":
            raise InputError(
                f"{self.path}: the file holds a list, but an object was expected. Are the file and --layout right?"
            )
        self.take("{")
        more = self.peek() != "}"
        while more:
            key = self.value()
            self.take(":")
            self.peek()
            place = self._line(), self.file.tell(), self.at
            yield str(key)
            if place == (self._line(), self.file.tell(), self.at):
                skipped = self.items() if self.peek() == "[" else iter([self.value()])
                for _ in skipped:
                    pass
            more = self.peek() == ","
            self.at += more
        self.take("}")

    def _line(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _more(self) -> bool:
        """Read a block, and drop what is parsed. Returns False at the end of the file.

        A record that does not fit is parsed again from its beginning, so blocks grow with it.
        """
        left = len(self.text) - self.at
        if left > LIMIT:
            self._too_long()
        try:
            block = self.file.read(max(BLOCK, left))
            text = self.characters.decode(block, not block)
        except UnicodeDecodeError as error:
            line = self._line() + self.text.count("\n", self.at) + error.object[: error.start].count(b"\n")
            raise InputError(f"{self.path}:{line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
        self._line()
        self.text, self.at, self.counted = self.text[self.at :] + text, 0, 0
        return bool(block)

    def _too_long(self) -> NoReturn:
        raise InputError(
            f"{self.path}:{self._line()}: a record of more than {LIMIT // 1_000_000} MB. Pictures are named by their "
            "paths, never written into the text; if the file is damaged, fetch it again."
        )

    def damaged(self, reason: str) -> NoReturn:
        """Raise an `InputError` with the line."""
        raise InputError(f"{self.path}:{self._line()}: not JSON ({reason}). Is the download complete?")


_SURROGATES = re.compile(r"\\u[dD][89a-fA-F]")
_SPACES = re.compile(r"[ \t\n\r]*")


def _skip_spaces(text: str, at: int) -> int:
    match = _SPACES.match(text, at)
    assert match is not None  # the pattern matches the empty text too
    return match.end()


def _can_be_written(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


@contextmanager
def _open_window(path: Path) -> Iterator[_Window]:
    """A window at the beginning of a JSON file, behind a byte order mark.

    Raises `InputError` if the file cannot be read, or if its first bytes are those of another format.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - returns False for a name of 5,000 letters, where a Path raises
        why = "it is a folder" if os.path.isdir(path) else "there is no such file"  # noqa: PTH112
        raise InputError(f"{path}: cannot be read ({why}). Check the path.")
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head[:1] == b"\x80" or path.suffix.lower() in PICKLES:
                raise InputError(f"{path}: {PICKLE}")
            if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
                raise InputError(f"{path}: is compressed. Unpack it and give the JSON file in it.")
            file.seek(len(BOM) if head.startswith(BOM) else 0)
            yield _Window(path, file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
