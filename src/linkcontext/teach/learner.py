"""Teach a model names for things by showing pictures of them, then ask it about others."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from linkcontext.config import Select
from linkcontext.data.images import pixels, sha256, thumbnail_png
from linkcontext.data.layout import is_blank, is_printable, name_key, normal_name
from linkcontext.episodes.scaffold import SCAFFOLDS, Scaffold, build_messages, refuse_scaffold, with_answer
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import UNDECODED, InputError
from linkcontext.evaluation.medoids import medoids, rices, vector
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.vision import BATCH, CHECKED, ImageFeatures, VisionEncoder, chunks
from linkcontext.models.loading import Model
from linkcontext.models.prompting import REPLY_TOKENS
from linkcontext.progress import progress
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.seeds import rng

log = logging.getLogger("linkcontext")
LONGEST = 100  # letters of a name: more is a text, and no name that a model could say
KEPT = 0.95  # of what is taught is to be named, however much of the rest is named as well
FEWEST = 20  # pictures without which one in twenty means nothing
NEAREST = 3
LIKELIEST = 3  # names that a line tells
EDGE = 96  # pixels of a thumbnail
ASKED = 16  # pictures in one tree


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A picture that was shown, by its content, and how like the one asked about it is (cosine)."""

    name: str
    picture: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a picture is called: the likeliest name, and the probability of each name taught.

    The name is None where the picture is like nothing that was shown: `fit`, its cosine with the mean of the concept
    that is nearest, lies below the learner's `Point`. Without features (an engine that runs whole prompts) there are
    neither `fit` nor `nearest`. With `taught` the picture is one of those shown, and has the name it was taught under
    with certainty; the model is not run.
    """

    name: str | None
    probabilities: dict[str, float]
    fit: float | None = None
    nearest: tuple[Neighbour, ...] = ()
    taught: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """The lowest `fit` of a picture that is named: the highest threshold that keeps 95 % of the pictures shown.

    Each picture was left out in turn. `kept` is the share of the `pictures` above the threshold beside the others of
    their concept, `refused` the share below it with their whole concept left out, as if it had never been taught.
    """

    fit: float
    kept: float
    refused: float
    pictures: int


def checked(given: str) -> str:
    """A name as it is kept, with single spaces and composed letters (NFC). Raises `InputError` for an invalid one."""
    if UNDECODED.search(given):
        raise InputError(f"{given[:40]!r}: the name is not UTF-8. Write it in UTF-8.")
    name = normal_name(given)
    if is_blank(name):
        raise InputError(f"{given!r}: a name is needed to teach something.")
    if len(name) > LONGEST or not is_printable(name):
        raise InputError(f"{name[:40]!r}: a name has at most {LONGEST} letters, which can be printed.")
    return name


def spoken(answer: Answer) -> str:
    """An answer as a line: the name, and how likely it and the next ones are."""
    if answer.taught:
        return f"{answer.name} (this picture was taught)"
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:LIKELIEST]
    chances = ", ".join(f"{name} {chance:.0%}" for name, chance in ranked)
    return f"{answer.name} ({chances})" if answer.name else f"none of these ({chances}, if it has to be one)"


def in_rounds(rows: Mapping[str, Sequence[str]]) -> list[Turn]:
    """Pictures of each name as turns, one of each name at a time."""
    most = max(map(len, rows.values()), default=0)
    return [Turn(row[i], name, name) for i in range(most) for name, row in rows.items() if i < len(row)]


def _picture(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such picture.")
    return path


@dataclass
class Learner:
    """A model and what it was shown. Nothing is trained: what was shown stands in the prompt.

    All pictures are shown, or as many of each name as fit; `shots_per_class` shows fewer, which are chosen by
    `select`: medoid, those that stand for the others best; random; rices, those most like the picture asked about.
    """

    model: Model
    scaffold: Scaffold = field(default_factory=lambda: SCAFFOLDS["turns"])
    shown: dict[str, list[str]] = field(default_factory=dict)  # name -> contents (sha256) of pictures
    shots_per_class: int | None = None
    select: Select = "medoid"
    seen: dict[str, ImageFeatures] = field(
        default_factory=dict, repr=False
    )  # content -> what the model's eyes make of it
    thumbnails: dict[str, bytes] = field(default_factory=dict, repr=False)  # content -> PNG
    pixels: dict[str, str] = field(default_factory=dict, repr=False)  # content -> hash of what is seen
    _looks: dict[str, Tensor] = field(default_factory=dict, repr=False)  # content -> vector of what was seen
    _held: tuple[tuple[Turn, ...], PrefixCache | None] | None = field(default=None, repr=False)
    _leaning: tuple[tuple[Any, ...], list[float]] | None = field(default=None, repr=False)
    _point: tuple[tuple[Any, ...], Point | None] | None = field(default=None, repr=False)
    _most: tuple[tuple[Any, ...], int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.shots_per_class is not None and self.shots_per_class < 1:
            raise InputError(f"--shots-per-class {self.shots_per_class}: at least one picture of each name is shown.")
        if self.select == "rices" and self.shots_per_class is None:
            raise InputError("--select rices: say with --shots-per-class how many pictures are shown to a question.")
        refuse_scaffold(self.scaffold, self.model.marks)
        self.scorer = LocalModel(self.model, VisionEncoder(self.model), {})

    # Teaching

    def teach(self, named: Mapping[str, Iterable[str | Path]]) -> None:
        """Show pictures under their names: {"cactihog": [paths]}. Names taught before get more pictures.

        A picture shown again under another name has that name from then on. Raises `InputError`, and nothing is
        taught, for a name without pictures or of more than 100 letters, for two names that differ only in case, for
        a picture under two names and for one that cannot be read.
        """
        contents, paths = self._identified(named)
        self._recall()
        self.scorer.sources |= {content: (content, path) for content, path in paths.items()}  # they may have moved
        new = [content for content in contents if content not in self.thumbnails]
        small: dict[str, bytes] = {}
        seen: dict[str, ImageFeatures] = {}
        with progress("Looking", len(new)) as advance:
            for chunk in chunks(new, BATCH):
                for content in chunk:
                    small[content] = thumbnail_png(paths[content], EDGE)
                    advance()
                seen |= self._look(chunk)
        self.seen |= seen
        self.thumbnails |= small
        self.pixels |= {content: looks for content, (_, looks) in contents.items()}
        for name, items in list(self.shown.items()):
            self.shown[name] = [item for item in items if item not in contents or contents[item][0] == name]
        for content, (name, _) in contents.items():
            items = self.shown.setdefault(name, [])
            if content not in items:
                items.append(content)
        self.shown = {name: items for name, items in self.shown.items() if items}

    def _identified(
        self, named: Mapping[str, Iterable[str | Path]]
    ) -> tuple[dict[str, tuple[str, str]], dict[str, Path]]:
        """For each picture, by content: its name and the hash of its pixels; and the path of its file.

        The content of a picture is the hash of the first file in which it was shown. A taught picture that is shown in
        another file has no path here.
        """
        contents: dict[str, tuple[str, str]] = {}
        paths: dict[str, Path] = {}
        known = {looks: content for content, looks in self.pixels.items()}
        names: list[str] = []
        for given, pictures in named.items():
            names.append(name := self._name(given, (*self.shown, *names)))
            listed = [Path(picture) for picture in pictures]
            if not listed:
                raise InputError(f"{name!r}: at least one picture is needed to teach something.")
            for path in listed:
                digest, looks = sha256(_picture(path)), pixels(path)
                content = known.setdefault(looks, digest)
                if content == digest:
                    paths.setdefault(content, path)
                if (other := contents.setdefault(content, (name, looks))[0]) != name:
                    first = paths.get(content) or self.path(content)
                    where = f" (in {first})" if first != path else ""
                    raise InputError(f"{path}: is shown as {other!r}{where} and as {name!r}. Name it once.")
        return contents, paths

    def forget(self, name: str) -> None:
        """Take a name away, with its pictures. Raises `InputError` for one that was not taught."""
        for content in self.shown.pop(self._taught(name)):
            self.seen.pop(content, None)
            self.thumbnails.pop(content, None)
            self.pixels.pop(content, None)

    def rename(self, old: str, new: str) -> None:
        """Give a concept another name, in its place. Raises `InputError` as `teach` and `forget` do."""
        old = self._taught(old)
        new = self._name(new, [name for name in self.shown if name != old])
        if new in self.shown and new != old:
            raise InputError(f"{new!r} is taught already. Choose another name, or forget that one first.")
        self.shown = {new if name == old else name: items for name, items in self.shown.items()}

    def _taught(self, given: str) -> str:
        """A name that was taught, in the spelling in which it is kept."""
        name = checked(given)
        if name not in self.shown:
            known = ", ".join(self.shown) or "none yet"
            raise InputError(f"{name!r} was not taught. The names are: {known}.")
        return name

    def _name(self, given: str, known: Iterable[str]) -> str:
        """A name as it is kept."""
        name = checked(given)
        self.sayable(name)
        same = next((other for other in known if name_key(other) == name_key(name) and other != name), None)
        if same is not None:
            raise InputError(
                f"{name!r} and {same!r} differ only in case or in invisible characters. Rename one of them."
            )
        return name

    def sayable(self, text: str) -> None:
        """Raise an `InputError` if a text holds one of the model's own marks."""
        refuse_marks(text, self.model.marks, repr(text[:LONGEST]))

    # Asking

    def ask(self, picture: str | Path) -> Answer:
        """Name a picture: the name it was taught under if it was taught, in this or another file, else the model's.

        The probabilities are over the names that were taught, corrected for how much each name is preferred whatever
        the picture shows.

        What was shown is run once and kept, so that a further question costs its own few tokens.
        """
        query = self.query(picture)
        if name := self.taught_as(query.item):
            certain = {other: float(other == name) for other in self.shown}
            fit, nearest = self._likeness(self._vectors([query.item])[0]) if self.seen else (None, ())
            return Answer(name, certain, fit, nearest, taught=True)
        if len(self.shown) < 2:
            raise InputError("teach at least two names before asking: with one there is nothing to choose.")
        turns, held = self._support(query)
        chances = self._chances([query], turns, held)[0] - torch.tensor(self.leaning, dtype=torch.double)
        found = dict(zip(self.shown, chances.softmax(0).tolist(), strict=True))
        likeliest = max(found, key=found.__getitem__)
        if not self.seen:
            return Answer(likeliest, found)
        asked = vector(self.scorer.eyes.get(query.item))
        fit, nearest = self._likeness(asked)
        unlike = self.point is not None and fit < self.point.fit
        return Answer(None if unlike else likeliest, found, fit, nearest)

    def taught_as(self, content: str) -> str | None:
        """The name that a picture was taught under."""
        return next((name for name, items in self.shown.items() if content in items), None)

    def say(
        self,
        picture: str | Path,
        question: str = "",
        new_tokens: int | None = None,
        talk: Sequence[Turn] = (),
        taught: bool = True,
    ) -> str:
        """The model's own words about a picture, after what it was shown (unless not `taught`) and other `talk`."""
        query = self.query(picture, question)
        turns, held = self._support(query) if taught else ([], None)
        (reply,) = self.scorer.generate(
            [build_messages([*turns, *talk], self.scaffold, query)], self.reply_tokens(new_tokens), held
        )
        return reply

    def reply_tokens(self, wanted: int | None = None) -> int:
        """The most tokens of a reply: `wanted`, else the model's own setting, else the default."""
        return wanted or self.model.prompting.max_new_tokens or REPLY_TOKENS

    def length(self, query: Turn | None = None, talk: Sequence[Turn] = (), taught: bool = True) -> int:
        """How many tokens a prompt of what was shown, of `talk` and of a query has, whether or not they fit."""
        self._recall()
        turns = [*(self.rounds if taught else ()), *talk]
        return self.scorer.length(build_messages(turns, self.scaffold, query)) if turns or query else 0

    def query(self, picture: str | Path, question: str = "") -> Turn:
        """A question about a picture, which is known by its content from now on."""
        content = self._content(Path(picture))
        self.scorer.sources.setdefault(content, (content, Path(picture)))
        return Turn(content, "", "", question)

    @property
    def rounds(self) -> list[Turn]:
        """What stands before a question: one of each name at a time, as many as are shown."""
        self._recall()
        most = self.shots_per_class or self._room()
        rows = {name: self._chosen(name, items, most) for name, items in self.shown.items()}
        return in_rounds(rows)

    @property
    def held(self) -> PrefixCache | None:
        """What was shown, with its keys and values; None where whole prompts are run, or nothing was shown."""
        turns = tuple(self.rounds)
        if self._held is None or self._held[0] != turns:
            prompts = [build_messages(turns, self.scaffold, Turn(item, "", "")) for item in CHECKED]
            self._held = turns, self.scorer.prefill(prompts) if turns else None
        return self._held[1]

    @held.setter
    def held(self, held: PrefixCache) -> None:
        self._held = tuple(self.rounds), held

    @property
    def leaning(self) -> list[float]:
        """How much each name is preferred whatever is in a picture, in nats: long names are said more rarely.

        The mean log-probability among the names over the pictures that are shown, of which each name has as many (batch
        calibration, arXiv 2309.17249, on the support). With rices each of these pictures is asked about after a support
        of its own, without itself. 0 where names have different numbers of pictures, and where whole prompts are
        run, which would be asked as often as there are pictures.
        """
        turns = self.rounds
        key = turns, self._content_key  # with rices any picture may be shown, not only those of `turns`
        if self._leaning is None or self._leaning[0] != key:
            counts = {sum(turn.answer == name for turn in turns) for name in self.shown}
            even = self.scorer.engine != "naive" and len(counts) == 1
            mean = self._shown_chances(turns).mean(0).tolist() if even else [0.0] * len(self.shown)
            self._leaning = key, mean
        return self._leaning[1]

    @leaning.setter
    def leaning(self, leaning: list[float]) -> None:
        self._leaning = (self.rounds, self._content_key), leaning

    def _shown_chances(self, turns: Sequence[Turn]) -> Tensor:
        """float64[turns, names]: log-probabilities of the names for pictures of the support."""
        queries = [Turn(turn.item, "", "") for turn in turns]
        if self.select != "rices":
            return self._chances(queries, turns, self.held)
        return torch.cat([self._chances([q], self._likest(q.item, itself=False), None) for q in queries])

    @property
    def point(self) -> Point | None:
        """When a picture is none of what was shown. None below 20 pictures with features, or
        where a name has one alone."""
        key = self._content_key
        if self._point is None or self._point[0] != key:
            self._point = key, self._leave_out()
        return self._point[1]

    def path(self, content: str) -> Path:
        """Where a picture lay when it was taught."""
        return Path(self.scorer.sources[content][1])

    def _support(self, query: Turn) -> tuple[list[Turn], PrefixCache | None]:
        """What stands before this query, and what of it is kept."""
        if self.select == "rices":
            return self._likest(query.item), None
        return self.rounds, self.held

    def _chances(self, queries: Sequence[Turn], turns: Sequence[Turn], held: PrefixCache | None) -> Tensor:
        """float64[queries, names]: log-probability of each name among those that were taught."""
        scores = []
        for chunk in chunks(queries, ASKED):
            asks = []
            for query in chunk:
                messages = build_messages(turns, self.scaffold, query)
                asks.append(
                    ScoringRequest(messages, tuple(with_answer(messages, self.scaffold, name) for name in self.shown))
                )
            scores += [[value for value, _ in row] for row in self.scorer.score(asks, held)]
        return torch.tensor(scores, dtype=torch.double).log_softmax(-1)

    def _content(self, path: Path) -> str:
        """The hash of a picture's file, or of the file in which the same picture was taught."""
        content, looks = sha256(_picture(path)), pixels(path)
        return next((item for item, known in self.pixels.items() if known == looks), content)

    def _look(self, contents: Sequence[str]) -> dict[str, ImageFeatures]:
        """What is seen in pictures that are to be kept; nothing where whole prompts are run."""
        if self.scorer.engine == "naive":
            return {}
        self.scorer.eyes.encode([(content, *self.scorer.sources[content]) for content in contents])
        return {content: self.scorer.eyes.get(content) for content in contents}

    def _recall(self) -> None:
        """Have what was shown at hand: it may have no file any more."""
        for content in self.seen:
            self.scorer.eyes.pin(content, self.seen[content])

    # Choosing

    def _room(self) -> int:
        """As many pictures of each name as fit into the context and leave room for a question."""
        most, key = max(map(len, self.shown.values()), default=0), self._content_key
        if self._most is None or self._most[0] != key:
            self._most = key, next(self._fitting(most)) if most else 0
            if self._most[1] < most:
                log.warning(
                    "%d pictures of each name are shown, those that stand for the others best: no more fit into a "
                    "context of %d tokens",
                    self._most[1],
                    self.model.context,
                )
        return self._most[1]

    def _fitting(self, most: int) -> Iterator[int]:
        for count in range(most, 0, -1):
            turns = in_rounds({name: self._chosen(name, items, count) for name, items in self.shown.items()})
            try:
                self.scorer.prompt(build_messages(turns, self.scaffold, turns[0], max(self.shown, key=len)))
            except InputError:
                if count == 1:
                    raise
                continue
            yield count

    @property
    def _content_key(self) -> tuple[Any, ...]:
        """What was taught, for what is kept of it."""
        return tuple((name, *items) for name, items in self.shown.items())

    def _chosen(self, name: str, items: list[str], most: int) -> list[str]:
        if len(items) <= most:
            return items
        if self.select == "random" or not self.seen:
            order = rng("select", name, len(items)).permutation(len(items))[:most].tolist()
        else:
            order = medoids(self._vectors(items), most)
        return [items[place] for place in order]

    def _likest(self, content: str, itself: bool = True) -> list[Turn]:
        """The pictures most like one, of whatever names, as many as there would be otherwise."""
        if not self.seen:
            raise InputError("select rices: this engine runs whole prompts and has no features. Use random.")
        self._recall()
        self.scorer.eyes.encode([(content, *self.scorer.sources[content])])
        named = [(item, name) for name, items in self.shown.items() for item in items if itself or item != content]
        vectors = self._vectors([item for item, _ in named])
        count = (self.shots_per_class or 1) * len(self.shown)
        order = rices(vector(self.scorer.eyes.get(content)), vectors, count)
        return [Turn(named[place][0], named[place][1], named[place][1]) for place in order]

    # Likeness

    def _vectors(self, items: Iterable[str]) -> Tensor:
        """float32[n, width] of pictures that were shown."""
        for item in items:
            if item not in self._looks:
                self._looks[item] = vector(self.seen[item])
        return torch.stack([self._looks[item] for item in items])

    def _likeness(self, asked: Tensor) -> tuple[float, tuple[Neighbour, ...]]:
        """The cosine of a picture with the nearest mean of a concept, and the pictures that it is most like."""
        pairs = [(name, item) for name, items in self.shown.items() for item in items]
        vectors = self._vectors([item for _, item in pairs])
        names = [name for name, _ in pairs]
        means = [vectors[[n == name for n in names]].mean(0) for name in dict.fromkeys(names)]
        fit = float((F.normalize(torch.stack(means), dim=-1) @ asked).max())
        alike = (vectors @ asked).topk(min(NEAREST, len(pairs)))
        places = zip(alike.indices.tolist(), alike.values.tolist(), strict=True)
        return fit, tuple(Neighbour(names[place], pairs[place][1], value) for place, value in places)

    def _leave_out(self) -> Point | None:
        """The highest fit that keeps nearly all pictures of taught concepts, each left out, and what it refuses."""
        pairs = [(name, item) for name, items in self.shown.items() for item in items]
        if len(pairs) < FEWEST or len(self.shown) < 2 or not self.seen or min(map(len, self.shown.values())) < 2:
            return None
        vectors = dict(zip((item for _, item in pairs), self._vectors([item for _, item in pairs]), strict=True))
        sums = {name: torch.stack([vectors[i] for i in items]).sum(0) for name, items in self.shown.items()}
        means = {name: F.normalize(total, dim=-1) for name, total in sums.items()}
        own, other = [], []
        for name, item in pairs:
            alone = F.normalize(sums[name] - vectors[item], dim=-1)
            strange = max(float(mean @ vectors[item]) for its, mean in means.items() if its != name)
            own.append(max(float(alone @ vectors[item]), strange))
            other.append(strange)
        kept, refused = torch.tensor(own, dtype=torch.double), torch.tensor(other, dtype=torch.double)
        levels = torch.unique(torch.cat([kept, refused]))
        borders = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2])  # halfway, so that nothing lies on one
        above = (kept[None] >= borders[:, None]).double().mean(1)
        best = int((above >= KEPT).nonzero().max())
        border = borders[best]
        return Point(float(border), float(above[best]), float((refused < border).double().mean()), len(pairs))
