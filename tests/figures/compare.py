"""Compare two recordings of record.py: numbers to 1e-6, everything else exactly.

    python tests/figures/compare.py BEFORE AFTER [--wording]

Prints a line for each command, and exits with 1 and a list of differences if there are any. What commands print for
people is compared as *wording*: its differences are listed, and count only with --wording.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from record import RENAMED
from safetensors import safe_open

TOLERANCE = 1e-6  # of numbers: absolute up to 1, relative above

# ---- What may differ; nothing else may. Words of command lines that were renamed are in record.RENAMED. ----

# Values of options that have another name now.
VALUES = {"packed": "tree", "cached": "prefix-cache", "naive": "reference"}
# Keys of JSON whose values are a time or a version, are random, or follow from such a value.
KEYS = {"seconds", "answers_per_second", "versions", "created", "seal"}
# Parts of texts that are a time, a version, a port or random, and what is put in their place.
TEXTS = (
    (r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?", "DATE"),
    (r"\b\d[\d,]*(\.\d+)? ?(ms|s|seconds|minutes|min|h)\b", "TIME"),
    (r"(?m)^(.*\r)+", ""),  # a progress bar is printed again and again on one line
    (r"\[\d\d:\d\d<.*?\]|\b\d:\d\d:\d\d\b|(?<=answers/s )[\d.]+", "TIME"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"chatcmpl-[\w-]+", "RESPONSE"),
)
# Versions of formats, which files of 0.1 do not have.
FORMATS = (rb'^\{"format": ?"linkcontext\.manifest/1"\}\n', rb'"format": "linkcontext\.(run|training)/1",\s*')
# Files that may be in one recording only, as patterns of COMMAND/FILE.
ONE_ONLY: tuple[str, ...] = ()
# What commands print for people.
WORDING = ("stdout.txt", "stderr.txt")
# Files that are compared byte by byte, but for the place of the recording. So is any file that is no text.
EXACT = ("episodes.jsonl", "manifest.jsonl", "export.json*", "answers.jsonl", "conversations.json", "ISEKAI-*.json")
EXACT += ("neighbours.jsonl",)

# ------------------------------------------------------------------------------------------------------------

SHOWN = 8  # differences of one file
TENSORS = (".safetensors", ".pack")
TEXT = (".txt", ".md", ".html", ".jinja", "")


@dataclass(frozen=True)
class Difference:
    """A difference in a file of a command."""

    command: str
    file: str
    what: str

    @property
    def is_wording(self) -> bool:
        """Whether only people read it."""
        return self.file in WORDING


class Recording:
    """The folder of a recording."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            about = json.loads((folder / "recording.json").read_text())
        except OSError as error:
            raise SystemExit(f"{folder}: is no finished recording, because recording.json cannot be read.") from error
        self.places = {about["cache"]: "CACHE", about["folder"]: "RECORDING"}

    @cached_property
    def commands(self) -> list[str]:
        """The folders of commands, and `inputs`."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir())

    def files(self, command: str) -> set[str]:
        """The files of a command, relative to its folder."""
        root = self.folder / command
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}

    def content(self, file: str) -> bytes:
        """The bytes of a file, without the place of the recording in them."""
        content = (self.folder / file).read_bytes()
        for place, name in self.places.items():
            content = content.replace(place.encode(), name.encode())
        for pattern in FORMATS:
            content = re.sub(pattern, b"", content)
        return content

    def text(self, text: str) -> str:
        """A text without what may differ."""
        for place, name in self.places.items():
            text = text.replace(place, name)
        for old, new in RENAMED.items():
            before = r"(?<![\w-])" if old.startswith("-") else r"(?<=linkcontext )"
            text = re.sub(rf"{before}{re.escape(old)}(?![\w-])", new, text)
        for old, new in VALUES.items():
            text = re.sub(rf"\b{old}\b", new, text)
        for pattern, new in TEXTS:
            text = re.sub(pattern, new, text)
        return text


def compare(before: Recording, after: Recording) -> Iterator[Difference]:
    """All differences between two recordings, command by command."""
    for command in sorted({*before.commands, *after.commands}):
        files, others = before.files(command), after.files(command)
        for file in sorted(files | others):
            where = f"{command}/{file}"
            if file in files & others:
                for what in in_file(before, after, where):
                    yield Difference(command, file, what)
            elif not any(fnmatch(where, pattern) for pattern in ONE_ONLY):
                yield Difference(command, file, f"only {'before' if file in files else 'after'}")


def in_file(before: Recording, after: Recording, file: str) -> Iterator[str]:
    """The differences in a file that both have."""
    one, two = before.content(file), after.content(file)
    path = Path(file)
    if one == two:
        return
    if any(fnmatch(path.name, pattern) for pattern in EXACT):
        yield from other_bytes(one, two)
    elif path.suffix == ".json":
        yield from other_values(json.loads(one), json.loads(two), before, after)
    elif path.suffix == ".jsonl":
        rows, others = ([json.loads(line) for line in content.splitlines()] for content in (one, two))
        yield from other_values(rows, others, before, after)
    elif path.suffix in TENSORS:
        yield from other_tensors(before, after, file)
    elif path.suffix in TEXT:
        yield from other_lines(before.text(one.decode()), after.text(two.decode()))
    else:
        yield from other_bytes(one, two)


def other_bytes(one: bytes, two: bytes) -> Iterator[str]:
    """Where two contents that are not equal begin to differ."""
    place = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    start = max(0, place - 30)
    yield f"byte {place}: {one[start : place + 30]!r} / {two[start : place + 30]!r}"


def other_lines(one: str, two: str) -> Iterator[str]:
    """The lines in which two texts differ; spaces do not count, because tables are as wide as what is in them."""
    lines, others = ([" ".join(line.split()) for line in text.splitlines()] for text in (one, two))
    for number, (line, other) in enumerate(zip(lines, others, strict=False), start=1):
        if line != other:
            place = next((n for n, (a, b) in enumerate(zip(line, other, strict=False)) if a != b), 0)
            start = max(0, place - 60)
            yield f"line {number}: {line[start : start + 160]!r} / {other[start : start + 160]!r}"
    if len(lines) != len(others):
        yield f"{len(lines)} / {len(others)} lines"


def other_values(one: Any, two: Any, before: Recording, after: Recording, where: str = "") -> Iterator[str]:
    """Where two JSON values differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted((one.keys() | two.keys()) - KEYS):
            if key not in one or key not in two:
                yield f"{where}.{key}: only {'before' if key in one else 'after'}"
            else:
                yield from other_values(one[key], two[key], before, after, f"{where}.{key}")
    elif isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            yield f"{where}: {len(one)} / {len(two)} values"
        for number, (value, other) in enumerate(zip(one, two, strict=False)):
            yield from other_values(value, other, before, after, f"{where}[{number}]")
    elif not same_value(one, two, before, after):
        yield f"{where}: {one!r} / {two!r}"


