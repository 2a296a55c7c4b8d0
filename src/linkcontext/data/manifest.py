"""Data sets, and their file `manifest.jsonl`: which pictures there are, and of which class."""

import errno
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from linkcontext import versions
from linkcontext.data.layout import is_blank, normal_name
from linkcontext.errors import InputError, excerpt, first_few
from linkcontext.jsonl import read_jsonl, to_json, write_jsonl
from linkcontext.records import Item, Question

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Dataset:
    """The pictures below `root`. `problems` are sentences about what is left out, and why.

    `sketches` maps item ids to `ImageSummary.sketch`, by which near-copies are found (`linkcontext.data.copies`).
    """

    root: Path
    items: tuple[Item, ...]
    problems: tuple[str, ...] = ()
    sketches: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def by_class(self) -> dict[str, tuple[Item, ...]]:
        """Class id to pictures. Classes are sorted by id, pictures are in the order of `items`."""
        classes: dict[str, list[Item]] = {}
        for item in self.items:
            classes.setdefault(item.class_id, []).append(item)
        return {class_id: tuple(classes[class_id]) for class_id in sorted(classes)}

    def names(self) -> dict[str, str]:
        """Class id to class name, sorted by id."""
        return dict(sorted({item.class_id: item.name for item in self.items}.items()))

    def item(self, item_id: str) -> Item:
        """The picture with that id. Raises `InputError` if there is none."""
        if item_id not in self._by_id:
            raise InputError(
                f"{self.root}: has no picture {item_id!r}. Was the file that names it made from another data set?"
            )
        return self._by_id[item_id]

    def contents(self, item_ids: Iterable[str]) -> tuple[str, ...]:
        """A hash of the pixels of each picture. Copies have the same one, whatever their names and bytes."""
        return tuple(self.item(item_id).content for item_id in item_ids)

    def path(self, item_id: str) -> Path:
        """The path of the picture with that id."""
        return self.root / self.item(item_id).path

    def without(self, reasons: Mapping[str, str]) -> "Dataset":
        """The data set without some pictures and the questions about them; `reasons` gives the reason by id."""
        items = [
            replace(item, questions=tuple(q for q in item.questions if not {*q.others} & reasons.keys()))
            for item in self.items
            if item.id not in reasons
        ]
        why: dict[str, list[str]] = {}
        for item_id, reason in reasons.items():
            why.setdefault(reason, []).append(item_id)
        sentences = [f"{self.root}: left out: {len(ids)} ({first_few(ids)}): {reason}." for reason, ids in why.items()]
        return replace(self, items=tuple(items), problems=(*self.problems, *sentences))

    @cached_property
    def _by_id(self) -> dict[str, Item]:
        return {item.id: item for item in self.items}


def digest(dataset: Dataset) -> str:
    """SHA-256 (64 hex digits) of the pictures' ids, classes and contents, in any order.

    It is equal for two runs that used the same pictures.
    """
    lines = sorted(json.dumps([item.id, item.class_id, item.sha256]) for item in dataset.items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def annotation_digest(dataset: Dataset) -> str:
    """SHA-256 (64 hex digits) of all annotations of the pictures: names, splits, groups, facts and questions."""
    lines = sorted(to_json(replace(item, pixels="", sha256="")) for item in dataset.items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_manifest(root: Path) -> Dataset:
    """The data set that `manifest.jsonl` in `root` lists, in the order of its lines. No picture is opened.

    Raises `InputError` for a line that is not an item, a path out of the folder, an id that differs from the path or is
    not unique, a class with two names, and missing pictures.
    """
    file = root / MANIFEST
    try:
        items = tuple(map(_normal, read_jsonl(Item, file, file_format=versions.MANIFEST)))
        with file.open("rb") as opened:
            first = 2 if opened.readline().startswith(b'{"format"') else 1  # the line of the first picture
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}). Check the path, or write it again.") from error
    for number, item in enumerate(items, first):
        _check(item, f"{file}:{number}")
    _check_together(items, file)
    missing = [item.path for item in items if _is_missing(root / item.path)]
    if missing:
        raise InputError(
            f"{file}: missing pictures: {len(missing)} of {len(items)} ({first_few(missing)}). "
            "Put them back, or remove their lines."
        )
    return Dataset(root, items)


def write_manifest(dataset: Dataset) -> None:
    """Write `manifest.jsonl` into the data set's root: a line with its format, and one line for each picture."""
    file = dataset.root / MANIFEST
    for number, item in enumerate(dataset.items, 2):
        _check(item, f"{file}:{number}")
    _check_together(dataset.items, file)
    write_jsonl(dataset.items, file, versions.MANIFEST)


def _is_missing(path: Path) -> bool:
    try:
        return not path.is_file()
    except ValueError:  # a null character
        return True
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG  # other errors are raised when the file is opened


def _normal(item: Item) -> Item:
    """The item with class and name in Unicode's composed form (NFC) and with single spaces, as folders give them."""
    class_id, name = unicodedata.normalize("NFC", item.class_id), normal_name(item.name)
    return item if (class_id, name) == (item.class_id, item.name) else replace(item, class_id=class_id, name=name)


def _check(item: Item, where: str) -> None:
    texts = (item.id, item.path, item.class_id, item.name, item.sha256, item.split, item.group, item.pixels)
    if not all(isinstance(text, str) for text in texts) or not isinstance(item.facts, dict):
        raise InputError(f"{where}: facts must be an object and every other value a string. Correct the line.")
    parts = item.path.split("/")
    if item.id != item.path or PurePosixPath(item.path).as_posix() != item.path or ".." in parts or not parts[0]:
        raise InputError(
            f"{where}: id and path must be the same path below the folder, with / between its parts and "
            f"without .. (id {excerpt(item.id)!r}, path {excerpt(item.path)!r}). Correct the line."
        )
    for question in item.questions:
        _check_question(question, where)
    if not item.class_id or is_blank(item.name):
        raise InputError(f"{where}: class and name must not be empty or blank. Correct the line.")


def _check_question(q: Question, where: str) -> None:
    texts = (q.task, q.concept, q.question, q.answer, q.split, q.context, *q.candidates, *q.others)
    if not all(isinstance(text, str) for text in texts) or is_blank(q.question) or is_blank(q.answer):
        raise InputError(f"{where}: a question and its answer must be texts that are not blank. Correct the line.")
    if len(q.candidates) == 1 or len({*map(normal_name, q.candidates)}) < len(q.candidates):
        raise InputError(f"{where}: there must be at least two candidates, all different. Correct the line.")
    if q.candidates and q.answer not in q.candidates:
        raise InputError(f"{where}: the answer {excerpt(q.answer)!r} is not one of the candidates. Correct the line.")


def _check_together(items: tuple[Item, ...], file: Path) -> None:
    """Raise an `InputError` for items that contradict each other."""
    repeated = sorted(item_id for item_id, count in Counter(item.id for item in items).items() if count > 1)
    if repeated:
        raise InputError(f"{file}: listed more than once: {first_few(repeated)}. Keep one line for each picture.")
    listed = {item.id for item in items}
    unlisted = sorted({other for item in items for question in item.questions for other in question.others} - listed)
    if unlisted:
        raise InputError(
            f"{file}: questions are about pictures that it does not list ({first_few(unlisted)}). Add their lines."
        )
    names: dict[str, str] = {}
    for item in items:
        name = names.setdefault(item.class_id, item.name)
        if name != item.name:
            raise InputError(
                f"{file}: class {excerpt(item.class_id)!r} is called both {excerpt(name)!r} and "
                f"{excerpt(item.name)!r}. "
                "Give all its lines one name."
            )
