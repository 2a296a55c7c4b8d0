"""The gallery of a report: the episodes that it shows, and the answers to their queries."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.images import data_uri, thumbnail_png
from linkcontext.errors import InputError
from linkcontext.evaluation import metrics
from linkcontext.evaluation.attribution_file import Attribution, QueryAttribution
from linkcontext.evaluation.example_selection import SelectedExamples, select_examples
from linkcontext.evaluation.metrics import Key, Pair
from linkcontext.records import Episode, Prediction, Turn

EDGE = 112  # pixels of a thumbnail: sharp at 72 points on most screens, and about 5 kB
SMALL_EDGE = 48  # pixels of a thumbnail that repeats a picture
LIMIT = 12  # episodes
LEAST_SCALE = 0.1  # minimum nats of a full bar, so that negligible changes get short bars
RIGHT, WRONG, TIED = "right", "wrong", "tied"


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail as a data URI. If the picture is missing, `uri` is None and `label` says why."""

    uri: str | None
    label: str


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """The pictures of a turn with their name in the episode. `truth` is the true name, or empty if it is the same."""

    pictures: tuple[Picture, ...]
    name: str
    truth: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A candidate and its probability among the candidates."""

    name: str
    probability: float
    chosen: bool
    gold: bool


@dataclass(frozen=True, slots=True)
class Change:
    """The change of an answer's log-probability without a support picture, in nats and as a bar from -1 to 1."""

    nats: float
    bar: float


