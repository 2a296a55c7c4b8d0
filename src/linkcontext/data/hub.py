"""Data sets of the Hugging Face Hub and its file layouts, read with the `datasets` package."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from linkcontext.data import images
from linkcontext.data.class_folders import open_folder
from linkcontext.data.layout import is_blank, normal_name, normal_split, source_group
from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.data.reader import Reader
from linkcontext.errors import InputError
from linkcontext.progress import progress
from linkcontext.records import Item
from linkcontext.storage import cache_dir, read_errors, write_text, written_once

PICTURE_COLUMNS = ("image", "img")  # if several columns hold pictures, the first of these names is used
NAMING = "labels are whole names"  # part of the cache key: data sets cached under another rule are written again
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "name")


def open_huggingface(name: str, strict: bool = False, fewest: int = 2) -> Dataset:
    """Open a Hub id, a local image folder or a parquet file, or `NAME:CONFIG`, as class folders.

    The pictures are written into the cache once, with their splits and unchanged bytes. Raises `InputError` if the
    `datasets` package is missing, if the data set cannot be loaded, if its columns of pictures and labels are
    ambiguous, and as `open_folder`.
    """
    labelled = load_labelled_rows(name)
    folder = written_once(cache_dir() / "hub" / labelled.key, labelled.write)
    dataset = open_folder(folder, strict, fewest)
    return dataclasses.replace(dataset, problems=labelled.problems + dataset.problems)


HUGGING_FACE = Reader(open=open_huggingface)


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """A loaded data set. Its labels are in memory, its pictures are still encoded."""

    key: str  # a folder name that changes when the data change
    rows: dict[str, Any]  # split -> datasets.Dataset of undecoded pictures in the column "picture"
    labels: dict[str, list[str]]  # split -> a label for each row, "" for a row without a label

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each split with rows that have no label."""
        unlabelled = {split: labels.count("") for split, labels in self.labels.items()}
        return tuple(
            f"{self.key}: rows left out of the split {split} because they have no label: {count}."
            for split, count in unlabelled.items()
            if count
        )

    def write(self, folder: Path) -> None:
        """Write every labelled picture, bytes unchanged, as SPLIT/CLASS/row.suffix and a manifest."""
        items: list[Item] = []
        folders: dict[str, str] = {}
        with progress(f"Writing the pictures of {self.key}", len(self._labelled())) as advance:
            for split, row, label in self._labelled():
                # A label can contain any character, even a slash. The number makes its folder unique.
                below = folders.setdefault(label, f"{len(folders):04d}_{_slug(label)}")
                picture = self.rows[split][row]["picture"]
                path, sha256, group = _write(picture, folder, f"{_slug(split)}/{below}/{row:07d}")
                items.append(Item(path, path, label, _name(label), sha256, normal_split(split), group))
                advance()
        write_manifest(Dataset(folder, tuple(items)))

    def _labelled(self) -> list[tuple[str, int, str]]:
        """Split, row number and label of each row that has a label."""
        return [
            (split, row, label) for split, labels in self.labels.items() for row, label in enumerate(labels) if label
        ]


def load_labelled_rows(name: str) -> LabelledRows:
    """Load a data set and find its columns of pictures and labels. Arguments and errors as in `open_huggingface`."""
    datasets = _datasets(name)
    splits = _load(datasets, name)
    rows, labels = {}, {}
    for split, table in splits.items():
        picture, label = _columns(datasets, table.features, f"{name}, split {split}")
        labels[split] = _labels(datasets, table, label)
        renamed = table.select_columns([picture]).rename_columns({picture: "picture"})
        rows[split] = renamed.cast_column("picture", datasets.Image(decode=False))
    state = "\n".join([NAMING, *(f"{split} {table._fingerprint}" for split, table in splits.items())])
    return LabelledRows(f"{_slug(name)}-{hashlib.sha256(state.encode()).hexdigest()[:16]}", rows, labels)


