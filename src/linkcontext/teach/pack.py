"""Concept packs: what a model was taught, in one file that can be kept, sent and asked.

A pack is a safetensors file with JSON in its header. It has the names, the hashes, places and thumbnails of the
pictures, what the model's eyes made of them, and the keys and values of the whole support: to ask costs the question
alone. Pictures themselves are not in it.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from linkcontext.config import Select
from linkcontext.data.images import sha256
from linkcontext.data.manifest import Dataset, first_few
from linkcontext.episodes.marks import refuse_marks
from linkcontext.episodes.prompt import Scaffold
from linkcontext.errors import InputError
from linkcontext.models import engine
from linkcontext.models.features import fingerprint
from linkcontext.models.load import Model
from linkcontext.models.vision import revived, tensors
from linkcontext.records import from_dict
from linkcontext.teach.learner import Learner, Point, checked

FORMAT = "linkcontext.pack/1"
PARTS = (
    "format",
    "held",
    "point",
    "rounds",
    "model",
    "scaffold",
    "concepts",
    "paths",
    "shots_per_class",
    "select",
    "leaning",
    "licence",
    "versions",
)


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack that was read: `told` is its JSON, `tensors` are as they were written."""

    path: Path
    told: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def model(self) -> str:
        """The model it was taught to, as --model has it."""
        return str(self.told["model"]["name"])

    @property
    def concepts(self) -> dict[str, list[str]]:
        """The contents (sha256) of each name's pictures."""
        return {str(name): list(items) for name, items in self.told["concepts"].items()}

    @property
    def licence(self) -> str:
        """What the pack says of how it may be used."""
        return str(self.told["licence"])

    @property
    def thumbnails(self) -> dict[str, bytes]:
        """A small PNG of each picture, by content."""
        return {item: self.tensors[f"thumbnail/{item}"].numpy().tobytes() for item in self._items}

    @property
    def point(self) -> Point | None:
        """When a picture is none of these."""
        return Point(**self.told["point"]) if self.told["point"] else None

    def describe(self) -> list[str]:
        """What is in it, a line for each name."""
        told = self.told
        size = self.path.stat().st_size / 1e6
        held = "with the support's keys and values" if told["held"] else "without keys and values"
        some = f", {told['shots_per_class']} of each name ({told['select']}) shown" if told["shots_per_class"] else ""
        return [
            f"{self.path}: {len(self.concepts)} names, {len(self._items)} pictures{some}; {size:.1f} MB, {held}",
            f"model: {self.model} ({told['model']['identity'][:12]})   licence: {self.licence or 'none given'}",
            *(f"  {name}: {len(items)} pictures" for name, items in self.concepts.items()),
            operating(self.point),
        ]

    @property
    def _items(self) -> list[str]:
        return [item for items in self.concepts.values() for item in items]

    def learner(self, model: Model) -> Learner:
        """A model that was taught this. Another than the pack's is taught anew from the pictures.

        Raises `InputError` where those are needed and are gone or have changed.
        """
        told = self.told
        found = Learner(model, self.wording, shots_per_class=told["shots_per_class"], select=told["select"])
        paths = self.paths
        for name in self.concepts:
            refuse_marks(name, model.marks, f"{self.path}: the name {name!r}")
        if told["model"]["identity"] != model.identity:
            self.whole(model.name)
            found.teach({name: [paths[item] for item in items] for name, items in self.concepts.items()})
            return found
        found.shown, found.thumbnails = self.concepts, self.thumbnails
        found.scorer.sources |= {item: (item, path) for item, path in paths.items()}
        if found.scorer.engine == "naive":
            self.whole(model.name)
            return found
        try:
            found.seen = {item: revived(_below(self.tensors, f"seen/{item}"), model.device) for item in self._items}
            if rows := _below(self.tensors, "held"):
                opening = rows.pop("opening").numpy()
                found.held = engine.revived(opening, tuple(told["held"]), rows, model.network)
            if told["leaning"]:
                found.leaning = [float(value) for value in told["leaning"]]
        except (KeyError, TypeError, RuntimeError) as error:
            raise _damaged(self.path, f"{error} does not fit") from error
        return found

    @property
    def paths(self) -> dict[str, Path]:
        """Where the pictures were, by content."""
        return {item: self.path.parent / self.told["paths"][item] for item in self._items}

    @property
    def wording(self) -> Scaffold:
        """What is said around the pictures."""
        return from_dict(Scaffold, self.told["scaffold"], str(self.path))

    def whole(self, model: str) -> None:
        """Make sure that the pictures are there and what they were, for a model that has to see them again."""
        paths = self.paths
        gone = [str(path) for item, path in paths.items() if not path.is_file() or sha256(path) != item]
        if gone:
            raise InputError(
                f"{self.path}: was taught to {self.model} as it was then. To use it with {model} its pictures "
                f"have to be read again, and {len(gone)} of {len(paths)} are gone or have changed: {first_few(gone)}. "
                "Put them back, or use the model that it was taught to."
            )


