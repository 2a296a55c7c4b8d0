"""Episodes to look at: which ones a page shows, and what it says about each of their queries."""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.images import thumbnail_png
from linkcontext.errors import InputError
from linkcontext.evaluate import metrics
from linkcontext.evaluate.metrics import Key, Pair
from linkcontext.records import Episode, Prediction
from linkcontext.seeds import key as stream_key

EDGE = 112  # pixels: sharp at 72 points on most screens, and some 5 kB a picture
SHOTS_PER_CLASS = 4  # more would fill a page with support
RIGHT, WRONG, TIED = "right", "wrong", "tied"


@dataclass(frozen=True, slots=True)
class Picture:
    """`uri` is the picture itself as a data URI; None where it is gone, and `label` says why."""

    uri: str | None
    label: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture under the name it has in the episode. `truth` is what people call it, empty if the same."""

    picture: Picture
    name: str
    truth: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A candidate and its share of the probability."""

    name: str
    probability: float
    chosen: bool
    gold: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A query and what became of it; verdicts are None for a scoring that did not run."""

    shown: Shown
    bars: tuple[Bar, ...]
    verdict: str | None
    reply: str | None
    reply_verdict: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """One episode of the gallery."""

    id: str
    names: tuple[str, ...]
    support: tuple[Shown, ...]
    queries: tuple[Query, ...]
    right: float


@dataclass(frozen=True, slots=True)
class Gallery:
    """`wrong` episodes have a query that is not right, `right` ones have none, `how` says how they were
    drawn, and `missing` pictures could not be shown."""

    how: str
    wrong: tuple[Opened, ...]
    right: tuple[Opened, ...]
    missing: int


def gallery(groups: dict[Key, list[Pair]], root: Path, limit: int = 12) -> Gallery:
    """Up to `limit` episodes, half with a wrong answer and half without, as far as there are any.

    They are taken at the largest shots per class up to 4 (the smallest if all are more) by the summed
    likelihood, or by the replies where only they were scored, and drawn by a hash of their ids: the
    same run always shows the same ones, and they are not simply the first.
    """
    scoring = primary([key.scoring for key in groups])
    shots = chosen_shots([key.shots_per_class for key in groups])
    chosen = {k: pairs for k, pairs in groups.items() if (k.shots_per_class, k.scoring) == (shots, scoring)}
    episodes: dict[str, list[Pair]] = {}
    for episode, prediction in (pair for pairs in chosen.values() for pair in pairs):
        episodes.setdefault(episode.id, []).append((episode, prediction))
    credits = {episode_id: _credit(pairs, scoring) for episode_id, pairs in episodes.items()}
    ordered = sorted(episodes, key=lambda episode_id: stream_key("gallery", episode_id))
    wrong = [episode_id for episode_id in ordered if credits[episode_id] < len(episodes[episode_id])]
    right = [episode_id for episode_id in ordered if credits[episode_id] == len(episodes[episode_id])]
    n_wrong = min(len(wrong), max(limit // 2, limit - len(right)))
    n_right = min(len(right), limit - n_wrong)
    pictures = _Pictures(root)

    def opened(ids: Sequence[str]) -> tuple[Opened, ...]:
        return tuple(_open(episodes[i], scoring, credits[i], pictures.picture) for i in ids)

    how = (
        f"{n_wrong + n_right} of the {len(ordered):,} episodes with {shots} shots per class, judged by "
        f"{scoring.replace('_', ' ')} and drawn by a hash of their ids: {n_wrong} of the {len(wrong):,} that "
        f"have an answer that is not right, {n_right} of the {len(right):,} that have none. The mixture says "
        "nothing about the accuracy."
    )
    return Gallery(how, opened(wrong[:n_wrong]), opened(right[:n_right]), pictures.missing)


def primary(scorings: Sequence[str]) -> str:
    """The scoring a page speaks of where it speaks of one: the first of `SCORINGS` that is there."""
    return next(scoring for scoring in metrics.SCORINGS if scoring in scorings)


def chosen_shots(shots_per_class: Sequence[int]) -> int:
    """The largest shots per class up to 4, else the smallest there is."""
    few = [shots for shots in shots_per_class if shots <= SHOTS_PER_CLASS]
    return max(few) if few else min(shots_per_class)


def probabilities(prediction: Prediction, scoring: str) -> dict[str, float]:
    """Softmax over the candidates of their scores: class id -> probability."""
    scores = metrics.candidate_scores(prediction, scoring)
    top = max(scores.values())
    weights = {class_id: math.exp(score - top) for class_id, score in scores.items()}
    total = math.fsum(weights.values())
    return {class_id: weight / total for class_id, weight in weights.items()}


def verdict(prediction: Prediction, scoring: str, episode: Episode) -> str:
    """Right, wrong, or tied: the right class among several that score the same."""
    share = metrics.credit(prediction, scoring, episode.candidates)
    return RIGHT if share == 1 else WRONG if share == 0 else TIED


def _credit(pairs: Sequence[Pair], scoring: str) -> float:
    return math.fsum(metrics.credit(prediction, scoring, episode.candidates) for episode, prediction in pairs)


def _open(pairs: Sequence[Pair], scoring: str, right: float, picture: Callable[[str], Picture]) -> Opened:
    episode = pairs[0][0]
    truths = {candidate.class_id: candidate.truth for candidate in episode.candidates}
    names = {candidate.class_id: candidate.name for candidate in episode.candidates}

    def shown(item: str, class_id: str, name: str) -> Shown:
        return Shown(picture(item), name, "" if truths[class_id] == name else truths[class_id])

    shots = pairs[0][1].shots_per_class
    support = tuple(shown(turn.item, turn.class_id, turn.answer) for turn in episode.shown(shots))
    items = {episode.query_id(index): query.item for index, query in enumerate(episode.queries)}
    queries = tuple(_query(episode, p, scoring, shown(items[p.query_id], p.gold, names[p.gold])) for _, p in pairs)
    return Opened(episode.id, tuple(names.values()), support, queries, right)


def _query(episode: Episode, prediction: Prediction, scoring: str, shown: Shown) -> Query:
    by_likelihood, replied = scoring != "generate", prediction.reply is not None
    bars: tuple[Bar, ...] = ()
    if by_likelihood:
        shares = probabilities(prediction, scoring)
        best = metrics.favourites(prediction, scoring, episode.candidates)
        bars = tuple(
            Bar(c.name, shares[c.class_id], c.class_id in best, c.class_id == prediction.gold)
            for c in episode.candidates
        )
    return Query(
        shown,
        bars,
        verdict(prediction, scoring, episode) if by_likelihood else None,
        prediction.reply,
        verdict(prediction, "generate", episode) if replied else None,
    )


class _Pictures:
    """Thumbnails below a root, each made once. A report outlives its pictures, so a gone one is no error."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, Picture] = {}

    @property
    def missing(self) -> int:
        return sum(picture.uri is None for picture in self.made.values())

    def picture(self, item: str) -> Picture:
        if item not in self.made:
            self.made[item] = self._make(item)
        return self.made[item]

    def _make(self, item: str) -> Picture:
        path = self.root / item
        if not path.is_file():
            return Picture(None, f"{item} is gone")
        try:
            png = thumbnail_png(path, EDGE)
        except InputError:
            return Picture(None, f"{item} cannot be read")
        return Picture("data:image/png;base64," + base64.b64encode(png).decode(), item)
