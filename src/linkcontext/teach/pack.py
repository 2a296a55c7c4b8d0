"""Packs: what a learner was taught, saved in one file that can be kept, sent and asked.

A pack is a safetensors file with JSON in its header. It has the names, the hashes, paths and thumbnails of the
pictures, their features, and the KV cache of the support, so that a question costs only its own tokens. It does not
have the pictures themselves.

Of a pack that somebody else wrote only the pictures and names are used: the model is taught again from the picture
files (docs/security.md).
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil
from safetensors import SafetensorError, safe_open
from torch import Tensor

from linkcontext.config import HeadName
from linkcontext.data.images import sha256
from linkcontext.episodes.scaffold import SCAFFOLDS, Scaffold
from linkcontext.errors import InputError, counted, first_few
from linkcontext.models import bundled
from linkcontext.models.feature_store import fingerprint
from linkcontext.python_words import in_python_words
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.storage import read_errors
from linkcontext.teach.encoder import PictureEncoder, load_picture_encoder
from linkcontext.teach.learner import Learner
from linkcontext.teach.notebook import taught_html
from linkcontext.teach.pack_file import check_pack_file
from linkcontext.teach.pack_header import Header, read_header
from linkcontext.teach.pack_seal import is_sealed
from linkcontext.teach.pack_tensors import check_tensors
from linkcontext.teach.rejection import RejectionThreshold, describe_rejection

ELSEWHERE = "was written by another user or on another machine"
LISTED = 40  # names, at most, that a description lists


@dataclass(frozen=True, eq=False, repr=False)
class Pack:
    """A pack that was read. `sealed`: this user wrote it on this machine; `trust_pack`: the user gave --trust-pack."""

    path: Path
    header: Header = field(repr=False)
    tensors: dict[str, Tensor] = field(repr=False)
    sealed: bool = False
    trust_pack: bool = False

    def __repr__(self) -> str:
        """The file, the number of pictures of each name, and the model."""
        counts = {name: len(own) for name, own in self.concepts.items()}
        return f"Pack({str(self.path)!r}, {counts}, model={self.model!r})"

    def _repr_html_(self) -> str:
        """The pictures and a description, for a notebook."""
        small = self.thumbnails
        by_name = {name: [small[item] for item in own] for name, own in self.concepts.items()}
        return taught_html(self.path.name, by_name, self.describe())

    @classmethod
    def open(cls, path: str | Path, trust: bool = False) -> "Pack":
        """Read a pack; with `trust` its features are used whoever wrote it. Raises `InputError` as `read_pack`.

        >>> pack = linkcontext.Pack.open("zoo.pack")  # doctest: +SKIP
        >>> pack.learner(linkcontext.load(pack.model).model).ask("new.jpg").name  # doctest: +SKIP
        'zebra'
        """
        return read_pack(Path(path), trust)

    @classmethod
    @in_python_words
    def from_pretrained(
        cls, repo_id: str, *, revision: str | None = None, token: str | None = None, trust: bool = False
    ) -> "Pack":
        """Fetch the pack of a repository of the Hugging Face Hub; only its names and pictures count without `trust`.

        Raises `InputError` if there is none, if the hub cannot be reached, and as `open`.
        """
        from linkcontext.teach.pack_hub import fetch_pack  # noqa: PLC0415 - it reads packs

        return fetch_pack(repo_id, revision, token, trust)

    @in_python_words
    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        with_pictures: bool = False,
        token: str | None = None,
        message: str = "A pack of linkcontext",
    ) -> str:
        """Write the pack and a model card to a repository of the Hugging Face Hub; return the commit's address.

        Thumbnails and image features of all pictures become as public as the repository; the pictures themselves only
        `with_pictures`. Without them the pack works for its own model only, and for those who trust you.

        Raises `InputError` if the hub cannot be reached or refuses, and if pictures to be sent are gone.
        """
        from linkcontext.teach.pack_hub import push_pack  # noqa: PLC0415 - it reads packs

        return push_pack(self, repo_id, private, with_pictures, token, message)

    @property
    def trusted(self) -> bool:
        """Whether its features and computed values are used. Otherwise only its names and pictures are."""
        return self.sealed or self.trust_pack

    @property
    def model(self) -> str:
        """The name of the model that it was taught to."""
        return self.header.model.name

    def local_model(self) -> str:
        """The model to load if the user names none. Raises `InputError` if an untrusted pack would choose it."""
        if self.trusted or self.model in bundled.NAMES[1:]:
            return self.model
        raise InputError(
            f"{self.path}: {ELSEWHERE}, and its model {self.model[:100]!r} is not one of the bundled models. To load "
            "that model, name it with --model (in Python, model=...)."
        )

    @property
    def concepts(self) -> dict[str, list[str]]:
        """The ids (sha256) of the pictures of each class name."""
        return {name: list(items) for name, items in self.header.concepts.items()}

    @property
    def licence(self) -> str:
        """The terms under which the pack may be used, as its writer gave them; "" if none."""
        return self.header.licence

    @property
    def has_state(self) -> bool:
        """Whether it has the KV cache of the support."""
        return bool(self.header.held)

    @property
    def thumbnails(self) -> dict[str, bytes]:
        """A small PNG of each picture, by id."""
        return {item: self.tensors[f"thumbnail/{item}"].numpy().tobytes() for item in self.header.items}

    @property
    def head(self) -> HeadName:
        """What names pictures, as it was wanted when the pack was taught."""
        return self.header.head.wanted

    @property
    def rejection_threshold(self) -> RejectionThreshold | None:
        """The similarity below which a picture is "none of these"."""
        return self.header.point.threshold() if self.header.point is not None else None

    def describe(self) -> list[str]:
        """Lines about its content for users, one of them for each name."""
        header = self.header
        with read_errors(self.path):
            size = self.path.stat().st_size / 1e6
        state = "with the KV cache of the support" if self.has_state else "without the KV cache of the support"
        shots = header.shots_per_class
        shown = f", of which {shots} per name are shown ({header.select})" if shots else ""
        return [
            f"{self.path}: {counted(len(self.concepts), 'name')}, {counted(len(header.items), 'picture')}{shown}; "
            f"{size:.1f} MB, {state}",
            f"model: {self.model} ({header.model.identity[:12]})   licence: {self.licence or 'none given'}",
            *(f"  {name}: {counted(len(items), 'picture')}" for name, items in [*self.concepts.items()][:LISTED]),
            *([f"  and {len(self.concepts) - LISTED:,} more names"] if len(self.concepts) > LISTED else []),
            *([header.head.choice().describe()] if self.trusted else ()),
            describe_rejection(self.rejection_threshold, self.concepts)
            if self.trusted
            else f"It {ELSEWHERE}: only its pictures and names are used.",
        ]

    def encoder(self, given: PictureEncoder | None = None) -> PictureEncoder | None:
        """The other encoder of its vectors: the one that is given, or its own, loaded from this machine.

        Raises `InputError` if an untrusted pack would choose it, and if it cannot be loaded.
        """
        own = self.header.encoder
        if given is not None or own is None:
            return given
        if self.trusted or own.name == "mini-clip":
            return load_picture_encoder(own.name, download=False)
        raise InputError(
            f"{self.path}: {ELSEWHERE}, and its encoder {own.name[:100]!r} is not a bundled model. To load that "
            "encoder, name it with --encoder (in Python, load it and give it to Pack.learner)."
        )

    def learner(self, model: ScoringModel, encoder: PictureEncoder | None = None) -> Learner:
        """A learner of `model` with everything the pack taught; `encoder` is used instead of the pack's own.

        Its state is restored if the pack is trusted and was taught to the same weights; otherwise the model is taught
        again from the picture files. A model behind a server is shown the pictures that the pack chose.

        Raises `InputError` if the files are needed and are missing or have changed, and for a model behind a server if
        an untrusted pack shows only some of its pictures.
        """
        from linkcontext.teach.pack_learner import learner_of_pack  # noqa: PLC0415 - it reads packs

        return learner_of_pack(self, model, encoder)

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The paths of the pictures when they were taught, by id; none of a picture that was given without a file."""
        folder = self.path.resolve().parent
        return {item: folder / path for item, path in self.header.paths.items()}

    @property
    def scaffold(self) -> Scaffold:
        """The wording around the pictures. Raises `InputError` if an untrusted pack has one of its own."""
        scaffold = self.header.scaffold
        if not self.trusted and scaffold not in SCAFFOLDS.values():
            raise InputError(
                f"{self.path}: {ELSEWHERE}, and has a scaffold of its own. If you trust its author, use --trust-pack "
                "(in Python, trust=True), or teach its pictures again with your own scaffold."
            )
        return scaffold

    def existing_pictures(self, model: str) -> dict[str, Path]:
        """The paths of the picture files by id, for a model that must be taught again.

        Raises `InputError` if a picture is missing, has changed, was taught without a file, or is outside the folder of
        an untrusted pack.
        """
        paths = self.paths
        if not self.trusted:
            folder = self.path.resolve().parent
            outside = [str(path) for path in paths.values() if not path.resolve().is_relative_to(folder)]
            if outside:
                raise InputError(
                    f"{self.path}: {ELSEWHERE}, and {len(outside)} of its {len(paths)} pictures are not in its folder: "
                    f"{first_few(outside)}. Teach them again or, if you trust its author, use --trust-pack (in Python, "
                    "trust=True)."
                )
        gone = [str(path) for item, path in paths.items() if not path.is_file() or sha256(path) != item]
        lost = len(self.header.items) - len(paths)
        if gone or lost:
            reason = "was taught to another model" if self.trusted else ELSEWHERE
            trust = (
                ""
                if self.trusted
                else " If you trust its author, --trust-pack (in Python, trust=True) uses the features in the pack."
            )
            what = (
                f"{len(gone)} of {len(paths)} are gone or have changed: {first_few(gone)}. Put them back."
                if gone
                else f"{lost} of {len(self.header.items)} were taught without a file. Teach them again."
            )
            raise InputError(
                f"{self.path}: {reason}. To use it with {model}, its pictures have to be read again, and {what}{trust}"
            )
        return paths


def read_pack(path: Path, trust: bool = False) -> Pack:
    """Read a pack; with `trust` its features are used whoever wrote it.

    Raises `InputError` for a file that is not a pack, is incomplete or damaged, has another format than this version
    writes, or has impossible content.
    """
    check_pack_file(path)
    try:
        with read_errors(path):
            size, free = path.stat().st_size, psutil.virtual_memory().available
            if size > free:
                raise InputError(f"{path}: has {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of memory are free.")
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                rows = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise damaged_pack(path, str(error)) from error
    if "pack" not in metadata:
        raise InputError(f"{path}: is a safetensors file, but not a pack. Write one with: linkcontext teach")
    digest = fingerprint(rows, metadata["pack"])
    if metadata.get("digest") != digest:
        raise damaged_pack(path, "its content is not what was written")
    header = read_header(metadata["pack"], str(path))
    sealed = is_sealed(digest, metadata.get("seal", ""))
    if not sealed:
        check_tensors(rows, header.items, str(path))
    return Pack(path, header, rows, sealed, trust)


def damaged_pack(path: Path, why: str) -> InputError:
    """The error for a file that is no pack, or whose content cannot be right."""
    return InputError(f"{path}: not a pack, or damaged ({why}). Copy or teach it again, or give another file.")
