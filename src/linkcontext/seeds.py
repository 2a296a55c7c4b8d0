"""Random streams that depend on nothing but their names.

`rng("episodes", 0, "e17", "support")` is the same stream in every process, in any order and at any
batch size, because nothing is ever drawn from a running generator that two callers share.
"""

import hashlib

import numpy as np

Name = str | int


def key(*names: Name) -> int:
    """A 128-bit integer for a path of names: `("a", 1)`, `("a", "1")` and `("a1",)` are three paths."""
    path = "\x1f".join(f"{type(name).__name__}:{_escaped(name)}" for name in names)
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=16).digest(), "little")


def _escaped(name: Name) -> str:
    """The separator of a path cannot be part of a name."""
    return str(name).replace("\\", "\\\\").replace("\x1f", "\\u")


def rng(*names: Name) -> np.random.Generator:
    """A generator of its own for a path of names."""
    return np.random.Generator(np.random.PCG64(key(*names)))
