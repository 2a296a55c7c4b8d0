"""The pictures that a learner was taught, with everything that is kept about them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linkcontext.data.images import hash_pixels, sha256
from linkcontext.data.layout import name_key, normal_name
from linkcontext.errors import InputError, first_few
from linkcontext.evaluation.picture_vectors import PictureVectors, kinds_of, rows_of_kind
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.python_words import did_you_mean
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.given_pictures import Source
from linkcontext.teach.names import canonical_name
from linkcontext.teach.similarity import best_similarity_kind


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture as it is given to be taught: its name, its file, and the hash of its decoded pixels."""

    name: str
    path: Source
    pixel_hash: str


@dataclass(repr=False)
class TaughtPictures:
    """Taught pictures by class name. The id of a picture is the sha256 of the first file in which it was taught.

    The same pixels in another file are the same picture. `features` is empty on the reference engine, which runs whole
    prompts, and `vectors` too, unless another encoder made them; all other mappings have an entry for every picture.
    """

    by_name: dict[str, list[str]] = field(default_factory=dict)
    # Where its file was when it was taught, or the picture itself where it was given without a file.
    paths: dict[str, Source] = field(default_factory=dict, repr=False)
    pixel_hashes: dict[str, str] = field(default_factory=dict, repr=False)
    thumbnails: dict[str, bytes] = field(default_factory=dict, repr=False)  # PNG
    features: dict[str, ImageFeatures] = field(default_factory=dict, repr=False)
    vectors: dict[str, PictureVectors] = field(default_factory=dict, repr=False)
    _rows: dict[tuple[tuple[str, ...], ...], dict[str, Tensor]] = field(default_factory=dict, init=False, repr=False)
    _similarity_kind: dict[tuple[tuple[str, ...], ...], str] = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        """The number of pictures of each name."""
        counts = {name: len(own) for name, own in self.by_name.items()}
        return f"TaughtPictures({counts})"

    @property
    def names(self) -> list[str]:
        """The taught names, in the order in which they were taught."""
        return list(self.by_name)

    @property
    def ids(self) -> list[str]:
        """The ids of all pictures, name by name."""
        return [picture for pictures in self.by_name.values() for picture in pictures]

    @property
    def key(self) -> tuple[tuple[str, ...], ...]:
        """A hashable key of the names and their pictures, for values that are computed from them."""
        return tuple((name, *pictures) for name, pictures in self.by_name.items())

    def copy(self) -> "TaughtPictures":
        """An independent copy, to return to if a later step fails."""
        by_name = {name: list(pictures) for name, pictures in self.by_name.items()}
        copies = (dict(self.paths), dict(self.pixel_hashes), dict(self.thumbnails))
        return TaughtPictures(by_name, *copies, dict(self.features), dict(self.vectors))

    def name_of(self, picture: str) -> str | None:
        """The name under which a picture was taught, or None."""
        return next((name for name, pictures in self.by_name.items() if picture in pictures), None)

    def id_of(self, path: Source) -> str:
        """The id of the picture in a file: that of the same picture if it was taught, else the file's sha256."""
        digest, pixel_hash = sha256(path), hash_pixels(path)
        return next((picture for picture, known in self.pixel_hashes.items() if known == pixel_hash), digest)

    def known_name(self, given: str) -> str | None:
        """A taught name in its canonical form, or None. It may be given as its folder is called: `sign_5`."""
        forms = canonical_name(given), normal_name(given.replace("_", " "))
        return next((name for name in forms if name in self.by_name), None)

    def taught_name(self, given: str) -> str:
        """`known_name`. Raises `InputError` if it was not taught."""
        if (name := self.known_name(given)) is not None:
            return name
        name = canonical_name(given)
        hint = did_you_mean(name, self.by_name)
        raise InputError(f"{name!r} was not taught.{hint} The names are: {', '.join(self.by_name) or 'none yet'}.")

    def identify(self, named: Iterable[tuple[str, Sequence[Source]]]) -> dict[str, PictureFile]:
        """Hash the files of named pictures and return them by picture id; nothing is changed.

        A picture that was taught before keeps its path, unless the file is the same. Raises `InputError` for a name
        without pictures, an unreadable file, and a picture under two names.
        """
        ids = {pixel_hash: picture for picture, pixel_hash in self.pixel_hashes.items()}
        names: dict[str, tuple[str, str]] = {}  # picture id -> name, hash of the pixels
        files: dict[str, Source] = {}
        for name, paths in named:
            if not paths:
                raise InputError(f"{name!r}: has no pictures. Give at least one picture.")
            for path in paths:
                digest, pixel_hash = sha256(path), hash_pixels(path)
                picture = ids.setdefault(pixel_hash, digest)
                if picture == digest:
                    files.setdefault(picture, path)
                first_name, _ = names.setdefault(picture, (name, pixel_hash))
                if first_name != name:
                    first = files.get(picture) or self.paths[picture]
                    where = f" (in {first})" if first != path else ""
                    raise InputError(
                        f"{path}: has the name {first_name!r}{where} and the name {name!r}. Give it one name."
                    )
        return {
            picture: PictureFile(name, files.get(picture) or self.paths[picture], pixel_hash)
            for picture, (name, pixel_hash) in names.items()
        }

    def add(self, files: Mapping[str, PictureFile]) -> None:
        """Add pictures under their names; one that had another name moves to the new one."""
        self.paths |= {picture: file.path for picture, file in files.items()}
        self.pixel_hashes |= {picture: file.pixel_hash for picture, file in files.items()}
        for name, pictures in list(self.by_name.items()):
            self.by_name[name] = [one for one in pictures if one not in files or files[one].name == name]
        for picture, file in files.items():
            pictures = self.by_name.setdefault(file.name, [])
            if picture not in pictures:
                pictures.append(picture)
        self.by_name = {name: pictures for name, pictures in self.by_name.items() if pictures}

    def forget(self, name: str) -> None:
        """Remove a name and its pictures. Raises `InputError` if the name was not taught."""
        for picture in self.by_name.pop(self.taught_name(name)):
            for kept in (self.paths, self.pixel_hashes, self.thumbnails, self.features, self.vectors):
                kept.pop(picture, None)

    def register(self, model: ScoringModel) -> None:
        """Give a model the features of all pictures, whose files may be gone."""
        model.sources |= {
            picture: (picture, path) for picture, path in self.paths.items() if picture not in model.sources
        }
        for picture, features in self.features.items():
            model.pictures.pin(picture, features)

    def rename(self, old: str, new: str) -> None:
        """Give a taught name another, canonical, name in the same place. A taught one gets the pictures of both."""
        if new in self.by_name and new != old:
            self.by_name[new] = [*self.by_name[new], *self.by_name.pop(old)]  # another learner may share the list
        self.by_name = {new if name == old else name: pictures for name, pictures in self.by_name.items()}

    def merge(self, other: "TaughtPictures") -> None:
        """Add everything that another learner of the same model was taught.

        Raises `InputError`, and changes nothing, if a name or a picture is in both.
        """
        keys = {name_key(name) for name in self.by_name}
        if both := [name for name in other.by_name if name_key(name) in keys]:
            raise InputError(
                f"{first_few(both)}: taught in both packs. Rename them in one of them first (`linkcontext pack PACK "
                "--rename OLD NEW`), or remove them."
            )
        names = {self.pixel_hashes[picture]: name for name, own in self.by_name.items() for picture in own}
        for name, pictures in other.by_name.items():
            if twice := [picture for picture in pictures if other.pixel_hashes[picture] in names]:
                own = names[other.pixel_hashes[twice[0]]]
                raise InputError(f"{other.paths[twice[0]]}: is {own!r} here and {name!r} there. Remove one first.")
        self.by_name |= other.by_name
        self.paths |= other.paths
        self.pixel_hashes |= other.pixel_hashes
        self.thumbnails |= other.thumbnails
        self.features |= other.features
        self.vectors |= other.vectors

    @property
    def labels(self) -> list[int]:
        """For each picture of `ids`, the place of its name."""
        return [place for place, own in enumerate(self.by_name.values()) for _ in own]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of vectors that all pictures have; see `picture_vectors.KINDS`."""
        return kinds_of(self.vectors[picture] for picture in self.ids if picture in self.vectors)

    def rows(self, kind: str, pictures: Sequence[str] | None = None) -> Tensor:
        """float32[n, 1 + views, width]: the vectors of taught pictures (default: all) and of their changed copies."""
        if pictures is not None:
            return torch.stack([rows_of_kind(self.vectors[one], kind) for one in pictures])
        if self.key not in self._rows:  # put together once, not for every question
            self._rows = {self.key: {}}
        kept = self._rows[self.key]
        if kind not in kept:
            kept[kind] = self.rows(kind, self.ids)
        return kept[kind]

    @property
    def similarity_kind(self) -> str:
        """The kind of vectors by which pictures are compared: the one that tells taught names from others best."""
        if self.key not in self._similarity_kind:
            rows = {kind: self.rows(kind) for kind in self.kinds}
            self._similarity_kind = {self.key: best_similarity_kind(rows, self.labels)}
        return self._similarity_kind[self.key]
