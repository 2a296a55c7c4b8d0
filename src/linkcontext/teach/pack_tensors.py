"""The tensors of a pack: how they are named in the file, and what they are checked for when it is read.

thumbnail/ITEM      uint8[n]: a PNG
seen/ITEM/PART      the features of a picture, as the feature cache has them
vector/ITEM/KIND    float32[1 + views, width]: the vectors of a picture and its changed copies, of unit length
held/opening        int64[3 + axes, n]: the tokens of the support, the key of the `PrefixCache`
held/LAYER/keys     the KV cache of the support, and held/LAYER/values
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from linkcontext.data.images import Upload, open_image
from linkcontext.errors import InputError
from linkcontext.evaluation.picture_vectors import KINDS, PictureVectors
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.models.model import Model
from linkcontext.teach.given_pictures import THUMBNAIL_EDGE
from linkcontext.teach.taught_pictures import TaughtPictures

PARTS = {"ids", "slots", "shift", "tokens", "pooled", "deep"}  # of a picture's features
DTYPES = {torch.uint8, torch.int64, torch.float32, torch.bfloat16, torch.float16, torch.float64}


def to_tensors(pictures: TaughtPictures, prefix: PrefixCache | None) -> dict[str, Tensor]:
    """The tensors of a pack, contiguous on the CPU. None shares its memory with another, as safetensors requires."""
    rows = {
        f"seen/{item}/{part}": row
        for item in pictures.ids
        if item in pictures.features
        for part, row in pictures.features[item].to_tensors().items()
    }
    rows |= {
        f"vector/{item}/{kind}": row for item in pictures.ids for kind, row in pictures.vectors.get(item, {}).items()
    }
    rows |= {
        f"thumbnail/{item}": torch.frombuffer(bytearray(pictures.thumbnails[item]), dtype=torch.uint8)
        for item in pictures.ids
    }
    if prefix is not None:
        rows |= {f"held/{name}": row for name, row in prefix.to_tensors().items()}
        rows["held/opening"] = torch.from_numpy(prefix.key)
    return {name: row.detach().cpu().clone(memory_format=torch.contiguous_format) for name, row in rows.items()}


def prefix_of(rows: Mapping[str, Tensor], pictures: tuple[str, ...], model: Model) -> PrefixCache | None:
    """The KV cache of the support in the tensors of a pack, or None if the pack has none."""
    layers = below(rows, "held")
    if not layers:
        return None
    return PrefixCache.from_tensors(layers.pop("opening").numpy(), pictures, layers, model.network)


def features_of(rows: Mapping[str, Tensor], items: Sequence[str], folder: str = "seen") -> dict[str, dict[str, Tensor]]:
    """The parts of each picture's features, by item; none for a picture without features.

    With the folder "vector", the vectors of each picture and its changed copies, by kind.
    """
    features: dict[str, dict[str, Tensor]] = {item: {} for item in items}
    for name, row in below(rows, folder).items():
        item, _, part = name.partition("/")
        features[item][part] = row
    return features


def below(rows: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `folder/`, without it."""
    return {name.removeprefix(f"{folder}/"): row for name, row in rows.items() if name.startswith(f"{folder}/")}


def check_tensors(rows: Mapping[str, Tensor], items: Sequence[str], where: str) -> None:
    """Raise `InputError` for tensors that no pack of these pictures has, and for damaged thumbnails."""
    known = set(items)
    for name, row in rows.items():
        if not _is_known(name, known) or row.dtype not in DTYPES:
            raise InputError(f"{where}: has a tensor {name[:80]!r} of {row.dtype}, which no pack has. Teach it again.")
        if row.is_floating_point() and not bool(torch.isfinite(row).all()):
            raise InputError(f"{where}: {name[:80]} has numbers that are not finite. Teach it again.")
    for item in items:
        thumbnail = rows.get(f"thumbnail/{item}")
        if thumbnail is None or thumbnail.dtype != torch.uint8 or thumbnail.ndim != 1:
            raise InputError(f"{where}: a picture has no thumbnail. Teach it again.")
        content = thumbnail.numpy().tobytes()
        if not content.startswith(b"\x89PNG"):
            raise InputError(f"{where}: a thumbnail is not a PNG. Teach it again.")
        open_image(Upload(f"{where}: the thumbnail of {item[:12]}", content), THUMBNAIL_EDGE * THUMBNAIL_EDGE)


