"""ISEKAI-10 and ISEKAI-pair (arXiv 2308.07891) in their published layout.

A folder with pictures and ISEKAI-10.json or ISEKAI-pair.json: JSON lines with one query each, with paths relative to
the folder and fields spelt as published. A record is a query with its own support, so the benchmark `isekai` makes
episodes of it (`evaluation.tasks.isekai`), and there is no `--layout`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.manifest import MANIFEST
from linkcontext.data.problems import Problems
from linkcontext.data.scan import scan
from linkcontext.errors import InputError, first_few
from linkcontext.jsonl import read_jsonl
from linkcontext.records import Item
from linkcontext.storage import cache_dir

HUB = "hf:ISEKAI-Portal/ISEKAI-10 or hf:ISEKAI-Portal/ISEKAI-pair"
LAYOUT = "a folder with ISEKAI-10.json or ISEKAI-pair.json and the pictures that it names"
OWN = "linkcontext world --isekai 10 --out DIR"


@dataclass(frozen=True, slots=True)
class IsekaiRecord:
    """One query as published. `label_name` is one of the two names; "promt" is the spelling of the data."""

    image_name: str
    positive_list: tuple[str, ...]
    negative_list: tuple[str, ...]
    positive_promt: str
    negative_promt: str
    label_name: str

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Name -> its support pictures."""
        return {self.positive_promt: self.positive_list, self.negative_promt: self.negative_list}


def _download(name: str) -> Path:
    """The cached folder of a data set on the Hub."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, and needed for hf: only

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_dir=cache_dir() / "isekai" / name))
    except (OSError, ValueError) as error:  # the Hub's errors for no network, no such name and no permission
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"hf:{name}: cannot be fetched ({reason}). Download it elsewhere and give its folder to --data, or draw "
            f"your own with `{OWN}`."
        ) from error


def isekai_file(data: str) -> Path:
    """The records file of `data`: a folder, the file itself, or `hf:NAME` on the Hub.

    Raises `InputError` if there is no such folder, or not one file that can be meant.
    """
    folder = _download(data.removeprefix("hf:")) if data.startswith("hf:") else Path(data)
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give {LAYOUT}, {HUB}; or draw your own with `{OWN}`.")
    files = sorted(p for p in folder.glob("*.json*") if p.suffix in (".json", ".jsonl") and p.name != MANIFEST)
    files = [path for path in files if "isekai" in path.stem.lower()] or files
    if len(files) != 1:
        count = f"{len(files)} JSON files ({first_few([path.name for path in files])})" if files else "no JSON file"
        raise InputError(
            f"{folder}: has {count} where one is needed. Give {LAYOUT}, or give the records file to --data."
        )
    return files[0]


def read_isekai(file: Path, max_shots: int) -> list[IsekaiRecord]:
    """The records of a file. Raises `InputError` for a malformed record, and for lists with fewer than `max_shots`."""
    try:
        records = list(read_jsonl(IsekaiRecord, file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}). Is the download complete?") from error
    if not records:
        raise InputError(f"{file}: no records. Is the download complete?")
    return [_check_record(record, f"{file}:{number}", max_shots) for number, record in enumerate(records, 1)]


def _check_record(record: IsekaiRecord, where: str, max_shots: int) -> IsekaiRecord:
    texts = [record.image_name, record.label_name, record.positive_promt, record.negative_promt]
    texts += [*record.positive_list, *record.negative_list]
    if not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"{where}: pictures and names must be non-empty texts. Correct the record.")
    spelt = {name.casefold(): name for name in record.lists}
    if len(spelt) < 2 or record.label_name.casefold() not in spelt:
        raise InputError(
            f"{where}: label_name {record.label_name!r} must be one of two different names, positive_promt "
            f"{record.positive_promt!r} and negative_promt {record.negative_promt!r}. Correct the record."
        )
    available = min(len(record.positive_list), len(record.negative_list))
    if available < max_shots:
        raise InputError(
            f"{where}: {max_shots} shots per class need more pictures than the {available} of its lists. "
            "Give fewer --shots-per-class."
        )
    return dataclasses.replace(record, label_name=spelt[record.label_name.casefold()])


def isekai_items(file: Path, records: Sequence[IsekaiRecord]) -> dict[str, Item]:
    """The items of the pictures, by the paths of the records.

    All pictures may be in a folder that these paths do not mention. Raises `InputError` for missing pictures (naming
    all of them), and for a picture with two names.
    """
    problems = Problems(strict=False)
    pictures = scan(file.parent, problems)
    named = [(record.image_name, record.label_name) for record in records]
    named += [(path, name) for record in records for name, listed in record.lists.items() for path in listed]
    paths, first = {path for path, _ in named}, named[0][0]
    deeper = (path.removesuffix(first) for path in pictures if path.endswith(f"/{first}"))
    above = "" if paths & pictures.keys() else min(deeper, key=len, default="")
    missing = sorted(path for path in paths if above + path not in pictures)
    if missing:
        examples = first_few(missing) if len(missing) == len(paths) else ", ".join(missing)  # all missing: no full list
        reasons = {path: problems.reasons.get(above + path) for path in missing}
        damaged = [f"{path}: {reason}" for path, reason in reasons.items() if reason]
        because = f" Damaged: {first_few(damaged, whole=True)}" if damaged else ""
        raise InputError(
            f"{file}: pictures missing: {len(missing)} of {len(paths)} ({examples}). Unpack them.{because}"
        )
    items: dict[str, Item] = {}
    for path, name in named:
        seen, place = pictures[above + path], above + path
        item = items.setdefault(path, Item(place, place, name, name, seen.sha256, pixels=seen.pixels))
        if item.name != name:
            raise InputError(f"{file}: {path} is called both {item.name!r} and {name!r}. Correct the records.")
    return items