def same_value(one: Any, two: Any, before: Recording, after: Recording) -> bool:
    """Whether two numbers are equal to `TOLERANCE`, or two other values are the same."""
    if isinstance(one, str) and isinstance(two, str):
        return before.text(one) == after.text(two)
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (math.isnan(one) and math.isnan(two))
    return type(one) is type(two) and one == two


def other_tensors(before: Recording, after: Recording, file: str) -> Iterator[str]:
    """Where the metadata and the tensors of two safetensors files differ."""
    paths = (before.folder / file, after.folder / file)
    with safe_open(paths[0], framework="pt") as one, safe_open(paths[1], framework="pt") as two:
        metadata = [{key: parsed(value) for key, value in (opened.metadata() or {}).items()} for opened in (one, two)]
        for values in metadata:
            if "pack" in values:  # the digest of a pack covers its versions too
                del values["digest"]
        yield from other_values(*metadata, before, after, "metadata")
        names, others = set(one.keys()), set(two.keys())
        for name in sorted(names ^ others):
            yield f"{name}: only {'before' if name in names else 'after'}"
        for name in sorted(names & others):
            a, b = one.get_tensor(name), two.get_tensor(name)
            if a.dtype != b.dtype or a.shape != b.shape:
                yield f"{name}: {a.dtype} {tuple(a.shape)} / {b.dtype} {tuple(b.shape)}"
            elif a.dtype.is_floating_point:
                apart = ((a - b).abs().double() / a.abs().double().clamp(min=1)).max().item() if a.numel() else 0.0
                if not apart <= TOLERANCE:
                    yield f"{name}: numbers differ by up to {apart:.2g}"
            elif not a.equal(b):
                yield f"{name}: other whole numbers"


def parsed(text: str) -> Any:
    """The value of a text that is JSON; another text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(arguments: list[str] | None = None) -> int:
    """Compare, print, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--wording", action="store_true", help="differences in stdout and stderr count too")
    given = parser.parse_args(arguments)
    before, after = Recording(given.before), Recording(given.after)
    differences = list(compare(before, after))
    for command in sorted({*before.commands, *after.commands}):
        own = [d for d in differences if d.command == command]
        wording = sum(d.is_wording for d in own)
        files = len(before.files(command) | after.files(command))
        result = f"{len(own) - wording} differences" if len(own) > wording else "the same"
        print(f"{command}: {files} files, {result}" + (f", {wording} differences in wording" if wording else ""))
    counted = [d for d in differences if given.wording or not d.is_wording]
    print_differences("Differences", [d for d in differences if not d.is_wording])
    print_differences("Wording", [d for d in differences if d.is_wording])
    return 1 if counted else 0


def print_differences(title: str, differences: list[Difference]) -> None:
    """Print the first differences of each file."""
    if differences:
        print(f"\n{title}:")
    for file in dict.fromkeys((d.command, d.file) for d in differences):
        own = [d.what for d in differences if (d.command, d.file) == file]
        for what in own[:SHOWN]:
            print(f"  {'/'.join(file)}: {what}")
        if len(own) > SHOWN:
            print(f"  {'/'.join(file)}: and {len(own) - SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
