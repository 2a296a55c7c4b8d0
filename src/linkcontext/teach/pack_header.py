"""The header of a pack, checked when it is read: whoever sends a pack may have written anything into it."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from linkcontext.config import Select
from linkcontext.data.images import Upload, open_image
from linkcontext.data.layout import name_key
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import CONTROL, InputError
from linkcontext.inference.vision import ImageFeatures
from linkcontext.records import from_dict, parse_json
from linkcontext.teach.learner import EDGE, Point, checked

FORMAT = "linkcontext.pack/2"
HEX = re.compile("[0-9a-f]{64}")
LOOKS = re.compile("[0-9a-f]{32,64}")
SERVER = re.compile(r"\s*(openai:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)  # a model behind a server
TEXT, LICENCE = 4_000, 100_000  # letters: of a path or a part of the scaffold, and of the licence
PLACES = {"support": "{image}", "support_answer": "{answer}", "query": "{image}", "query_answer": "{answer}"}
OF_SEEN = {"ids", "slots", "shift", "tokens", "pooled", "deep"}
TYPES = {torch.uint8, torch.int64, torch.float32, torch.bfloat16, torch.float16, torch.float64}


@dataclass(frozen=True, slots=True)
class TaughtTo:
    """The model that a pack was taught to."""

    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class Header:
    """The JSON of a pack. Pictures are known by the hash of their file (`concepts`, `paths`, `pixels`)."""

    format: str
    model: TaughtTo
    scaffold: Scaffold
    concepts: dict[str, tuple[str, ...]]
    paths: dict[str, str]
    pixels: dict[str, str]  # the hash of each picture's pixels
    shots_per_class: int | None
    select: Select
    held: tuple[str, ...]  # the pictures of the support whose keys and values are kept
    leaning: tuple[float, ...]
    rounds: tuple[tuple[str, ...], ...]  # picture and name of each turn of the support
    point: Point | None
    licence: str
    versions: dict[str, str]

    @property
    def items(self) -> list[str]:
        """All pictures, name by name."""
        return [item for items in self.concepts.values() for item in items]


def read_header(text: str, where: str) -> Header:
    """The header in a pack's JSON. Raises `InputError` where it is not what this version writes."""
    payload = parse_json(text, where)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        version = payload.get("format") if isinstance(payload, dict) else None
        raise InputError(f"{where}: its format is {str(version)[:40]!r}, and {FORMAT} is read. Teach it again.")
    header = from_dict(Header, payload, where)
    for wrong in (*_wrong_texts(header), *_wrong_pictures(header), *_wrong_choices(header)):
        raise InputError(f"{where}: {wrong}. Teach the pack again.")
    return header


def _wrong_texts(header: Header) -> list[str]:
    """What is wrong with the texts of a header."""
    scaffold = header.scaffold
    texts = {
        "licence": header.licence,
        "model's name": header.model.name,
        **{f"scaffold's {part}": getattr(scaffold, part) for part in ("name", "question", "system", *PLACES)},
    }
    wrong = [f"the {what} has control characters" for what, text in texts.items() if CONTROL.search(text)]
    del texts["licence"]
    texts |= {f"path of {item[:12]}": path for item, path in header.paths.items()}
    wrong += [f"the {what} is longer than {TEXT:,} letters" for what, text in texts.items() if len(text) > TEXT]
    wrong += [f"the licence is longer than {LICENCE:,} letters"] if len(header.licence) > LICENCE else []
    wrong += [
        f"the scaffold's {part} does not hold {place} exactly once"
        for part, place in PLACES.items()
        if getattr(scaffold, part).count(place) != 1
    ]
    if not header.model.name or SERVER.match(header.model.name):
        wrong.append(f"its model {header.model.name[:60]!r} is none that this machine can load")
    return wrong + _wrong_names(header)


def _wrong_names(header: Header) -> list[str]:
    """What is wrong with the names of a header."""
    wrong = []
    for name in header.concepts:
        try:
            if name != checked(name):
                wrong.append(f"the name {name!r} has spaces that a name does not have")
        except InputError as error:
            wrong.append(str(error).rstrip("."))
    twice = [name for name, count in Counter(map(name_key, header.concepts)).items() if count > 1]
    return wrong + [f"two names are {name!r} but for their case or form" for name in twice]


def _wrong_pictures(header: Header) -> list[str]:
    """What is wrong with the pictures of a header."""
    items = header.items
    wrong = [f"the name {name!r} has no picture" for name, own in header.concepts.items() if not own]
    if len(header.concepts) < 2:
        wrong.append("it has fewer than two names")
    if not all(HEX.fullmatch(digest) for digest in (header.model.identity, *items)):
        wrong.append("its pictures or its model are not known by a hash of 64 digits")
    if not all(LOOKS.fullmatch(looks) for looks in header.pixels.values()):
        wrong.append("its pixels are not known by a hash")
    if len(set(items)) < len(items) or len(set(header.pixels.values())) < len(header.pixels):
        wrong.append("it has a picture twice")
    if any("\0" in path for path in header.paths.values()):
        wrong.append("a path has a zero byte")
    if not set(items) == header.paths.keys() == header.pixels.keys():
        wrong.append("its names, paths and hashes are not of the same pictures")
    return wrong


