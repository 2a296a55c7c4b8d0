"""Copies and near-copies of pictures, and copies with different class names.

A copy has the same pixels in a file of any format (`Item.content`). A near-copy is resized or compressed again. It is
found by a perceptual hash of 64 bits (pHash) and confirmed by a picture of 8 x 8 pixels, because many pictures have
similar outlines.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from linkcontext.data.layout import name_key
from linkcontext.data.manifest import Dataset
from linkcontext.errors import first_few
from linkcontext.records import Item

# docs/data.md has the recall and the false alarms of these limits.
BITS = 8  # of 64, in which the hashes of near-copies may differ
LEVELS = 16  # of 255, by which any of the 8 x 8 x 3 values may differ
HASH = 8  # bytes of a hash
BLOCK = 4_000_000  # pairs that are compared at once
CANDIDATES = 16  # near-copies of a picture that are looked at: in a film every frame is one of every other frame

Pairs = NDArray[np.int64]


def label_conflicts(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Contents whose copies have different class names, with their items. No answer about them is right."""
    copies: dict[str, list[Item]] = {}
    for item in items:
        copies.setdefault(item.content, []).append(item)
    return {
        content: same
        for content, same in copies.items()
        if len(same) > 1 and len({name_key(item.name) for item in same}) > 1
    }


def label_conflict_sentence(dataset: Dataset) -> str:
    """A sentence about pictures that are in two classes or more; "" if there are none."""
    conflicts = list(label_conflicts(dataset.items).values())
    if not conflicts:
        return ""
    examples = first_few([" and ".join(item.path for item in same[:2]) for same in conflicts], whole=True)
    return (
        f"{dataset.root}: files of pictures that are in two classes or more: {sum(map(len, conflicts))}, of "
        f"{len(conflicts)} different ones ({examples}). They are left out, because no answer about them is right."
    )


def copy_sentences(dataset: Dataset) -> list[str]:
    """Sentences about copies and near-copies."""
    sentences = []
    conflicts = label_conflicts(dataset.items)  # left out, and reported by `label_conflict_sentence`
    items = [item for item in dataset.items if item.content not in conflicts]
    first: dict[str, Item] = {}
    again = {first[item.content].path: item for item in items if first.setdefault(item.content, item) is not item}
    if again:
        sentences.append(
            f"{dataset.root}: pictures with copies that are equal pixel by pixel: {len(again)} "
            f"({first_few(list(again))}). Each is used once."
        )
    near = near_copies(dataset)
    if near:
        pictures = len({item.id for pair in near for item in pair})
        sentences.append(
            f"{dataset.root}: near-copies, resized or compressed again: {pictures} pictures ({_examples(near)})."
        )
    across = {
        "classes": [(one, other) for one, other in near if name_key(one.name) != name_key(other.name)],
        "splits": [(one, other) for one, other in near if one.split != other.split],
    }
    return sentences + [
        f"{dataset.root}: pairs of near-copies in different {what}: {len(pairs)} ({_examples(pairs)})."
        for what, pairs in across.items()
        if pairs
    ]


def _examples(pairs: Sequence[tuple[Item, Item]]) -> str:
    return first_few([f"{one.path} and {other.path}" for one, other in pairs], whole=True)


def near_copies(dataset: Dataset) -> list[tuple[Item, Item]]:
    """Pairs of near-copies that are not copies. Of a large group of near-copies not all pairs are listed."""
    once: dict[str, Item] = {}
    for item in dataset.items:
        if item.id in dataset.sketches:
            once.setdefault(item.content, item)
    items = list(once.values())
    pairs = near_pairs([dataset.sketches[item.id] for item in items])
    return [(items[a], items[b]) for a, b in pairs.tolist()]


def near_pairs(sketches: Sequence[bytes]) -> Pairs:
    """The indices of near-copies among sketches (`images.ImageSummary`): int64[pairs, 2], sorted, the lower one first.

    Two hashes that differ in at most 8 bits are equal in at least one of nine bands, so only such hashes are compared.
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
    if sum(len(bucket) ** 2 for bucket in buckets) > len(hashes) ** 2:  # few different hashes: comparing all is faster
        buckets = [np.argsort(hashes)]
    pairs = [_near(bucket, hashes, small) for bucket in buckets]
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *pairs]), axis=0)


def _near(bucket: Pairs, hashes: NDArray[np.uint64], small: NDArray[np.uint8]) -> Pairs:
    """The pairs of near-copies among the pictures with the indices `bucket`."""
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
