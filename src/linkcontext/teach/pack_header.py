"""The JSON header of a pack, checked when it is read: anybody may have written anything into it."""

import re
from collections import Counter
from dataclasses import asdict, dataclass

from linkcontext.config import Augmentation, HeadName, Select
from linkcontext.data.layout import name_key
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import CONTROL, InputError
from linkcontext.evaluation.head_choice import HeadChoice
from linkcontext.evaluation.heads import HEAD_NAMES
from linkcontext.evaluation.picture_vectors import KINDS
from linkcontext.jsonl import from_dict, parse_json
from linkcontext.teach.names import canonical_name
from linkcontext.teach.rejection import OperatingPoint, RejectionThreshold

FORMAT = "linkcontext.pack/4"  # the only version that is read; docs/teaching.md has the policy
SHA256 = re.compile("[0-9a-f]{64}")
PIXEL_HASH = re.compile("[0-9a-f]{32,64}")
SERVER = re.compile(r"\s*(openai:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)  # a model behind a server
MAX_TEXT, MAX_LICENCE = 4_000, 100_000  # letters: of a path or a part of the scaffold, and of the licence
PLACEHOLDERS = {
    "support": "{image}",
    "support_answer": "{answer}",
    "query": "{image}",
    "query_answer": "{answer}",
}


@dataclass(frozen=True, slots=True)
class TaughtTo:
    """The model that a pack was taught to, or the encoder of its vectors, and the digest of its weights."""

    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class StoredThreshold:
    """A `RejectionThreshold` under the keys of the file: fit is its similarity, kept its recall."""

    fit: float
    kept: float
    refused: float
    pictures: int

    @classmethod
    def of(cls, threshold: RejectionThreshold | None) -> "StoredThreshold | None":
        """The record of a threshold."""
        if threshold is None:
            return None
        return cls(threshold.similarity, threshold.recall, threshold.rejection_rate, threshold.pictures)

    def threshold(self) -> RejectionThreshold:
        """The threshold of a record."""
        return RejectionThreshold(self.fit, self.kept, self.refused, self.pictures)


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A `HeadChoice`, and the head that was wanted."""

    wanted: HeadName
    head: HeadName
    features: str
    temperatures: dict[str, float]
    right: int
    pictures: int

    @classmethod
    def of(cls, wanted: HeadName, choice: HeadChoice) -> "StoredHead":
        """The record of a choice."""
        temperatures = {str(part): value for part, value in choice.temperatures.items()}
        return cls(wanted, choice.head, choice.features, temperatures, choice.right, choice.pictures)

    def choice(self) -> HeadChoice:
        """The choice of a record."""
        temperatures = {part: self.temperatures[part] for part in HEAD_NAMES if part in self.temperatures}
        return HeadChoice(self.head, self.features, temperatures, self.right, self.pictures)


@dataclass(frozen=True, slots=True)
class Header:
    """The header's keys as they are in the file. Pictures are named by the sha256 of their files."""

    format: str
    model: TaughtTo
    scaffold: Scaffold
    concepts: dict[str, tuple[str, ...]]  # pictures by class name
    paths: dict[str, str]  # relative to the pack's folder; none of a picture that was given without a file
    pixels: dict[str, str]  # the hash of each picture's pixels
    shots_per_class: int | None
    select: Select
    held: tuple[str, ...]  # the pictures of the support whose keys and values are in the file
    leaning: tuple[float, ...]  # the bias of each name, in nats
    rounds: tuple[tuple[str, ...], ...]  # the support: picture and name of each turn
    point: StoredThreshold | None
    goal: OperatingPoint  # what the point is chosen for
    head: StoredHead
    encoder: TaughtTo | None  # the other encoder of the pictures' vectors
    augment: tuple[Augmentation, ...]  # the changed copies that have vectors too
    licence: str
    versions: dict[str, str]

    @property
    def items(self) -> list[str]:
        """All pictures, name by name."""
        return [item for items in self.concepts.values() for item in items]


def read_header(text: str, where: str) -> Header:
    """Parse and check the header of a pack. Raises `InputError` for anything this version does not write."""
    payload = parse_json(text, where)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        version = payload.get("format") if isinstance(payload, dict) else None
        raise InputError(
            f"{where}: its format is {str(version)[:40]!r}, and this version of linkcontext reads {FORMAT}. Teach it "
            "again."
        )
    header = from_dict(Header, payload, where)
    for wrong in (*_wrong_texts(header), *_wrong_pictures(header), *_wrong_support(header)):
        raise InputError(f"{where}: {wrong}. Teach the pack again.")
    return header


def _wrong_texts(header: Header) -> list[str]:
    """Problems with the texts of a header."""
    scaffold = asdict(header.scaffold)
    texts = {
        "licence": header.licence,
        "name of the model": header.model.name,
        **{f"scaffold's {part}": scaffold[part] for part in ("name", "question", "system", *PLACEHOLDERS)},
    }
    wrong = [f"the {what} has control characters" for what, text in texts.items() if CONTROL.search(text)]
    del texts["licence"]
    texts |= {f"path of {item[:12]}": path for item, path in header.paths.items()}
    wrong += [f"the {what} is longer than {MAX_TEXT:,} letters" for what, text in texts.items() if len(text) > MAX_TEXT]
    wrong += [f"the licence is longer than {MAX_LICENCE:,} letters"] if len(header.licence) > MAX_LICENCE else []
    wrong += [
        f"the scaffold's {part} must contain {placeholder} exactly once"
        for part, placeholder in PLACEHOLDERS.items()
        if scaffold[part].count(placeholder) != 1
    ]
    for kind, used in (("model", header.model), ("encoder", header.encoder)):
        if used is not None and (not used.name or SERVER.match(used.name) or CONTROL.search(used.name)):
            wrong.append(f"its {kind} {used.name[:60]!r} is not one that this machine can load")
    return wrong + _wrong_names(header)


def _wrong_names(header: Header) -> list[str]:
    """Problems with the class names of a header."""
    wrong = []
    for name in header.concepts:
        try:
            if name != canonical_name(name):
                wrong.append(f"the name {name!r} has spaces or letters that a name cannot have")
        except InputError as error:
            wrong.append(str(error).rstrip("."))
    twice = [name for name, count in Counter(map(name_key, header.concepts)).items() if count > 1]
    return wrong + [f"two names equal {name!r} but for their case or form" for name in twice]


def _wrong_pictures(header: Header) -> list[str]:
    """Problems with the pictures of a header."""
    items = header.items
    wrong = [f"the name {name!r} has no picture" for name, own in header.concepts.items() if not own]
    if len(header.concepts) < 2:
        wrong.append("it has fewer than two names")
    if not all(SHA256.fullmatch(digest) for digest in (header.model.identity, *items)):
        wrong.append("the hash of its model or of a picture is not one of 64 digits")
    if not all(PIXEL_HASH.fullmatch(digest) for digest in header.pixels.values()):
        wrong.append("pixels has an invalid hash")
    if len(set(items)) < len(items) or len(set(header.pixels.values())) < len(header.pixels):
        wrong.append("it has a picture twice")
    if any("\0" in path for path in header.paths.values()):
        wrong.append("a path has a zero byte")
    if set(items) != header.pixels.keys():
        wrong.append("concepts and pixels do not have the same pictures")
    if not header.paths.keys() <= set(items):
        wrong.append("paths has pictures that the pack does not have")
    return wrong


def _wrong_support(header: Header) -> list[str]:
    """Problems with the support that a header describes, and with the values computed from it."""
    wrong = []
    named = {item: name for name, items in header.concepts.items() for item in items}
    most = max(map(len, header.concepts.values()), default=0)
    if header.shots_per_class is not None and header.shots_per_class < 1:
        wrong.append("shots_per_class must be at least 1")
    if header.select == "rices" and header.shots_per_class is None:
        wrong.append("select is rices, which needs shots_per_class")
    if any(len(turn) != 2 or named.get(turn[0]) != turn[1] for turn in header.rounds):
        wrong.append("rounds has pictures under other names")
    if not header.rounds or len(header.rounds) > len(header.concepts) * most:
        wrong.append("rounds is empty, or has more pictures than there are")
    if not set(header.held) <= set(named):
        wrong.append("held has pictures that the pack does not have")
    if header.leaning and len(header.leaning) != len(header.concepts):
        wrong.append("leaning does not have one number for each name")
    if not _is_possible(header.head, len(named)):
        wrong.append("head has impossible values")
    if point := header.point:
        shares = 0 <= point.kept <= 1 and 0 <= point.refused <= 1
        if not shares or abs(point.fit) > 1.01 or point.pictures != len(named):
            wrong.append("point has impossible values")
    return wrong


def _is_possible(head: StoredHead, pictures: int) -> bool:
    """Whether a choice could have been made for so many pictures."""
    counts = 0 <= head.right <= head.pictures <= pictures
    known = head.features in (*KINDS, "") and head.head != "auto" and set(head.temperatures) <= set(HEAD_NAMES)
    needs_features = head.head == "lm" or bool(head.features)
    as_wanted = head.wanted in ("auto", head.head)
    return (
        counts
        and known
        and needs_features
        and as_wanted
        and all(0 < value < 1e6 for value in head.temperatures.values())
    )
