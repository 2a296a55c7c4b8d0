"""From episodes to predictions: the prompts of each query, what the model makes of them, and the records of it."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from linkcontext.config import Scoring
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message, Scaffold, query_messages
from linkcontext.errors import InputError
from linkcontext.evaluation import checks
from linkcontext.evaluation.baselines import baselines
from linkcontext.evaluation.metrics import LIKELIHOODS, available_scorings, credit
from linkcontext.models.prompting import REPLY_TOKENS
from linkcontext.models.synthetic_images import BLANK
from linkcontext.progress import progress
from linkcontext.records import Episode, Prediction, Score, appending, read_jsonl
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest

SAMPLE = 16  # episodes whose prompts a folder is compared by
GROUP = 4  # episodes whose prompts are batched together where nothing is shared


@dataclass(frozen=True)
class Evaluator:
    """A model, a data set and a wording: everything a prediction needs besides its episode."""

    scorer: ScoringModel
    dataset: Dataset
    scaffold: Scaffold
    likelihood: bool
    generate: bool
    grey: bool = True  # whether likelihoods are asked with a grey query picture too, for PMI
    calibrate: bool = False  # whether the support's pictures are asked about too, for calibrated likelihoods
    new_tokens: int = REPLY_TOKENS  # of a reply

    @classmethod
    def of(
        cls, scorer: ScoringModel, dataset: Dataset, scaffold: Scaffold, scoring: Scoring, calibrate: bool = False
    ) -> "Evaluator":
        """An evaluator that scores as asked, or by replies alone where the model gives no log-probabilities."""
        likelihood = scoring in ("likelihood", "both") and not scorer.lacks("log-probabilities")
        return cls(
            scorer,
            dataset,
            scaffold,
            likelihood,
            generate=not likelihood or scoring == "both",
            calibrate=calibrate,
            new_tokens=scorer.card.prompting.max_new_tokens or REPLY_TOKENS,
        )


def append_predictions(
    evaluator: Evaluator, episodes: Sequence[Episode], path: Path, every: Sequence[Episode] | None = None
) -> None:
    """Append the predictions that `path` does not hold yet, a group of episodes at a time.

    `every` holds all episodes whose predictions may be in the file, by default `episodes`. Raises `InputError` for a
    prediction in the file that belongs to none of them.
    """
    known = checks.episodes_by_id(episodes if every is None else every, str(path.with_name("episodes.jsonl")))
    with appending(path) as append, progress("Asking", len(episodes)) as advance:
        there = checks.check_predictions(known, read_jsonl(Prediction, path), str(path))
        _check_kind(evaluator, there, path)
        done = {(p.query_id, p.shots_per_class) for p in there}
        left = [
            e
            for e in episodes
            if not all((e.query_id(q), k) in done for q in range(len(e.queries)) for k in e.shots_per_class)
        ]
        for _ in range(len(episodes) - len(left)):
            advance()
        size = GROUP if evaluator.scorer.lacks("shared prefixes") else 1
        for start in range(0, len(left), size):
            group = left[start : start + size]
            append([p for p in predict_episodes(evaluator, group) if (p.query_id, p.shots_per_class) not in done])
            for _ in group:
                advance()


def _check_kind(evaluator: Evaluator, there: Sequence[Prediction], path: Path) -> None:
    """Raise an `InputError` if the predictions that are there were not scored as the others will be."""
    for prediction in there:
        calibrate = evaluator.calibrate and prediction.shots_per_class > 0
        wanted = {"likelihood_pmi": evaluator.grey, "likelihood_calibrated": calibrate}
        kinds = {scoring for scoring in LIKELIHOODS if evaluator.likelihood and wanted.get(scoring, True)}
        if {*available_scorings(prediction)} != kinds | ({"generate"} if evaluator.generate else set()):
            raise InputError(
                f"{path}: its predictions hold other scores than are asked for now. They were edited, or the server "
                "gives no likelihoods any more. Choose another --out, or remove it."
            )


@dataclass(frozen=True, slots=True)
class QueryCase:
    """One query at one shot count."""

    episode: Episode
    query: int
    shots_per_class: int


def predict_episodes(evaluator: Evaluator, episodes: Sequence[Episode]) -> Iterator[Prediction]:
    """The predictions of some episodes."""
    cases = [QueryCase(e, q, k) for e in episodes for k in e.shots_per_class for q in range(len(e.queries))]
    scores: dict[int, list[tuple[float, int]]] = {}
    nulls: dict[tuple[str, int, str, int], Sequence[tuple[float | None, int]]] = {}
    if evaluator.likelihood:
        asks = [_ask(evaluator, case) for case in cases]
        blind = {_blind(c): c for c in cases}
        blind = blind if evaluator.grey else {}
        found = evaluator.scorer.score([*asks, *(_ask(evaluator, case, grey=True) for case in blind.values())])
        scores = dict(enumerate(found[: len(asks)]))
        nulls = dict(zip(blind, found[len(asks) :], strict=True))
    priors = _priors(evaluator, cases) if evaluator.likelihood and evaluator.calibrate else {}
    make = partial(_messages, evaluator)
    prompts = [make(case) for case in cases] if evaluator.generate else []
    replies = evaluator.scorer.generate(prompts, evaluator.new_tokens) if evaluator.generate else [None] * len(cases)
    for i, (case, reply) in enumerate(zip(cases, replies, strict=True)):
        e, query = case.episode, case.episode.queries[case.query]
        null = nulls.get(_blind(case), [(None, 0)] * len(e.candidates))
        candidates = tuple(
            Score(c.class_id, c.name, value, grey, tokens, prior)
            for c, (value, tokens), (grey, _), prior in zip(
                e.candidates,
                scores.get(i, []),
                null,
                priors.get((e.id, case.shots_per_class), [None] * len(e.candidates)),
                strict=False,
            )
        )
        prediction = Prediction(
            e.id,
            e.query_id(case.query),
            case.shots_per_class,
            candidates,
            query.class_id,
            reply,
            {},
            evaluator.scorer.prompt(make(case)).sha256(),
            tuple(turn.item for turn in e.shown(case.shots_per_class)),
            baselines(evaluator.scorer, e, case.shots_per_class, query),
            evaluator.scorer.engine,
        )
        correct = {s: credit(prediction, s, e.candidates) == 1 for s in available_scorings(prediction)}
        yield dataclasses.replace(prediction, correct=correct)


def _priors(evaluator: Evaluator, cases: Sequence[QueryCase]) -> dict[tuple[str, int], list[float]]:
    """For each episode and shots per class above 0: each candidate's mean log-probability among the candidates over the
    support's own pictures (batch calibration, arXiv 2309.17249, on the support), as `ask` subtracts it.

    Each class has as many of these pictures as any other, and each picture is asked about with itself in the support.
    """
    supports = {(case.episode.id, case.shots_per_class): case for case in cases if case.shots_per_class > 0}
    asks: list[ScoringRequest] = []
    for case in supports.values():
        shown = case.episode.shown(case.shots_per_class)
        queries = dataclasses.replace(case.episode, queries=shown)
        asks += [_ask(evaluator, QueryCase(queries, place, case.shots_per_class)) for place in range(len(shown))]
    rows = iter(evaluator.scorer.score(asks))
    priors = {}
    for key, case in supports.items():
        scores = np.array([[value for value, _ in next(rows)] for _ in case.episode.shown(case.shots_per_class)])
        priors[key] = (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).mean(0).tolist()
    return priors


def _blind(case: QueryCase) -> tuple[str, int, str, int]:
    """What two queries must share to be the same without their pictures."""
    query = case.episode.queries[case.query]
    return case.episode.id, case.shots_per_class, query.question, len(query.others)


def _messages(evaluator: Evaluator, case: QueryCase, answer: str | None = None, grey: bool = False) -> list[Message]:
    episode = case.episode
    if grey:
        asked = episode.queries[case.query]
        blind = dataclasses.replace(asked, item=BLANK, others=(BLANK,) * len(asked.others))
        queries = tuple(blind if i == case.query else q for i, q in enumerate(episode.queries))
        episode = dataclasses.replace(episode, queries=queries)
    return query_messages(episode, case.query, case.shots_per_class, evaluator.scaffold, answer)


def _ask(evaluator: Evaluator, case: QueryCase, grey: bool = False) -> ScoringRequest:
    answers = tuple(_messages(evaluator, case, c.name, grey) for c in case.episode.candidates)
    return ScoringRequest(_messages(evaluator, case, grey=grey), answers)


def sample_prompts(evaluator: Evaluator, episodes: Sequence[Episode]) -> list[list[Message]]:
    """Conversations with each answer, of episodes spread evenly over all of them, at their fewest and most shots."""
    step = max(1, len(episodes) // SAMPLE)
    return [
        _messages(evaluator, QueryCase(episode, place % len(episode.queries), shots), candidate.name)
        for place, episode in enumerate(episodes[::step][:SAMPLE])
        for shots in sorted({episode.shots_per_class[0], episode.shots_per_class[-1]})
        for candidate in episode.candidates
    ]


def check_fits(evaluator: Evaluator, episodes: Sequence[Episode]) -> None:
    """A support that does not fit is refused before anything is written: `LocalModel.check` of the longest prompts."""
    longest = max(episodes, key=_size)
    for candidate in longest.candidates:
        evaluator.scorer.check(_messages(evaluator, QueryCase(longest, 0, longest.shots_per_class[-1]), candidate.name))


def _size(episode: Episode) -> tuple[int, int]:
    """Pictures and letters of the longest prompt, about."""
    shown = episode.shown(episode.shots_per_class[-1])
    said = (*shown, *episode.queries[:1])
    return sum(len(turn.pictures) for turn in said), sum(len(turn.question) + len(turn.answer) for turn in said)