def _is_known(name: str, items: set[str]) -> bool:
    """Whether a pack of these pictures may have a tensor of this name."""
    folder, _, rest = name.partition("/")
    item, _, part = rest.partition("/")
    if folder == "thumbnail":
        return item in items and not part
    if folder == "seen":
        return item in items and part in PARTS
    if folder == "vector":
        return item in items and part in KINDS and "+" not in part
    return folder == "held" and (rest == "opening" or re.fullmatch(r"\d{1,4}/(keys|values)", rest) is not None)


def check_features(rows: Mapping[str, Tensor], other: ImageFeatures, vocabulary: int, context: int) -> str:
    """What is wrong with the dtypes and shapes of a picture's features, or "".

    They are compared with `other`, the same model's features of another picture. Their values cannot be checked
    without the picture.
    """
    integers = {"ids": 1, "slots": 1, "shift": 2}  # axes
    if not {*integers, "tokens"} <= rows.keys() or any(
        rows[name].dtype != torch.int64 or rows[name].ndim != axes for name, axes in integers.items()
    ):
        return "ids, slots, shift or tokens are missing, or have another type"
    return _wrong_tokens(rows, other, vocabulary, context) or _wrong_embeddings(rows, other)


def check_vectors(rows: Mapping[str, Mapping[str, Tensor]], query: PictureVectors, views: int) -> str:
    """What is wrong with the vectors of pictures, or "": they have the kinds and widths of `query`, another picture's
    vectors, and a row for the picture and each of its `views`, of unit length or zeros."""
    for item, kinds in rows.items():
        if kinds.keys() != query.keys():
            return f"the vectors of {item[:12]} are not of the kinds {', '.join(query)}"
        for kind, own in kinds.items():
            if own.dtype != torch.float32 or own.shape != (1 + views, query[kind].shape[1]):
                return f"the vectors of {item[:12]} have another type or shape than the model's"
            lengths = own.norm(dim=1)
            if not bool(((lengths - 1).abs().lt(1e-3) | lengths.eq(0)).all()):
                return f"the vectors of {item[:12]} are not of unit length"
    return ""


def _wrong_tokens(rows: Mapping[str, Tensor], other: ImageFeatures, vocabulary: int, context: int) -> str:
    ids, slots, shift = (rows[name] for name in ("ids", "slots", "shift"))
    length = len(ids)
    if not 1 <= length <= context or len(slots) != length or shift.shape != (other.image_tokens.shift.shape[0], length):
        return "ids, slots and shift differ in length"
    if _within(ids, 0, vocabulary) and _within(slots, -1, len(rows["tokens"])) and _within(shift, 0, context):
        return ""
    return "ids, slots or shift are out of range"


def _wrong_embeddings(rows: Mapping[str, Tensor], other: ImageFeatures) -> str:
    # With the axes whose length does not depend on the picture.
    for name, expected, fixed in (
        ("tokens", other.embeddings, (1,)),
        ("pooled", other.pooled, (0,)),
        ("deep", other.deepstack, (0, 2)),
    ):
        own = rows.get(name)
        if own is None and expected is None:
            continue
        if own is None or expected is None or own.dtype != expected.dtype or own.ndim != expected.ndim:
            return f"{name} have another type or shape than the model's"
        if any(own.shape[axis] != expected.shape[axis] for axis in fixed):
            return f"{name} have another width than the model's"
    if "deep" in rows and rows["deep"].shape[1] != len(rows["tokens"]):
        return "deep and tokens differ in length"
    return ""


def _within(row: Tensor, least: int, end: int) -> bool:
    return bool(((row >= least) & (row < end)).all())
