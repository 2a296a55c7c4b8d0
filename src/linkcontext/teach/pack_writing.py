"""Write packs: one process changes a pack at a time, and a pack is replaced as a whole or stays as it was."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import save_file

from linkcontext.data.images import Upload
from linkcontext.errors import InputError
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.jsonl import to_json
from linkcontext.models.feature_store import fingerprint
from linkcontext.scoring.protocol import require
from linkcontext.storage import replacing, write_errors
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import Pack
from linkcontext.teach.pack_file import check_new_pack
from linkcontext.teach.pack_header import FORMAT, Header, StoredHead, StoredThreshold, TaughtTo, read_header
from linkcontext.teach.pack_seal import seal
from linkcontext.teach.pack_tensors import to_tensors

log = logging.getLogger("linkcontext")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a pack from reading it to writing it: of two changes at the same time, one would be lost.

    Waits while another process changes it. The lock is a hidden file beside the pack, which stays.
    """
    # One lock for all blocks of this process, so that nested blocks do not wait for each other.
    lock = FileLock(path.resolve().with_name(f".{path.name}.lock"), is_singleton=True)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()  # filelock would take a folder that cannot be written to for a lock that is held
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: another process is changing this pack. Waiting for it to finish.", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_pack(learner: Learner, path: Path, licence: str = "", keep_state: bool = True, new: bool = False) -> Pack:
    """Write what a learner was taught; a file that exists at `path` is replaced as a whole, or stays as it was.

    `keep_state` writes the KV cache of the support, too; without it the first question runs the support again. Raises
    `InputError` if the learner has fewer than two names, if the file cannot be written, with `new` if it exists, and
    for pictures without a file where the model gives no image features that could be kept instead.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder. Give the name of a file, such as {path / 'zoo.pack'}.")
    if new:  # said before what takes seconds, and looked at again under the lock
        check_new_pack(path)
    require(learner.model, "token ids", "a pack")
    if len(learner.pictures.names) < 2:
        raise InputError(f"{path}: teach at least two names: with one there is nothing to choose.")
    in_memory = [item for item in learner.pictures.ids if isinstance(learner.pictures.paths[item], Upload)]
    if in_memory and (why := learner.model.lacks("image features")):
        raise InputError(
            f"{path}: {len(in_memory)} pictures were taught without a file, and a pack holds no pictures, only their "
            f"image features, which this model does not give ({why}). Save the pictures as files and teach those."
        )
    prefix = learner.prefill_support() if keep_state else None
    if prefix is not None and not prefix.divisible:
        log.warning(
            "%s: written without the KV cache of the support, because some layers of this model keep another state.",
            path,
        )
        prefix = None
    rows = to_tensors(learner.pictures, prefix)
    text = to_json(_header(learner, path, licence, prefix))
    header = read_header(text, str(path))  # never write a pack that could not be read
    digest = fingerprint(rows, text)
    with locked(path):
        if new:
            check_new_pack(path)
        made = seal(digest)
        with replacing(path.resolve()) as file:
            save_file(rows, file, {"pack": text, "digest": digest, "seal": made})
    return Pack(path, header, rows, sealed=bool(made))


def _header(learner: Learner, path: Path, licence: str, prefix: PrefixCache | None) -> Header:
    pictures, folder = learner.pictures, path.resolve().parent
    return Header(
        format=FORMAT,
        model=TaughtTo(learner.model.loaded.name, learner.model.loaded.identity),
        scaffold=learner.scaffold,
        concepts={name: tuple(own) for name, own in pictures.by_name.items()},
        paths={
            item: _relative(file, folder)
            for item in pictures.ids
            if not isinstance(file := pictures.paths[item], Upload)
        },
        pixels={item: pictures.pixel_hashes[item] for item in pictures.ids},
        shots_per_class=learner.shots_per_class,
        select=learner.select,
        held=prefix.images if prefix is not None else (),
        leaning=tuple(learner.estimate_name_bias()),
        rounds=tuple((turn.item, turn.answer) for turn in learner.choose_support()),
        point=StoredThreshold.of(learner.estimate_rejection_threshold()),
        goal=learner.point,
        head=StoredHead.of(learner.head, learner.choose_head()),
        encoder=TaughtTo(learner.encoder.name, learner.encoder.identity) if learner.encoder else None,
        augment=learner.augment,
        licence=licence,
        versions={name: version(name) for name in ("linkcontext", "torch", "transformers")},
    )


def _relative(picture: Path, folder: Path) -> str:
    """A picture's path relative to a folder. Bytes that are not UTF-8 are written as escapes."""
    place = os.path.relpath(picture.parent.resolve() / picture.name, folder)
    return os.fsencode(place).decode(errors="backslashreplace")
