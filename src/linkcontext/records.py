"""The nouns. Frozen records, JSON lines on disk; between stages travel ids and never pixels.

Question    what can be asked about one picture, or several, and the right answer
Item        one picture of one class
Turn        one picture, or several, with a question and its answer
Episode     support turns, queries and the candidate names among which a query is decided
Prediction  what a model made of one query after so many supports of each class
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from linkcontext.errors import InputError, quoted
from linkcontext.storage import held, read_errors, write_errors, write_lines

Record = TypeVar("Record")
INT64 = 2**63
LIMIT = 10_000_000  # bytes of a record: more are a damaged file, or one that wants all memory
BLOCK = 1 << 20  # bytes that are read at once
BOM = b"\xef\xbb\xbf"  # what Windows puts in front of UTF-8
PICKLE = (
    "a pickle, which is never read: unpickling runs whatever code its author put into it. "
    "Ask its author for JSON, or convert it where nothing can be lost (json.dump), and give that file."
)
JSON_NAMES = {"class_id": "class"}  # `class` is a keyword in Python and the natural word in a file


@dataclass(frozen=True, slots=True)
class Question:
    """What can be asked about a picture. Questions of one concept mean the same: an answer informs the next."""

    task: str  # attribute, count, relation, ...
    concept: str  # of the task: colour, parts, left-right, ...
    question: str
    answer: str
    candidates: tuple[str, ...] = ()  # the answers one chooses among; none where the answer is free text
    others: tuple[str, ...] = ()  # ids of further pictures that it is about, shown behind the one that has it
    split: str = ""  # empty: that of its picture
    context: str = ""  # questions of different contexts never meet in a conversation: they name things differently


@dataclass(frozen=True, slots=True)
class Item:
    """One picture. `id` is unique in its data set, `path` is relative to the data set's root."""

    id: str
    path: str
    class_id: str
    name: str  # what people call the class; two classes may share a name, never an id
    sha256: str  # of the file's bytes
    split: str = ""
    group: str = ""  # pictures of one source (one writer, one camera, one film), by file name
    facts: dict[str, Any] = field(default_factory=dict)  # ground truth, where there is any
    questions: tuple[Question, ...] = ()  # what its annotations answer besides the class
    pixels: str = ""  # a hash of the decoded pixels; empty if the picture was not decoded yet

    @property
    def content(self) -> str:
        """A hash that is equal for copies, whatever bytes hold them."""
        return self.pixels or self.sha256

    def splits(self, turn: "Turn | None" = None) -> set[str]:
        """Of its questions, or of those that a turn may have; its own where there are none."""
        asked = [
            question.split or self.split
            for question in self.questions
            if turn is None or (question.others == turn.others and question.question in turn.question)
        ]
        return {*asked} or {self.split}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A class of an episode under the name it has there. `truth` is what people call it."""

    class_id: str
    name: str
    truth: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A picture, what is asked about it and the right answer. An empty question means the scaffold's own, an empty
    item that there is no picture; `others` are shown behind it."""

    item: str
    class_id: str
    answer: str
    question: str = ""
    others: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """The ids of all its pictures, in order."""
        return (self.item, *self.others) if self.item else ()


@dataclass(frozen=True, slots=True)
class Episode:
    """A support, and queries to be answered from it.

    With `order="rounds"` the support comes in rounds that hold every class once, so its first
    `ways * k` turns are the balanced support of `k` per class, for every `k` in `shots_per_class`.
    With `order="shuffled"` an episode has one shot count and its whole support is one shuffle.
    """

    id: str
    task: str
    names: str  # real | pseudo | random | swapped
    ways: int
    shots_per_class: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    support: tuple[Turn, ...]
    queries: tuple[Turn, ...]

    def shown(self, shots_per_class: int) -> tuple[Turn, ...]:
        """The support turns a query sees at that many shots per class."""
        return self.support[: self.ways * shots_per_class]

    def query_id(self, index: int) -> str:
        """The id of the query at `index`."""
        return f"{self.id}/q{index}"


