"""Pictures that are there more than once: copies, near-copies, and copies that are filed under different names.

A copy has the same pixels, whatever its bytes (`Item.content`). A near-copy was resized or compressed again. It is
found by a perceptual hash of 64 bits (pHash) and confirmed by a picture of 8 x 8 pixels, since many outlines are alike.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from linkcontext.data.layout import name_key
from linkcontext.data.manifest import Dataset
from linkcontext.errors import first_few
from linkcontext.records import Item

# docs/data.md says how many near-copies, and how many other pictures, are within these limits.
BITS = 8  # of 64 in which the hashes of near-copies may differ
LEVELS = 16  # of 255 by which any of the 8 x 8 x 3 values may differ
HASH = 8  # bytes
BLOCK = 4_000_000  # pairs compared at once
CANDIDATES = 16  # of a picture in a band: in a film every frame is a near-copy of every other

Pairs = NDArray[np.int64]


def disputed(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Contents that are filed under different names, with their items: no answer about them is right."""
    claims: dict[str, list[Item]] = {}
    for item in items:
        claims.setdefault(item.content, []).append(item)
    return {
        content: same
        for content, same in claims.items()
        if len(same) > 1 and len({name_key(item.name) for item in same}) > 1
    }


def dispute(dataset: Dataset) -> str:
    """A sentence about the pictures that are filed under two names or more; "" where there is none."""
    claims = list(disputed(dataset.items).values())
    if not claims:
        return ""
    examples = first_few([" and ".join(item.path for item in same[:2]) for same in claims], whole=True)
    return (
        f"{dataset.root}: files of pictures that are filed under two classes or more: {sum(map(len, claims))}, of "
        f"{len(claims)} different ones ({examples}). They are left out, because no answer about them is right."
    )


def repeated(dataset: Dataset) -> list[str]:
    """Sentences about copies and near-copies."""
    sentences = []
    contradicted = disputed(dataset.items)  # those are left out
    items = [item for item in dataset.items if item.content not in contradicted]
    first: dict[str, Item] = {}
    again = {first[item.content].path: item for item in items if first.setdefault(item.content, item) is not item}
    if again:
        sentences.append(
            f"{dataset.root}: pictures that are there more than once, pixel by pixel: {len(again)} "
            f"({first_few(list(again))}). Each is used once."
        )
    near = near_copies(dataset)
    if near:
        pictures = len({item.id for pair in near for item in pair})
        sentences.append(
            f"{dataset.root}: near-copies, resized or compressed again: {pictures} pictures ({_examples(near)})."
        )
    apart = {
        "classes": [(one, other) for one, other in near if name_key(one.name) != name_key(other.name)],
        "splits": [(one, other) for one, other in near if one.split != other.split],
    }
    return sentences + [
        f"{dataset.root}: pairs of near-copies in different {what}: {len(pairs)} ({_examples(pairs)})."
        for what, pairs in apart.items()
        if pairs
    ]


def _examples(pairs: Sequence[tuple[Item, Item]]) -> str:
    return first_few([f"{one.path} and {other.path}" for one, other in pairs], whole=True)


def near_copies(dataset: Dataset) -> list[tuple[Item, Item]]:
    """Pairs of pictures that are near-copies and no copies. In a large group not all pairs are listed."""
    once: dict[str, Item] = {}
    for item in dataset.items:
        if item.id in dataset.sketches:
            once.setdefault(item.content, item)
    items = list(once.values())
    pairs = near_pairs([dataset.sketches[item.id] for item in items])
    return [(items[a], items[b]) for a, b in pairs.tolist()]


def near_pairs(sketches: Sequence[bytes]) -> Pairs:
    """int64[pairs, 2]: the indices of near-copies among sketches (`images.Looks`), sorted, the lower index first.

    Hashes that differ in at most 8 bits are equal in at least one of nine bands, so only those are compared.
    """
    if len(sketches) < 2:
        return np.empty((0, 2), np.int64)
    table = np.frombuffer(b"".join(sketches), np.uint8).reshape(len(sketches), -1)
    hashes = np.ascontiguousarray(table[:, :HASH]).view(">u8").ravel().astype(np.uint64)
    small = table[:, HASH:]
    buckets: list[Pairs] = []
    edges = np.linspace(0, 64, BITS + 2).astype(int)
    for start, end in pairwise(edges):
        band = (hashes >> np.uint64(start)) & np.uint64((1 << int(end - start)) - 1)
        order = np.lexsort((hashes, band))
        borders = np.flatnonzero(np.diff(band[order])) + 1
        buckets += [bucket for bucket in np.split(order, borders) if len(bucket) > 1]
    if sum(len(bucket) ** 2 for bucket in buckets) > len(hashes) ** 2:  # few outlines: comparing all is less work
        buckets = [np.argsort(hashes)]
    pairs = [_near(bucket, hashes, small) for bucket in buckets]
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *pairs]), axis=0)


def _near(bucket: Pairs, hashes: NDArray[np.uint64], small: NDArray[np.uint8]) -> Pairs:
    """The near-copies among some pictures."""
    rows = max(1, BLOCK // len(bucket))
    near = []
    for start in range(0, len(bucket), rows):
        part = bucket[start : start + rows]
        alike = np.bitwise_count(hashes[part][:, None] ^ hashes[bucket][None, start:]) <= BITS
        alike = np.triu(alike, 1)
        if np.count_nonzero(alike) > CANDIDATES:
            alike &= np.cumsum(alike, axis=1, dtype=np.int32) <= CANDIDATES
        one, other = np.nonzero(alike)
        pairs = np.stack([part[one], bucket[start:][other]], axis=1)
        far = np.abs(small[pairs[:, 0]].astype(np.int16) - small[pairs[:, 1]]).max(axis=1, initial=0)
        near.append(np.sort(pairs[far <= LEVELS], axis=1))
    return np.concatenate(near)
