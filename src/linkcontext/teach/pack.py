"""Concept packs: what a model was taught, in one file that can be kept, sent and asked.

A pack is a safetensors file with JSON in its header. It has the names, the hashes, places and thumbnails of the
pictures, what the model's eyes made of them, and the keys and values of the whole support: to ask costs the question
alone. Pictures themselves are not in it.

Of a pack from others only pictures and names are used: the model is taught anew from them (docs/security.md).
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from linkcontext.data.copies import disputed
from linkcontext.data.images import sha256
from linkcontext.data.layout import name_key, named, normal_name
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import SCAFFOLDS, Scaffold
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError, first_few
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.vision import CHECKED, ImageFeatures
from linkcontext.models import bundled
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.loading import Model
from linkcontext.records import to_json
from linkcontext.storage import read_errors, replacing, write_errors
from linkcontext.teach.learner import Learner, Point
from linkcontext.teach.pack_header import FORMAT, Header, TaughtTo, check_features, check_tensors, read_header
from linkcontext.teach.pack_seal import is_sealed, seal

log = logging.getLogger("linkcontext")
ELSEWHERE = "was written by another user or on another machine"


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack that was read. `sealed`: this user wrote it on this machine; `trusted`: the user gave --trust-pack.

    Of any other pack only its names and the pictures in its folder are used.
    """

    path: Path
    header: Header
    tensors: dict[str, Tensor]
    sealed: bool = False
    trusted: bool = False

    @property
    def believed(self) -> bool:
        """Whether what it says of its pictures is taken as true."""
        return self.sealed or self.trusted

    @property
    def model(self) -> str:
        """The name of the model that it was taught to."""
        return self.header.model.name

    def local_model(self) -> str:
        """The model to load if the user names none. Raises `InputError` for one that a pack from others chooses."""
        if self.believed or self.model in bundled.NAMES[1:]:
            return self.model
        raise InputError(
            f"{self.path}: {ELSEWHERE}, and says that it was taught to {self.model[:100]!r}, which is "
            "not one of the bundled models. If you want that model to be loaded, name it with --model."
        )

    @property
    def concepts(self) -> dict[str, list[str]]:
        """The contents (sha256) of each name's pictures."""
        return {name: list(items) for name, items in self.header.concepts.items()}

    @property
    def licence(self) -> str:
        """What the pack says of how it may be used."""
        return self.header.licence

    @property
    def keeps_state(self) -> bool:
        """Whether it has the support's keys and values."""
        return bool(self.header.held)

    @property
    def thumbnails(self) -> dict[str, bytes]:
        """A small PNG of each picture, by content."""
        return {item: self.tensors[f"thumbnail/{item}"].numpy().tobytes() for item in self.header.items}

    @property
    def point(self) -> Point | None:
        """When a picture is none of these."""
        return self.header.point

    def describe(self) -> list[str]:
        """What is in it, a line for each name."""
        header = self.header
        with read_errors(self.path):
            size = self.path.stat().st_size / 1e6
        held = "with the support's keys and values" if self.keeps_state else "without keys and values"
        shots = header.shots_per_class
        some = f", {shots} of each name ({header.select}) shown" if shots else ""
        return [
            f"{self.path}: {len(self.concepts)} names, {len(header.items)} pictures{some}; {size:.1f} MB, {held}",
            f"model: {self.model} ({header.model.identity[:12]})   licence: {self.licence or 'none given'}",
            *(f"  {name}: {len(items)} pictures" for name, items in self.concepts.items()),
            operating(self.point) if self.believed else f"It {ELSEWHERE}: only its pictures and names are used.",
        ]

    def learner(self, model: Model) -> Learner:
        """The model, taught what the pack has: restored, or taught anew from the pictures if the pack was made with
        another model or by somebody else.

        Raises `InputError` if the pictures are needed and are gone or have changed.
        """
        for name in self.concepts:
            refuse_marks(name, model.marks, f"{self.path}: the name {name!r}")
        header = self.header
        learner = Learner(model, self.wording, shots_per_class=header.shots_per_class, select=header.select)
        features = self._features()
        restored = self.believed and header.model.identity == model.identity and all(features.values())
        if not restored or learner.scorer.engine == "naive":
            paths = self.whole(model.name)
            learner.teach({name: [paths[item] for item in items] for name, items in self.concepts.items()})
            return learner
        learner.shown, learner.thumbnails, learner.pixels = self.concepts, self.thumbnails, dict(header.pixels)
        learner.scorer.sources |= {item: (item, path) for item, path in self.paths.items()}
        if not self.sealed:
            self._check_features(features, learner)
        learner.seen = {item: ImageFeatures.from_tensors(rows, model.device) for item, rows in features.items()}
        if self.sealed and (rows := _below(self.tensors, "held")):
            learner.held = PrefixCache.from_tensors(rows.pop("opening").numpy(), header.held, rows, model.network)
        if self.sealed and header.leaning:
            learner.leaning = list(header.leaning)
        return learner

    def _features(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of `ImageFeatures.to_tensors` for each picture; empty for pictures without features."""
        features: dict[str, dict[str, Tensor]] = {item: {} for item in self.header.items}
        for name, row in _below(self.tensors, "seen").items():
            item, _, part = name.partition("/")
            features[item][part] = row
        return features

    def _check_features(self, features: Mapping[str, Mapping[str, Tensor]], learner: Learner) -> None:
        """Raise `InputError` where the features of a trusted pack cannot be the model's."""
        learner.scorer.eyes.encode([(CHECKED[0], CHECKED[0], None)])
        other, model = learner.scorer.eyes.get(CHECKED[0]), learner.model
        vocabulary = model.network.get_input_embeddings().weight.shape[0]
        for item, rows in features.items():
            if wrong := check_features(rows, other, vocabulary, model.context):
                raise _damaged(self.path, f"the features of {item[:12]}: {wrong}")

    @property
    def paths(self) -> dict[str, Path]:
        """Where the pictures were, by content."""
        return {item: self._folder / self.header.paths[item] for item in self.header.items}

    @property
    def _folder(self) -> Path:
        return self.path.resolve().parent

    @property
    def wording(self) -> Scaffold:
        """What is said around the pictures."""
        scaffold = self.header.scaffold
        if not self.believed and scaffold not in SCAFFOLDS.values():
            raise InputError(
                f"{self.path}: {ELSEWHERE}, and has a scaffold of its own. Use --trust-pack if you "
                "trust its author, or teach its pictures anew with your own scaffold."
            )
        return scaffold

    def whole(self, model: str) -> dict[str, Path]:
        """The paths of the pictures by content, for a model that has to see them again.

        Raises `InputError` if a picture is gone, has changed, or is outside the folder of a pack from others.
        """
        paths = self.paths
        if not self.believed:
            outside = [str(path) for path in paths.values() if not path.resolve().is_relative_to(self._folder)]
            if outside:
                raise InputError(
                    f"{self.path}: {ELSEWHERE}, and {len(outside)} of its {len(paths)} pictures are not in its folder: "
                    f"{first_few(outside)}. Teach them anew, or use --trust-pack if you trust its author."
                )
        gone = [str(path) for item, path in paths.items() if not path.is_file() or sha256(path) != item]
        if gone:
            because = "was taught to another model" if self.believed else ELSEWHERE
            trust = "" if self.believed else " If you trust its author, --trust-pack uses what it says of them."
            raise InputError(
                f"{self.path}: {because}. To use it with {model} its pictures have to be read again, and {len(gone)} "
                f"of {len(paths)} are gone or have changed: {first_few(gone)}. Put them back.{trust}"
            )
        return paths


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Lock a pack from reading it to writing it, because of two changes at once one would be lost.

    Waits for another process that changes it. The lock is a hidden file beside the pack, which stays.
    """
    # One lock for all blocks of this process, so that nested blocks do not wait for each other.
    lock = FileLock(path.resolve().with_name(f".{path.name}.lock"), is_singleton=True)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: another process is changing it. Waiting for that one to end.", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_pack(learner: Learner, path: Path, licence: str = "", keep_state: bool = True, new: bool = False) -> Pack:
    """Write what a learner was shown; the file at `path` is replaced whole or left as it was.

    `keep_state` writes the keys and values too; without them the first question after opening costs the support. Raises
    `InputError` if it cannot be written and, with `new`, if there is something at `path` already.
    """
    if len(learner.shown) < 2:
        raise InputError(f"{path}: teach at least two names: with one there is nothing to choose.")
    held = learner.held if keep_state and learner.select != "rices" else None
    kept = _tensors(learner, held)
    text = to_json(_header(learner, path, licence, held))
    header = read_header(text, str(path))  # what could not be read is not written
    digest = fingerprint(kept, text)
    with changing(path):
        if new and path.exists():
            raise InputError(f"{path}: is there already. Choose another name, or remove it.")
        made = seal(digest)
        with replacing(path.resolve()) as file:
            save_file(kept, file, {"pack": text, "digest": digest, "seal": made})
    return Pack(path, header, kept, sealed=bool(made))


def _tensors(learner: Learner, held: PrefixCache | None) -> dict[str, Tensor]:
    """The tensors of a pack, as safetensors takes them: none shares its memory with another."""
    items = [item for items in learner.shown.values() for item in items]
    kept = {
        f"seen/{item}/{name}": row
        for item in items
        if item in learner.seen
        for name, row in learner.seen[item].to_tensors().items()
    }
    kept |= {
        f"thumbnail/{item}": torch.frombuffer(bytearray(learner.thumbnails[item]), dtype=torch.uint8) for item in items
    }
    if held is not None:
        kept |= {f"held/{name}": row for name, row in held.to_tensors().items()}
        kept["held/opening"] = torch.from_numpy(held.key)
    return {name: row.detach().cpu().clone(memory_format=torch.contiguous_format) for name, row in kept.items()}


def _header(learner: Learner, path: Path, licence: str, held: PrefixCache | None) -> Header:
    items = [item for items in learner.shown.values() for item in items]
    folder = path.resolve().parent
    return Header(
        format=FORMAT,
        model=TaughtTo(learner.model.name, learner.model.identity),
        scaffold=learner.scaffold,
        concepts={name: tuple(own) for name, own in learner.shown.items()},
        paths={item: _relative(learner.path(item), folder) for item in items},
        pixels={item: learner.pixels[item] for item in items},
        shots_per_class=learner.shots_per_class,
        select=learner.select,
        held=held.images if held is not None else (),
        leaning=tuple(learner.leaning),
        rounds=tuple((turn.item, turn.answer) for turn in learner.rounds),
        point=learner.point,
        licence=licence,
        versions={name: version(name) for name in ("linkcontext", "torch", "transformers")},
    )


def _relative(picture: Path, folder: Path) -> str:
    """A picture's path relative to a folder. Bytes that are not UTF-8 are written as escapes."""
    place = os.path.relpath(picture.parent.resolve() / picture.name, folder)
    return os.fsencode(place).decode(errors="backslashreplace")


def read_pack(path: Path, trust: bool = False) -> Pack:
    """A pack from its file; with `trust` its features are used whoever wrote it.

    Raises `InputError` for a file that is not a pack, is cut short or damaged, or has impossible content.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such pack. Write one with: linkcontext teach --data FOLDER --out {path}")
    try:
        with read_errors(path):
            size, free = path.stat().st_size, psutil.virtual_memory().available
            if size > free:
                raise InputError(f"{path}: has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free.")
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                kept = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    if "pack" not in metadata:
        raise InputError(f"{path}: a safetensors file, and no pack. Write one with linkcontext teach.")
    digest = fingerprint(kept, metadata["pack"])
    if metadata.get("digest") != digest:
        raise _damaged(path, "its content is not what was written")
    header = read_header(metadata["pack"], str(path))
    sealed = is_sealed(digest, metadata.get("seal", ""))
    if not sealed:
        check_tensors(kept, header, str(path))
    return Pack(path, header, kept, sealed, trust)


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
    """A data set's pictures by the names of their classes, without pictures filed under two classes.

    `names` chooses classes, each by its name or its folder's name.

    Raises `InputError` for a name that is not there, and for one that two classes share.
    """
    classes: dict[str, str] = {}
    found: dict[str, list[Path]] = {}
    contradicted = disputed(dataset.items)
    for item in dataset.items:
        if item.content in contradicted:
            continue
        if classes.setdefault(item.name, item.class_id) != item.class_id:
            raise InputError(
                f"{dataset.root}: {classes[item.name]} and {item.class_id} are both called {item.name!r}. Rename one."
            )
        found.setdefault(item.name, []).append(dataset.root / item.path)
    wanted = {
        given: next((name for name in (normal_name(given), named(given)) if name in found), "") for given in names
    }
    if unknown := [given for given, name in wanted.items() if not name]:
        raise InputError(f"--classes {unknown[0]}: not among the names of {dataset.root}: {first_few(sorted(found))}.")
    return {name: found[name] for name in (wanted.values() or found)}


def merge(learner: Learner, other: Learner) -> None:
    """Teach a learner what another of the same model was taught. Raises `InputError` for names or pictures of both."""
    here = {name_key(name) for name in learner.shown}
    if both := [name for name in other.shown if name_key(name) in here]:
        raise InputError(f"{first_few(both)}: taught in both. Rename one of them, or take it away, first.")
    named = {learner.pixels[item]: name for name, items in learner.shown.items() for item in items}
    for name, items in other.shown.items():
        if twice := [item for item in items if other.pixels[item] in named]:
            own = named[other.pixels[twice[0]]]
            raise InputError(f"{other.path(twice[0])}: is {own!r} here and {name!r} there. Take one away first.")
    learner.shown |= other.shown
    learner.seen |= other.seen
    learner.thumbnails |= other.thumbnails
    learner.pixels |= other.pixels
    learner.scorer.sources |= {
        item: source for item, source in other.scorer.sources.items() if item in other.thumbnails
    }


def _below(rows: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{folder}/"): row for name, row in rows.items() if name.startswith(f"{folder}/")}


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path}: no pack, or a damaged one ({why}). Copy it again, or teach it again.")
