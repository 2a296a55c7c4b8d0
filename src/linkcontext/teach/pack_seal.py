"""The seal of packs that this user wrote on this machine. Nobody else can make it.

A seal is the HMAC of a pack's digest under a random key, which lies in the cache folder and which only its owner can
read. The digest shows that a file is complete and unedited; the seal shows who wrote it.
"""

import hashlib
import hmac
import logging
import os
import secrets
from pathlib import Path

from filelock import FileLock

from linkcontext.storage import Unwritten, cache_dir, write_errors

log = logging.getLogger("linkcontext")
KEY_BYTES = 32
POSIX = os.name == "posix"  # files have owners and permissions


def seal(digest: str) -> str:
    """The seal for a pack of that digest; "", with a warning, if no key can be stored."""
    try:
        with write_errors(_key_path()):
            _make_key(_key_path())
    except Unwritten as error:
        log.warning(
            "%s Until a key can be stored there, this pack counts as written by somebody else, also on this machine.",
            error,
        )
    key = _key()
    return _hmac(key, digest) if key else ""


def is_sealed(digest: str, given: str) -> bool:
    """Whether `given` is this user's seal for a pack of that digest."""
    key = _key()
    return key is not None and hmac.compare_digest(_hmac(key, digest).encode(), given.encode())


def _hmac(key: bytes, digest: str) -> str:
    return hmac.new(key, digest.encode(), hashlib.sha256).hexdigest()


def _key_path() -> Path:
    """Each user has a key file: the cache folder may be shared, and a key that others can read proves nothing."""
    return cache_dir() / f"pack-key-{os.getuid() if POSIX else 'user'}"


def _make_key(path: Path) -> None:
    """Write a random key if there is none."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists():  # another process made it meanwhile
            return
        new = path.with_name(f".{path.name}.part")
        new.unlink(missing_ok=True)  # left by a process that was killed
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def _key() -> bytes | None:
    """The key, or None if there is none or others could have read or written it."""
    path = _key_path()
    try:
        state, key = path.stat(), path.read_bytes()
    except OSError:
        return None
    private = not POSIX or (state.st_uid == os.getuid() and not state.st_mode & 0o077)
    if not private or len(key) != KEY_BYTES:
        log.warning(
            "%s: this key is not used, because others may have read or written it. Remove it; a new one will be made.",
            path,
        )
        return None
    return key