def write_pack(learner: Learner, path: Path, licence: str = "", keep_state: bool = True) -> Pack:
    """Write what a learner was shown, beside `path`, then rename. Raises `InputError` where it cannot be written.

    `keep_state` writes the keys and values too; without them the first question after opening costs the support.
    """
    if len(learner.shown) < 2:
        raise InputError(f"{path}: teach at least two names: with one there is nothing to choose.")
    items = [item for items in learner.shown.values() for item in items]
    kept = {
        f"seen/{item}/{name}": row
        for item in items
        if item in learner.seen
        for name, row in tensors(learner.seen[item]).items()
    }
    kept |= {
        f"thumbnail/{item}": torch.frombuffer(bytearray(learner.thumbnails[item]), dtype=torch.uint8) for item in items
    }
    held = learner.held if keep_state and learner.select != "rices" else None
    if held is not None:
        kept |= {f"held/{name}": row for name, row in engine.kept_rows(held).items()}
        kept["held/opening"] = torch.from_numpy(held.opening)
    told = {
        "format": FORMAT,
        "model": {"name": learner.model.name, "identity": learner.model.identity},
        "scaffold": dataclasses.asdict(learner.scaffold),
        "concepts": learner.shown,
        "paths": {item: os.path.relpath(learner.path(item), path.parent) for item in items},
        "shots_per_class": learner.shots_per_class,
        "select": learner.select,
        "held": list(held.pictures) if held is not None else [],
        "leaning": learner.leaning if learner.select != "rices" else [],
        "rounds": [[turn.item, turn.answer] for turn in learner.rounds],
        "point": dataclasses.asdict(learner.point) if learner.point is not None else None,
        "licence": licence,
        "versions": {name: version(name) for name in ("linkcontext", "torch", "transformers")},
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    kept = {name: row.detach().cpu().clone(memory_format=torch.contiguous_format) for name, row in kept.items()}
    text = json.dumps(told, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(kept, beside, {"pack": text, "digest": fingerprint(kept, text)})
        beside.chmod(0o644)  # safetensors writes for the owner alone, and packs are made to be passed on
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: could not be written ({error}). Free some space or choose another --out.") from error
    finally:
        beside.unlink(missing_ok=True)
    return Pack(path, json.loads(text), kept)


def read_pack(path: Path) -> Pack:
    """A pack from its file. Raises `InputError` for what is none, is cut short, or is not what was written."""
    if not path.is_file():
        raise InputError(f"{path}: no such pack. Write one with: linkcontext teach --data FOLDER --out {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            kept = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    if "pack" not in header:
        raise InputError(f"{path}: a safetensors file, and no pack. Write one with linkcontext teach.")
    if header.get("digest") != fingerprint(kept, header["pack"]):
        raise _damaged(path, "its content is not what was written")
    try:
        told = json.loads(header["pack"])
        _check(told)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a forged file says anything
        raise _damaged(path, str(error) or type(error).__name__) from error
    return Pack(path, told, kept)


def _check(told: Any) -> None:
    """Raise where a pack's JSON is not what this version writes: whoever sends a pack may have written it."""
    if told["format"] != FORMAT:
        raise ValueError(f"format {told['format']}, and {FORMAT} is read")
    if missing := [part for part in PARTS if part not in told]:
        raise ValueError(f"no {', '.join(missing)}")
    items = [item for name, items in told["concepts"].items() if checked(name) for item in items]
    shots = told["shots_per_class"]
    if not all(re.fullmatch("[0-9a-f]{64}", item) and isinstance(told["paths"][item], str) for item in items):
        raise ValueError("its pictures are not known by their content")
    if len(set(items)) < len(items) or not (shots is None or (isinstance(shots, int) and shots > 0)):
        raise ValueError("what is shown contradicts itself")
    if told["select"] not in get_args(Select):
        raise ValueError(f"select {told['select']}")


def operating(point: Point | None) -> str:
    """The sentence about when a picture is none of these."""
    if point is None:
        return (
            "none of these: never said. It takes 20 pictures, two of each name, and a model with features of pictures, "
            "to learn when a picture is like none of them."
        )
    return (
        f"none of these: said below a likeness of {point.fit:.3f}. Of the {point.pictures} pictures, each left out in "
        f"turn, {point.kept:.0%} are above; {point.refused:.0%} are below where their whole name is left out."
    )


def named_pictures(dataset: Dataset, names: Sequence[str] = ()) -> dict[str, list[Path]]:
    """A data set's pictures by the names of their classes, or of some.

    Raises `InputError` for a name that is not there, and for one that two classes share.
    """
    classes: dict[str, str] = {}
    found: dict[str, list[Path]] = {}
    for item in dataset.items:
        if classes.setdefault(item.name, item.class_id) != item.class_id:
            raise InputError(
                f"{dataset.root}: {classes[item.name]} and {item.class_id} are both called {item.name!r}. Rename one."
            )
        found.setdefault(item.name, []).append(dataset.root / item.path)
    if unknown := [name for name in names if name not in found]:
        raise InputError(f"--classes {unknown[0]}: not among the names of {dataset.root}: {first_few(sorted(found))}.")
    return {name: found[name] for name in names or found}


def merge(learner: Learner, other: Learner) -> None:
    """Teach a learner what another of the same model was taught. Raises `InputError` for names or pictures of both."""
    here = {name.casefold(): name for name in learner.shown}
    if both := [name for name in other.shown if name.casefold() in here]:
        raise InputError(f"{first_few(both)}: taught in both. Rename one of them, or take it away, first.")
    named = {item: name for name, items in learner.shown.items() for item in items}
    for name, items in other.shown.items():
        if twice := [item for item in items if item in named]:
            raise InputError(
                f"{other.path(twice[0])}: is {named[twice[0]]!r} here and {name!r} there. Take one away first."
            )
    learner.shown |= other.shown
    learner.seen |= other.seen
    learner.thumbnails |= other.thumbnails
    learner.scorer.sources |= {
        item: source for item, source in other.scorer.sources.items() if item in other.thumbnails
    }


def _below(rows: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{folder}/"): row for name, row in rows.items() if name.startswith(f"{folder}/")}


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path}: no pack, or a damaged one ({why}). Copy it again, or teach it again.")
