"""Which packs this user wrote on this machine: they carry a seal that nobody else can make.

The seal is the HMAC of a pack's digest under a random key, which is kept in the cache folder and readable by its owner
alone. A digest shows that a file is what its writer wrote; a seal shows who the writer was.
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


def seal(digest: str) -> str:
    """The seal of a pack that is being written; "", with a warning, if no key can be kept."""
    try:
        with write_errors(_key_path()):
            _make_key(_key_path())
    except Unwritten as error:
        log.warning(
            "%s Until a key can be kept there, this pack counts as written by others, also on this machine.", error
        )
    key = _key()
    return _hmac(key, digest) if key else ""


def is_sealed(digest: str, given: str) -> bool:
    """Whether a pack of that digest was sealed with this user's key."""
    key = _key()
    return key is not None and hmac.compare_digest(_hmac(key, digest).encode(), given.encode())


def _hmac(key: bytes, digest: str) -> str:
    return hmac.new(key, digest.encode(), hashlib.sha256).hexdigest()


def _key_path() -> Path:
    """Each user's own: a cache folder may be shared, and a key that others can read is no key."""
    return cache_dir() / f"pack-key-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _make_key(path: Path) -> None:
    """Make a key where there is none."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists():  # another process was faster
            return
        new = path.with_name(f".{path.name}.part")
        new.unlink(missing_ok=True)  # of a process that was killed here
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def _key() -> bytes | None:
    """The key, unless others could have written or read it."""
    path = _key_path()
    try:
        state, key = path.stat(), path.read_bytes()
    except OSError:
        return None
    private = not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o077)
    if not private or len(key) != KEY_BYTES:
        log.warning("%s: is not used, because others may have read or written it. Remove it; a new one is made.", path)
        return None
    return key
