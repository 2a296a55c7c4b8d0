"""Class folders: a folder of pictures for each class, with or without folders of splits."""

import dataclasses
import os
import re
import stat
from pathlib import Path

from linkcontext.data.copies import label_conflict_sentence
from linkcontext.data.formats import KINDS
from linkcontext.data.layout import Layout, class_name, is_blank, mixes_scripts, name_key, read_layout, source_group
from linkcontext.data.manifest import MANIFEST, Dataset, read_manifest
from linkcontext.data.problems import Problems
from linkcontext.data.reader import Reader
from linkcontext.data.scan import ScannedFile, scan
from linkcontext.errors import InputError, excerpt, first_few
from linkcontext.python_words import did_you_mean
from linkcontext.records import Item

LAYOUT = f"FOLDER/CLASS/picture.png or FOLDER/train/CLASS/picture.png, with two classes or more, {KINDS}"


def open_folder(root: Path, strict: bool = False, fewest: int = 2) -> Dataset:
    """Open a folder of class folders. Its pictures are sorted by path.

    A folder whose name is that of a split is the split; the rest of the path is the class (`linkcontext.data.layout`).
    For the files that it lists, `manifest.jsonl` in the root overrides the folders. Bad pictures, links out of the
    folder and unreadable folders are left out and reported in `problems`.

    Raises:
        InputError: the folder does not exist, or has fewer than `fewest` classes and no questions; with `strict`,
            anything is left out.
    """
    _check_folder(root)
    problems = Problems(strict)
    pictures = scan(root, problems)
    listed = read_manifest(root) if (root / MANIFEST).is_file() else Dataset(root, ())
    layout = read_layout(pictures.keys() - {item.path for item in listed.items})
    items = _items(pictures, listed, layout, problems)
    dataset = Dataset(
        root, items, sketches={path: seen.summary.sketch for path, seen in pictures.items() if seen.summary}
    )
    if contradiction := label_conflict_sentence(dataset):
        problems.add(contradiction)
    if garbled := [class_id for class_id, name in dataset.names().items() if mixes_scripts(name)]:
        problems.note(
            f"{root}: class names of letters from several scripts: {len(garbled)} ({first_few(garbled)}). If the "
            "folders were named on a system that did not use UTF-8, rename them."
        )
    if shared := _namesakes(dataset):
        problems.note(f"{root}: {shared}")
    for doubt in layout.doubts:
        problems.note(f"{root}: {doubt}")
    classes = sorted({item.class_id for item in items})
    if len(classes) < fewest and not any(item.questions for item in items):
        there = f"only one class ({excerpt(classes[0])!r})" if classes else "no picture in a class folder"
        if not classes and pictures:
            whole = root if root.name else root.absolute()
            there += f". If {whole.name} is one class, give the folder that it lies in ({whole.parent})"
        because = f" Left out: {first_few(problems.sentences, whole=True)}" if problems.sentences else ""
        raise InputError(f"{root}: {there}. Expected {LAYOUT}.{because}")
    return dataclasses.replace(dataset, problems=tuple(problems.sentences))


FOLDER = Reader(open=lambda path, strict, fewest: open_folder(Path(path), strict, fewest))


def _namesakes(dataset: Dataset) -> str:
    """A sentence about classes that have the same name; "" if there are none."""
    classes: dict[str, list[str]] = {}
    for class_id, name in dataset.names().items():
        classes.setdefault(name_key(name), []).append(class_id)
    shared = [" and ".join(map(repr, ids)) for ids in classes.values() if len(ids) > 1]
    if not shared:
        return ""
    return (
        f"classes that share a name, but for case and spaces: {first_few(shared, whole=True)}. They never meet in an "
        "episode. If they are one class, put their pictures together; if not, rename one."
    )


def _check_folder(root: Path) -> None:
    wrong = hint = ""
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            wrong = "not a folder"
        elif not os.access(root, os.R_OK | os.X_OK):
            wrong = "no permission to read the folder"
    except FileNotFoundError:
        wrong, hint = "no such folder", _near(root)
    except OSError as error:
        wrong = f"the folder cannot be read ({error.strerror})"
    if wrong:
        raise InputError(f"{root}: {wrong}.{hint} Expected {LAYOUT}.")


def _near(root: Path) -> str:
    """A question with the folder beside it that is called most like it; "" if none is."""
    try:
        beside = sorted(entry.name for entry in os.scandir(root.parent) if entry.is_dir())
    except OSError:
        return ""
    if drawn := re.fullmatch(r"worlds?[-_.]?(\d+|taught|replay)", root.name):
        return f" Did you mean world:{drawn[1]}?"
    return did_you_mean(root.name, [*beside, "digits"])


def _items(pictures: dict[str, ScannedFile], manifest: Dataset, layout: Layout, problems: Problems) -> tuple[Item, ...]:
    listed = {item.path: item for item in manifest.items}
    names = manifest.names()
    items: list[Item] = []
    unplaced: list[str] = []
    blank: list[str] = []
    for path, seen in pictures.items():
        split, class_id = layout.place(path)
        name = names.get(class_id, class_name(class_id))
        if path in listed:
            items.append(dataclasses.replace(listed[path], sha256=seen.sha256, pixels=seen.pixels))
        elif not class_id:
            unplaced.append(path)
        elif is_blank(name):
            blank.append(path)
        else:
            items.append(Item(path, path, class_id, name, seen.sha256, split, source_group(path), pixels=seen.pixels))
    _report_differences(pictures, manifest, problems)
    items = _without_incomplete_questions(items, manifest.root / MANIFEST, problems)
    if unplaced:
        problems.add(
            f"{manifest.root}: pictures left out because they lie in no class folder: {len(unplaced)} "
            f"({first_few(unplaced)}). Move them into one."
        )
    if blank:
        problems.add(
            f"{manifest.root}: pictures left out because the name of their class folder is blank: {len(blank)} "
            f"({first_few([repr(path) for path in blank])}). Rename the folder."
        )
    return tuple(items)


def _without_incomplete_questions(items: list[Item], file: Path, problems: Problems) -> list[Item]:
    """The items without the questions about pictures that are left out."""
    ids, removed = {item.id for item in items}, 0
    complete = []
    for item in items:
        questions = tuple(question for question in item.questions if ids.issuperset(question.others))
        removed += len(item.questions) - len(questions)
        complete.append(item if questions == item.questions else dataclasses.replace(item, questions=questions))
    if removed:
        problems.note(f"{file}: questions left out because one of their pictures is: {removed}.")
    return complete


def _report_differences(pictures: dict[str, ScannedFile], manifest: Dataset, problems: Problems) -> None:
    """Report the pictures of the manifest that are missing or have changed."""
    file = manifest.root / MANIFEST
    missing = [item.path for item in manifest.items if item.path not in pictures]
    if missing:
        problems.note(f"{file}: pictures left out of those it lists: {len(missing)} ({first_few(missing)}).")
    changed = [i.path for i in manifest.items if i.path in pictures and pictures[i.path].sha256 != i.sha256]
    if changed:
        problems.note(
            f"{file}: pictures that changed since they were listed, so that their facts may be wrong: "
            f"{len(changed)} ({first_few(changed)})."
        )
