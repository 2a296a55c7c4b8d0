"""NVRD, novel visual references (arXiv 2606.05409), in the folder that its own download script writes.

DIR/known/OBJECT.png, DIR/known/perturbations_comp/CHANGE/OBJECT_LEVEL.png, the same in DIR/novel,
DIR/modified/shape-shape and DIR/modified/shape-texture; and nonce_word_mapping.json in DIR or in the folder above it:
[{"fp": ".../CATEGORY/.../OBJECT.png", "ref": word}]     AdaDTur/nvrd, data/download_dataset.py and data/
"""

from pathlib import Path, PurePosixPath

from linkcontext.data.manifest import Dataset
from linkcontext.data.problems import Problems
from linkcontext.data.reader import Reader
from linkcontext.data.readers.json_records import read_records, require_text
from linkcontext.data.scan import scan
from linkcontext.errors import InputError, first_few
from linkcontext.records import Item

CATEGORIES = {
    "known": "known",
    "novel": "novel",
    "modified/shape-shape": "shape-shape",
    "modified/shape-texture": "shape-texture",
}
WORDS = "nonce_word_mapping.json"
CHANGED = "perturbations_comp"
ORIGINAL = "original"  # the split of unchanged pictures
LAYOUT = f"the folder that NVRD's data/download_dataset.py writes (data/sample-data), with {WORDS} in it or above it"


def severity_split(level: int) -> str:
    """The split of pictures that are changed by `level`: `severity-07`."""
    return f"severity-{level:02d}"


def open_nvrd(folder: str, strict: bool = False) -> Dataset:
    """Open a folder as classes: each object is one, called by its nonce word.

    The split of a picture is `original` or `severity-01` to `severity-20`, and its facts are `category`, `change` (such
    as noise; "" for the original) and `severity` (0 for the original). Objects without a nonce word and changed
    pictures without an original are left out and reported.

    Raises:
        InputError: there is no such folder or mapping, or nothing in it can be used; with `strict`, anything is left
            out.
    """
    root = Path(folder)
    if not folder or not root.is_dir():
        raise InputError(f"nvrd:{folder}: no such folder. Give {LAYOUT}.")
    problems = Problems(strict)
    words = _nonce_words(root, problems)
    items, nameless, alone, others = [], set[str](), list[str](), list[str]()
    pictures = scan(root, problems)
    for path, seen in pictures.items():
        place = _place(path)
        if place is None:
            others.append(path)
            continue
        category, name, change, level = place
        original = f"{category}/{name}.png"
        if original not in words:
            nameless.add(f"{category}/{name}")
        elif original not in pictures:
            alone.append(path)
        else:
            facts = {"category": CATEGORIES[category], "change": change, "severity": level}
            split = severity_split(level) if change else ORIGINAL
            class_id = f"{category}/{name}"
            items.append(
                Item(path, path, class_id, words[original], seen.sha256, split, facts=facts, pixels=seen.pixels)
            )
    for left_out, why in (
        (sorted(nameless), f"objects without a word in {WORDS}"),
        (alone, "changed pictures without the original of their object"),
        (others, "pictures that do not lie where NVRD puts them"),
    ):
        if left_out:
            problems.add(f"{root}: left out, {why}: {len(left_out)} ({first_few(left_out)}).")
    if not items:
        raise problems.nothing_usable(f"nvrd:{folder}", "picture")
    return Dataset(root, tuple(items), tuple(problems.sentences))


NVRD = Reader(open=lambda folder, strict, _fewest: open_nvrd(folder, strict))


def _place(path: str) -> tuple[str, str, str, int] | None:
    """Category folder, object, change and level of a picture; change "" and level 0 for an original.

    None for a path that NVRD does not have. An object's name may contain underscores, as in boar_toaster_10.png.
    """
    category = next((folder for folder in CATEGORIES if path.startswith(f"{folder}/")), "")
    parts = path.removeprefix(f"{category}/").split("/")
    stem = parts[-1].rpartition(".")[0]
    if not category or not stem:
        return None
    if len(parts) == 1:
        return category, stem, "", 0
    name, _, level = stem.rpartition("_")
    if len(parts) != 3 or parts[0] != CHANGED or not name or not level.isdecimal() or not 0 < int(level) < 100:
        return None
    return category, name, parts[1], int(level)


def _nonce_words(root: Path, problems: Problems) -> dict[str, str]:
    """Path of an original below the root -> the nonce word of its object."""
    file = next((folder / WORDS for folder in (root, root.absolute().parent) if (folder / WORDS).is_file()), None)
    if file is None:
        raise InputError(
            f"{root}: {WORDS} is neither in it nor in the folder above it. Copy it from NVRD's data folder."
        )
    words: dict[str, str] = {}
    for where, record in read_records(file):
        with problems.leaving_out():
            path, word = PurePosixPath(require_text(record, "fp", where)), require_text(record, "ref", where)
            # The file has the paths of its author, such as sample-data/modified/shape-shape/animal-obj/boar_bus.png.
            for category in CATEGORIES:
                if f"/{category}/" in f"/{path}":
                    original = f"{category}/{path.name}"
                    if words.setdefault(original, word) != word:
                        two = f"{words[original]!r} and {word!r}"
                        raise InputError(f"{where}: {original} has two words, {two}. Correct the record.")
    return words