def conversation_rows(name: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a data set of conversations, one at a time, each with its place for error messages.

    Pictures of the columns `image` and `images` are written into `folder` with unchanged bytes; in the rows stand
    their paths below it. Raises `InputError` as `open_huggingface`.
    """
    datasets = _datasets(name)
    for split, table in _load(datasets, name, streaming=True).items():
        features = table.features or {}
        columns = [column for column in ("image", "images") if _is_picture_column(datasets, features.get(column))]
        for column in columns:
            raw = datasets.Image(decode=False)
            one = isinstance(features[column], datasets.Image)
            table = table.cast_column(column, raw if one else datasets.List(raw))  # noqa: PLW2901
        for column, feature in features.items():
            if isinstance(feature, datasets.Video | datasets.Audio):  # never decoded, because such rows are left out
                table = table.cast_column(column, type(feature)(decode=False))  # noqa: PLW2901
        for number, row in enumerate(table):
            for column in columns:
                shown = row[column] if isinstance(row[column], list) else [row[column]]
                stem = f"pictures/{_slug(split)}-{number:07d}"
                row[column] = [_write(each, folder, f"{stem}-{n}")[0] for n, each in enumerate(shown) if each]
            yield f"hf:{name}, split {split}, row {number}", row


def cached_rows(name: str) -> tuple[Path, list[dict[str, Any]]]:
    """The rows of all splits of a data set, and the folder in the cache that holds their pictures.

    The pictures are written once with unchanged bytes. Rows have their paths below the folder: a text, or a list of
    texts, and "" for a missing picture. `name` is a Hub id, a parquet file, a folder of them, or a folder that the
    `datasets` package saved. Raises `InputError` as `open_huggingface`.
    """
    datasets = _datasets(name)
    raw: dict[str, Any] = {}
    columns: dict[str, list[str]] = {}
    for split, table in _load(datasets, name).items():
        columns[split] = [column for column, f in table.features.items() if _is_picture_column(datasets, f)]
        for column in columns[split]:
            one, undecoded = isinstance(table.features[column], datasets.Image), datasets.Image(decode=False)
            table = table.cast_column(column, undecoded if one else datasets.List(undecoded))  # noqa: PLW2901
        raw[split] = table

    def write(folder: Path) -> None:
        rows: list[dict[str, Any]] = []
        for split, table in raw.items():
            for number, row in enumerate(table):
                for column in columns[split]:
                    shown = row[column] if isinstance(row[column], list) else [row[column]]
                    stem = f"pictures/{_slug(split)}-{number:07d}-{_slug(column)}"
                    paths = [_write(each, folder, f"{stem}-{n}")[0] if each else "" for n, each in enumerate(shown)]
                    row[column] = paths if isinstance(row[column], list) else paths[0]
                rows.append(row)
        write_text(json.dumps(rows, default=str), folder / "rows.json")

    state = "\n".join(f"{split} {table._fingerprint}" for split, table in raw.items())
    key = f"{_slug(name)}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
    folder = written_once(cache_dir() / "rows" / key, write)
    return folder, json.loads((folder / "rows.json").read_text(encoding="utf-8"))


def _is_picture_column(datasets: ModuleType, feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", feature), datasets.Image)


def _datasets(name: str) -> ModuleType:
    try:
        import datasets  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError(
            f"{name}: Hugging Face data sets need the datasets package. Run: pip install 'linkcontext[hub]'"
        ) from error
    return datasets  # type: ignore[no-any-return]


def _load(datasets: ModuleType, name: str, streaming: bool = False) -> dict[str, Any]:
    path, config = name, None
    if not Path(name).exists() and ":" in name:
        path, config = name.rsplit(":", 1)
    failures = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
    try:
        if any((Path(path) / saved).is_file() for saved in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(path)
            return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        if Path(path).is_file():
            return dict(datasets.load_dataset("parquet", data_files=path, streaming=streaming))
        return dict(datasets.load_dataset(path, config, streaming=streaming))
    except failures as error:
        raise InputError(
            f"{name}: the data set cannot be loaded ({_first_line(error)}). Name an image folder, a "
            "parquet file, or a hub id that can be reached from here; a configuration follows a colon."
        ) from error


def _columns(datasets: ModuleType, features: dict[str, Any], where: str) -> tuple[str, str]:
    """The names of the columns that hold the picture and the label."""
    pictures = [n for n, f in features.items() if isinstance(f, datasets.Image)]
    labels = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
    labels = labels or [n for n, f in features.items() if isinstance(f, datasets.Value) and f.dtype == "string"]
    picture, label = _one(pictures, PICTURE_COLUMNS), _one(labels, LABEL_COLUMNS)
    if picture is None or label is None:
        raise InputError(
            f"{where}: needs one column of pictures and one of labels (ClassLabel or text). If there are several, they "
            f"must be called image and label. It has {', '.join(features)}. Rename its columns, or save it as class "
            "folders."
        )
    return picture, label


def _one(columns: list[str], preferred: tuple[str, ...]) -> str | None:
    if len(columns) == 1:
        return columns[0]
    return next((name for name in preferred if name in columns), None)


def _labels(datasets: ModuleType, table: Any, column: str) -> list[str]:
    values = table.with_format(None)[column][:]
    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        names = ["" if is_blank(name) else name for name in feature.names]
        return ["" if value is None or value < 0 else names[value] for value in values]
    return ["" if value is None or is_blank(value) else value for value in values]


def _write(picture: dict[str, Any] | None, root: Path, stem: str) -> tuple[str, str, str]:
    """Write one picture; returns its path below the root, its SHA-256 and its group."""
    content, origin = _content(picture)
    # An empty or damaged picture, which has no format, is written too: the scan of the folder reports it.
    path = f"{stem}{images.suffix(content) or '.png'}"
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    return path, hashlib.sha256(content).hexdigest(), source_group(origin) if origin else stem


def _content(picture: dict[str, Any] | None) -> tuple[bytes, str]:
    """The bytes of a picture and its original file name, "" if it has none."""
    if picture is None:
        return b"", ""
    origin = picture["path"] or ""
    content = picture["bytes"]
    if content is None and origin:
        with read_errors(Path(origin)):
            content = Path(origin).read_bytes()
    return content or b"", PurePath(origin).name


def _name(label: str) -> str:
    """The class name of a label. A slash in it separates nothing: AC/DC keeps both parts."""
    return normal_name(label.replace("_", " "))


def _slug(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text).strip("-")[:60]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