def _wrong_choices(header: Header) -> list[str]:
    """What is wrong with the support that a header describes."""
    wrong = []
    named = {item: name for name, items in header.concepts.items() for item in items}
    if header.shots_per_class is not None and header.shots_per_class < 1:
        wrong.append("shots_per_class is no number of pictures")
    if header.select == "rices" and header.shots_per_class is None:
        wrong.append("it has rices without shots_per_class")
    if any(len(turn) != 2 or named.get(turn[0]) != turn[1] for turn in header.rounds):
        wrong.append("its rounds have pictures under other names")
    if len({turn[0] for turn in header.rounds}) < len(header.rounds) or not header.rounds:
        wrong.append("its rounds are empty, or show a picture twice")
    if not set(header.held) <= set(named):
        wrong.append("its keys and values (held) are of other pictures")
    if header.leaning and len(header.leaning) != len(header.concepts):
        wrong.append("its leaning is not one number for each name")
    if point := header.point:
        shares = 0 <= point.kept <= 1 and 0 <= point.refused <= 1
        if not shares or abs(point.fit) > 1.01 or point.pictures != len(named):
            wrong.append("its point has impossible values")
    return wrong


def check_tensors(tensors: Mapping[str, Tensor], header: Header, where: str) -> None:
    """Raise `InputError` for tensors that a pack with this header does not have, and for damaged thumbnails."""
    items = set(header.items)
    for name, row in tensors.items():
        folder, _, rest = name.partition("/")
        item, _, part = rest.partition("/")
        known = (
            (folder == "thumbnail" and item in items and not part)
            or (folder == "seen" and item in items and part in OF_SEEN)
            or (folder == "held" and (rest == "opening" or re.fullmatch(r"\d{1,4}/(keys|values)", rest)))
        )
        if not known or row.dtype not in TYPES:
            raise InputError(f"{where}: has a tensor {name[:80]!r} of {row.dtype}, which no pack has. Teach it again.")
        if row.is_floating_point() and not bool(torch.isfinite(row).all()):
            raise InputError(f"{where}: {name[:80]} has numbers that are not finite. Teach it again.")
    for item in header.items:
        small = tensors.get(f"thumbnail/{item}")
        if small is None or small.dtype != torch.uint8 or small.ndim != 1:
            raise InputError(f"{where}: a picture has no thumbnail. Teach it again.")
        content = small.numpy().tobytes()
        if not content.startswith(b"\x89PNG"):
            raise InputError(f"{where}: a thumbnail is no PNG. Teach it again.")
        open_image(Upload(f"{where}: the thumbnail of {item[:12]}", content), EDGE * EDGE)


def check_features(rows: Mapping[str, Tensor], other: ImageFeatures, vocabulary: int, context: int) -> str:
    """What is wrong with the types and shapes of a picture's features, compared with those of another picture; "" if
    nothing is.

    Their values cannot be checked without the picture.
    """
    integers = {"ids": 1, "slots": 1, "shift": 2}
    if not {*integers, "tokens"} <= rows.keys() or any(
        rows[name].dtype != torch.int64 or rows[name].ndim != axes for name, axes in integers.items()
    ):
        return "ids, slots, shift or tokens are missing, or have another type"
    return _wrong_spelling(rows, other, vocabulary, context) or _wrong_values(rows, other)


def _wrong_spelling(rows: Mapping[str, Tensor], other: ImageFeatures, vocabulary: int, context: int) -> str:
    ids, slots, shift = (rows[name] for name in ("ids", "slots", "shift"))
    length = len(ids)
    if not 1 <= length <= context or len(slots) != length or shift.shape != (other.spelling.shift.shape[0], length):
        return "ids, slots and shift differ in length"
    if _within(ids, 0, vocabulary) and _within(slots, -1, len(rows["tokens"])) and _within(shift, 0, context):
        return ""
    return "ids, slots or shift are out of range"


def _wrong_values(rows: Mapping[str, Tensor], other: ImageFeatures) -> str:
    for name, fixed in (("tokens", (1,)), ("pooled", (0,)), ("deep", (0, 2))):  # the axes that no picture changes
        own, known = rows.get(name), getattr(other, name)
        if own is None and known is None:
            continue
        if own is None or known is None or own.dtype != known.dtype or own.ndim != known.ndim:
            return f"{name} have another type or shape than the model's"
        if any(own.shape[axis] != known.shape[axis] for axis in fixed):
            return f"{name} have another width than the model's"
    if "deep" in rows and rows["deep"].shape[1] != len(rows["tokens"]):
        return "deep and tokens differ in length"
    return ""


def _within(row: Tensor, least: int, end: int) -> bool:
    return bool(((row >= least) & (row < end)).all())