@dataclass(frozen=True, slots=True)
class Score:
    """One candidate's log-probability (nats, summed over its `tokens`, end of answer included).

    `prior_logprob` is its mean log-probability among the candidates over the pictures of the support: how much the name
    is preferred whatever a picture shows.
    """

    class_id: str
    name: str
    logprob: float
    null_logprob: float | None  # the same answer, the same support, a mean-grey query picture; None if not asked
    tokens: int
    prior_logprob: float | None = None  # None if not asked, and without a support


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model made of one query. Rows of metrics are computed from these and from nothing else."""

    episode_id: str
    query_id: str
    shots_per_class: int
    candidates: tuple[Score, ...]  # empty where only generation ran
    gold: str  # class id
    reply: str | None  # None where only likelihood ran
    correct: dict[str, bool]  # by scoring
    prompt_sha256: str
    support_ids: tuple[str, ...]  # of each turn of the support, its first picture
    baselines: dict[str, str | None] = field(default_factory=dict)  # policy -> the class id it would answer
    engine: str = ""  # which computed it; empty in files of earlier versions


def to_json(record: Any) -> str:
    """One line of JSON, keys in the order of the fields."""
    return json.dumps(_plain(record), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {JSON_NAMES.get(f.name, f.name): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def from_dict(kind: type[Record], values: dict[str, Any], where: str) -> Record:
    """Build a record from parsed JSON. `where` (file and line) is named when a key is missing or unknown."""
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
    """A value from JSON as the type `hint`: lists become tuples, and objects become records.

    Raises `InputError`, naming `where` and the field `name`, for a value of another type, for numbers that are not
    finite and for whole numbers of more than 64 bits.
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
            "The file is damaged; mend it or write it again."
        )
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value other than a list or an object has a type."""
    if hint is Any or value is None:
        return hint is Any or type(None) in typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint not in (int, float) or isinstance(value, bool) or not isinstance(value, int | hint):
        return False  # in Python, True is a whole number
    return math.isfinite(value) if isinstance(value, float) else abs(value) < INT64


def _expected(hint: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a finite number"}
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return names.get(hint) or ("a list" if typing.get_origin(hint) is tuple else "an object")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises `InputError`, naming `where`, for a text that `json` cannot read.

    Raises it too for valid JSON that Python or a file cannot hold: nesting that is too deep, numbers of thousands of
    digits and half a surrogate pair.
    """
    try:
        values = json.loads(text)
        if "\\ud" in text.lower():  # the only way in which half a pair can be written
            json.dumps(values, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg}). The file is damaged; write it again.") from error
    except RecursionError as error:
        raise InputError(f"{where}: lists or objects are nested too deeply. The file is damaged.") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: a text holds half a surrogate pair. Save the file as UTF-8.") from error
    except ValueError as error:  # a whole number of more digits than Python converts
        raise InputError(f"{where}: a number is too long ({error}). The file is damaged.") from error
    return values


def read_json(path: Path) -> Any:
    """The JSON in a file. Raises `InputError` where it cannot be read or is no JSON."""
    with read_errors(path):
        content = path.read_bytes()
    try:
        return parse_json(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error


def read_jsonl(kind: type[Record], path: Path, whole_lines: bool = False) -> Iterator[Record]:
    """Stream the records of a file. A line that is no such record is an `InputError` naming file and line.

    Lines may end as on Windows or on old Macs, or be blank; a byte order mark may stand in front. With `whole_lines` a
    last line without a line break is skipped: its writer was killed, or is still writing.
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
                raise InputError(f"{where}: a JSON object was expected, found {type(values).__name__}.")
            yield from_dict(kind, values, where)


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of a file, whatever they end in: no JSON text holds a line break. At most one block is in memory."""
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


def write_jsonl(records: Iterable[Any], path: Path) -> None:
    """Write records beside `path`, then rename: the file is there whole or not at all."""
    write_lines((to_json(record) + "\n" for record in records), path)


@contextmanager
def appending(path: Path) -> Iterator[Callable[[Iterable[Any]], None]]:
    """A function that writes records behind those of `path` at once; the folder is this process's alone until then.

    A last line that was cut off while being written is taken away first.
    """
    with held(path.parent), ExitStack() as opened:
        with write_errors(path):
            # Without a buffer: closing a full one would fail once more.
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
    """Remove a log's lines of steps from `start` on, which are about to be made again, and a line that was cut off.

    Raises `InputError` for a file that is no log of steps.
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
            raise InputError(f"{path}:{number}: no line about a step. Mend the line, or remove the file.")
        if values["step"] < start:
            kept.append(line)
    write_lines(kept, path)
