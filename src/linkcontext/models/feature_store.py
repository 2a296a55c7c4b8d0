"""Image features on disk: safetensors shards, in a folder for each encoder. The least recently used are evicted."""

import hashlib
import json
import logging
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from stat import S_ISREG
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from linkcontext.errors import InputError
from linkcontext.storage import Unwritten, cache_dir, remove_leftovers, replacing, write_errors

log = logging.getLogger("linkcontext")
GIB = 2**30
SHARDS = 64  # files of one encoder that open quickly; more are merged
MERGED = 16  # a merged file is at most a 16th of the limit, because it is evicted whole and read into memory
PATIENCE = 30  # seconds to wait for another process that evicts and merges
FILES = "[0-9a-f]" * 64 + "/*"  # below the root; no other file there is counted or removed


@dataclass(frozen=True, slots=True)
class Shard:
    """An open file. One that cannot be used or is gone has no names."""

    file: Any = None
    metadata: Mapping[str, str] = field(
        default_factory=dict
    )  # namespace, and the fingerprint of each picture's tensors
    names: Mapping[str, list[str]] = field(default_factory=dict)  # picture -> its tensors, each "<picture>/<name>"


@dataclass
class FeatureStore:
    """The features of one encoder. `folder` is named by the encoder's fingerprint. Not thread-safe."""

    folder: Path
    limit: int = 2 * GIB  # bytes, of all encoders together; 0 writes nothing
    _shards: dict[Path, Shard] = field(default_factory=dict, init=False, repr=False)
    _touched: set[Path] = field(default_factory=set, init=False, repr=False)
    _writable: bool = field(default=True, init=False, repr=False)

    @classmethod
    def of(cls, namespace: str) -> "FeatureStore":
        """The store of the encoder with this fingerprint. Raises `InputError` like `limit`."""
        assert re.fullmatch("[0-9a-f]{64}", namespace), namespace
        return cls(root() / namespace, limit())

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
        """The tensors, on the CPU, of those images that are in the store, exactly as they were written."""
        missing, rows = set(keys), dict[str, dict[str, Tensor]]()
        while True:
            for path, shard in list(self._shards.items()):
                if here := missing & shard.names.keys():
                    rows |= self._read(path, here)
                    missing -= rows.keys()
                    if path not in self._touched:
                        self._touched.add(path)
                        with suppress(OSError):  # gone by now, or in a folder that may only be read
                            os.utime(path)
            if not missing or not self._refresh():  # another process may have written, or merged the shard
                return rows

    def put(self, features: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write the features of images into a new shard. If the disk refuses, warn once and write no more."""
        if not features or not self.limit or not self._writable:
            return
        try:
            with write_errors(self.folder, "Free some space, or choose another folder with LINKCONTEXT_CACHE."):
                own = self._write(features)
                with suppress(Timeout), FileLock(self.folder.parent / ".lock", timeout=PATIENCE):
                    remove_leftovers(self.folder)
                    self._evict(own)
                    self._merge(own)
        except Unwritten as error:
            self._writable = False
            log.warning("%s Until then every run computes the features of its pictures again.", error)

    def _refresh(self) -> bool:
        """Open new shards and forget those that are gone. Returns whether anything changed."""
        listing = set(self.folder.glob("*.safetensors"))
        if listing == self._shards.keys():
            return False
        self._shards = {path: self._shards.get(path) or self._open(path) for path in sorted(listing)}
        return True

    def _open(self, path: Path) -> Shard:
        """Read a shard's header."""
        try:
            file: Any = safe_open(path, framework="pt")
            metadata = file.metadata() or {}
        except (OSError, RuntimeError) as error:
            if path.exists():  # otherwise another process evicted or merged it since it was listed
                log.warning("%s: cannot be read (%s). Delete it, or correct its permissions.", path, error)
            return Shard()
        except SafetensorError as error:
            return _removed(path, str(error))
        if metadata.get("namespace") != self.folder.name:
            return _removed(path, "it was not written for this encoder")
        names: dict[str, list[str]] = {}
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            names.setdefault(name.partition("/")[0], []).append(name)
        return Shard(file, metadata, names)

    def _read(self, path: Path, keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
        """The features of images in a shard, up to the first one whose bytes have changed."""
        shard, rows = self._shards[path], dict[str, dict[str, Tensor]]()
        for key in keys:
            # Copied, because a tensor from the file is a view of it and keeps its space on the disk.
            row = {name.partition("/")[2]: shard.file.get_tensor(name).clone() for name in shard.names[key]}
            if shard.metadata.get(key) != fingerprint(row, key):
                self._shards[path] = _removed(path, "its bytes have changed")
                break
            rows[key] = row
        return rows

    def _write(self, features: Mapping[str, Mapping[str, Tensor]]) -> Path:
        """Write a shard atomically. Returns its path."""
        tensors = {  # copied, since safetensors takes neither strided tensors nor two of one memory
            f"{key}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, row in features.items()
            for name, tensor in row.items()
        }
        metadata = {"namespace": self.folder.name} | {key: fingerprint(row, key) for key, row in features.items()}
        path = self.folder / f"{os.getpid()}-{secrets.token_hex(8)}.safetensors"
        with replacing(path) as new:
            save_file(tensors, new, metadata)
        return path

    def _evict(self, own: Path) -> None:
        """Remove the least recently used files until the rest is within the limit, `own` last."""
        files = _files(self.folder.parent.glob(FILES))
        over = sum(size for _, size, _ in files) - self.limit
        for _, size, path in sorted(files, key=lambda file: file[2] == own):
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= size

    def _merge(self, own: Path) -> None:
        """If there are too many shards, merge the smallest into one. `own` stays as it is."""
        if len(list(self.folder.glob("*.safetensors"))) <= SHARDS:
            return
        self._refresh()
        files = _files(path for path, shard in self._shards.items() if shard.names and path != own)
        files.sort(key=lambda file: file[1])
        sums = accumulate(size for _, size, _ in files)
        pack = [file for file, total in zip(files, sums, strict=True) if total <= self.limit // MERGED]
        if len(pack) < 2:
            return
        rows: dict[str, dict[str, Tensor]] = {}
        for _, _, path in pack:
            rows |= self._read(path, self._shards[path].names)
        merged, used = self._write(rows), max(used for used, _, _ in pack)
        os.utime(merged, (used, used))  # merging does not count as use
        for _, _, path in pack:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store holds for one encoder."""

    namespace: str
    pictures: int
    bytes: int
    used: float  # when it was last used, in seconds since 1970


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What the store holds for all encoders; `limit` is in bytes."""

    rows: tuple[Usage, ...]
    limit: int

    @property
    def pictures(self) -> int:
        """The number of images; one counts once for each encoder."""
        return sum(row.pictures for row in self.rows)

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(row.bytes for row in self.rows)


def root() -> Path:
    """The folder with the features of all encoders."""
    return cache_dir() / "features"


def limit() -> int:
    """The most bytes for all features. Raises `InputError` if the environment variable is not a size."""
    size = os.environ.get("LINKCONTEXT_FEATURE_CACHE_GB") or "2"
    with suppress(ValueError):
        if 0 <= float(size) < math.inf:
            return int(float(size) * GIB)
    raise InputError(
        f"LINKCONTEXT_FEATURE_CACHE_GB={size}: not a size. Give the gigabytes that picture features may take on the "
        "disk, like 2 or 0.5; 0 writes none."
    )


def info(folder: Path) -> StoreInfo:
    """What the store in `folder` holds. Removes damaged shards. Raises `InputError` like `limit`."""
    rows: list[Usage] = []
    for place in sorted({path.parent for _, _, path in _files(folder.glob(FILES))}):
        store = FeatureStore(place)
        store._refresh()
        pictures = len({key for shard in store._shards.values() for key in shard.names})
        if files := _files(place.glob("*")):
            rows.append(Usage(place.name, pictures, sum(size for _, size, _ in files), files[-1][0]))
    return StoreInfo(tuple(rows), limit())


def clear(folder: Path) -> int:
    """Remove all features in `folder`. Returns the bytes freed. Raises `InputError` if a file cannot be removed."""
    files = _files(folder.glob(FILES))
    for _, _, path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be removed ({error.strerror}). Correct the folder's permissions."
            ) from error
    return sum(size for _, size, _ in files)


def fingerprint(tensors: Mapping[str, Tensor], description: str) -> str:
    """A digest (64 hex digits) of the tensors' names, dtypes, shapes and bytes, whatever their order, and of a text."""
    rows = sorted(tensors.items())
    head = [description, [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in rows]]
    digest = hashlib.sha256(json.dumps(head).encode())
    for _, tensor in rows:
        # As bytes, since numpy has no bfloat16; a contiguous tensor on the CPU is not copied.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files(paths: Iterable[Path]) -> list[tuple[float, int, Path]]:
    """For each file that exists when it was last used, its bytes and its path, the least recently used first."""
    files = []
    for path in paths:
        with suppress(FileNotFoundError):
            stat = path.stat()
            if S_ISREG(stat.st_mode):
                files.append((stat.st_mtime, stat.st_size, path))
    return sorted(files)


def _removed(path: Path, reason: str) -> Shard:
    log.warning(
        "%s: this cache file is not used (%s); its pictures are encoded again. Delete it if it is still there.",
        path,
        reason,
    )
    with suppress(OSError):
        path.unlink(missing_ok=True)
    return Shard()