@dataclass(frozen=True, slots=True)
class Ablation:
    """A support picture that was left out, and the change of each explained answer."""

    shown: ShownTurn
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of a query: log-probabilities of the right name, and of the chosen name if it is another."""

    names: tuple[str, ...]
    logprobs: tuple[float, ...]
    left: tuple[Ablation, ...]


@dataclass(frozen=True, slots=True)
class ShownQuery:
    """A query with its answers. Verdicts are None for a scoring that did not run; `why` is None without explanation."""

    shown: ShownTurn
    question: str  # empty for the scaffold's own question
    bars: tuple[Bar, ...]
    verdict: str | None
    reply: str | None
    reply_verdict: str | None
    why: Explanation | None


@dataclass(frozen=True, slots=True)
class ShownEpisode:
    """One episode of the gallery."""

    id: str
    names: tuple[str, ...]
    support: tuple[ShownTurn, ...]
    queries: tuple[ShownQuery, ...]
    right: float


@dataclass(frozen=True, slots=True)
class Gallery:
    """The episodes of a page. `wrong` ones have a query that is not right. `how` says how they were selected, and
    `missing` counts pictures that cannot be shown."""

    how: str
    wrong: tuple[ShownEpisode, ...]
    right: tuple[ShownEpisode, ...]
    missing: int


def gallery(groups: dict[Key, list[Pair]], root: Path, why: Attribution | None = None, limit: int = LIMIT) -> Gallery:
    """Up to `limit` episodes of `select_examples`, or more if more are explained. A run always shows the same ones."""
    picked = select_examples(groups)
    explained = {query.query_id: query for query in why.queries} if why else {}
    with_why = {episode.id for pairs in picked.episodes.values() for episode, p in pairs if p.query_id in explained}
    wrong, right = picked.first(max(limit, len(with_why)))
    pictures = _Pictures(root)

    def opened(ids: Sequence[str]) -> tuple[ShownEpisode, ...]:
        return tuple(_open(picked, i, explained, pictures.picture) for i in ids)

    counted = "per class" if any(key.ways > 1 for key in groups) else "in all"
    how = (
        f"{len(wrong) + len(right)} of the {len(picked.episodes):,} episodes with {picked.shots_per_class} shots "
        f"{counted}, judged by {picked.scoring.replace('_', ' ')} and selected by a hash of their ids: {len(wrong)} of "
        f"the {len(picked.wrong):,} with an answer that is not right, and {len(right)} of the {len(picked.right):,} "
        "without. Their ratio does not reflect the accuracy."
    )
    return Gallery(how, opened(wrong), opened(right), pictures.missing)


def probabilities(prediction: Prediction, scoring: str) -> dict[str, float]:
    """Class id -> probability: the softmax of the scores over the candidates."""
    scores = metrics.candidate_scores(prediction, scoring)
    top = max(scores.values())
    weights = {class_id: math.exp(score - top) for class_id, score in scores.items()}
    total = math.fsum(weights.values())
    return {class_id: weight / total for class_id, weight in weights.items()}


def verdict(prediction: Prediction, scoring: str, episode: Episode) -> str:
    """Right, wrong, or tied if the right class is among several with the best score."""
    share = metrics.credit(prediction, scoring, episode.candidates)
    return RIGHT if share == 1 else WRONG if share == 0 else TIED


def _open(
    picked: SelectedExamples,
    episode_id: str,
    explained: dict[str, QueryAttribution],
    picture: Callable[[str, int], Picture],
) -> ShownEpisode:
    pairs = picked.episodes[episode_id]
    episode = pairs[0][0]
    truths = {candidate.class_id: candidate.truth for candidate in episode.candidates}
    names = {candidate.class_id: candidate.name for candidate in episode.candidates}

    def shown(turn: Turn, class_id: str, name: str, edge: int = EDGE) -> ShownTurn:
        truth = truths.get(class_id, name)  # a support caption may not be a candidate
        pictures = tuple(picture(item, edge) for item in turn.pictures)
        return ShownTurn(pictures, name, "" if truth == name else truth)

    turns = episode.shown(picked.shots_per_class)
    support = tuple(shown(turn, turn.class_id, turn.answer) for turn in turns)

    def why(query_id: str) -> Explanation | None:
        if query_id not in explained:
            return None
        answers = explained[query_id].answers
        most = max([LEAST_SCALE, *(abs(v - a.logprob) for a in answers for v in a.without)])
        left = tuple(
            Ablation(
                shown(turn, turn.class_id, turn.answer, SMALL_EDGE),
                tuple(Change(a.without[i] - a.logprob, (a.without[i] - a.logprob) / most) for a in answers),
            )
            for i, turn in enumerate(turns)
        )
        return Explanation(tuple(names[a.class_id] for a in answers), tuple(a.logprob for a in answers), left)

    turn_of = {episode.query_id(index): query for index, query in enumerate(episode.queries)}
    queries = []
    for _, p in pairs:
        turn = turn_of[p.query_id]
        here = shown(turn, p.gold, names[p.gold])
        queries.append(_query(episode, p, picked.scoring, here, turn.question, why(p.query_id)))
    return ShownEpisode(episode.id, tuple(names.values()), support, tuple(queries), picked.credits[episode_id])


def _query(
    episode: Episode, prediction: Prediction, scoring: str, shown: ShownTurn, question: str, why: Explanation | None
) -> ShownQuery:
    by_likelihood, replied = scoring != "generate", prediction.reply is not None
    bars: tuple[Bar, ...] = ()
    if by_likelihood:
        shares = probabilities(prediction, scoring)
        best = metrics.best_candidates(prediction, scoring, episode.candidates)
        bars = tuple(
            Bar(c.name, shares[c.class_id], c.class_id in best, c.class_id == prediction.gold)
            for c in episode.candidates
        )
    return ShownQuery(
        shown,
        question,
        bars,
        verdict(prediction, scoring, episode) if by_likelihood else None,
        prediction.reply,
        verdict(prediction, "generate", episode) if replied else None,
        why,
    )


class _Pictures:
    """Thumbnails of pictures below a root, each made once. Reports outlive pictures, so a missing one is no error."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[tuple[str, int], Picture] = {}

    @property
    def missing(self) -> int:
        return len({item for (item, _), picture in self.made.items() if picture.uri is None})

    def picture(self, item: str, edge: int) -> Picture:
        if (item, edge) not in self.made:
            self.made[item, edge] = self._make(item, edge)
        return self.made[item, edge]

    def _make(self, item: str, edge: int) -> Picture:
        path = self.root / item
        try:
            gone = not path.is_file()
        except OSError:  # a name that is too long for a file
            gone = True
        if gone:
            return Picture(None, f"{item} is missing")
        try:
            png = thumbnail_png(path, edge)
        except InputError:
            return Picture(None, f"{item} cannot be read")
        return Picture(data_uri("image/png", png), item)
