"""From episodes to predictions: build the prompts of each query, score them with a model, and append the records."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from linkcontext.config import HeadName, Scoring
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message, Scaffold, query_messages
from linkcontext.errors import InputError
from linkcontext.evaluation import checks
from linkcontext.evaluation.baselines import baselines
from linkcontext.evaluation.head_task import head_log_probabilities
from linkcontext.evaluation.metrics import LIKELIHOODS, available_scorings, credit
from linkcontext.inference.vision import chunks
from linkcontext.jsonl import read_jsonl
from linkcontext.models.prompting import REPLY_TOKENS
from linkcontext.models.synthetic_images import BLANK
from linkcontext.processes import Processes, append_results
from linkcontext.records import Episode, Prediction, Score
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest, require

SAMPLE = 16  # episodes whose prompts are compared when a run is resumed
GROUP = 4  # episodes whose prompts are batched together if prefixes are not shared
SERVED_GROUP = 16  # the same of a server, which idles while the last answers of a group are computed
Answered = tuple[str, int]  # a query's id and its number of shots per class


@dataclass(frozen=True)
class Evaluator:
    """A model, a data set and a scaffold: everything that a prediction needs besides its episode."""

    scorer: ScoringModel
    dataset: Dataset
    scaffold: Scaffold
    likelihood: bool
    generate: bool
    grey: bool = True  # whether likelihoods are also scored with a grey query picture, for PMI
    calibrate: bool = False  # whether support pictures are also scored as queries, for calibrated likelihoods
    head: HeadName = "lm"  # another head than the language model names the queries too
    new_tokens: int = REPLY_TOKENS  # maximum length of a reply

    @classmethod
    def of(
        cls,
        scorer: ScoringModel,
        dataset: Dataset,
        scaffold: Scaffold,
        scoring: Scoring,
        calibrate: bool = False,
        head: HeadName = "lm",
    ) -> "Evaluator":
        """An evaluator with the given scoring, or with replies only if the model gives no log-probabilities.

        Raises `InputError` for a head that the model cannot have.
        """
        if head != "lm":
            require(scorer, "log-probabilities", f"--head {head}")
        if head not in ("lm", "pairs"):
            require(scorer, "image features", f"--head {head}")
        likelihood = scoring in ("likelihood", "both") and not scorer.lacks("log-probabilities")
        return cls(
            scorer,
            dataset,
            scaffold,
            likelihood,
            generate=not likelihood or scoring == "both",
            calibrate=calibrate or head in ("auto", "mix"),  # whose language model is calibrated, as in `ask`
            head=head,
            new_tokens=scorer.card.prompting.max_new_tokens or REPLY_TOKENS,
        )


def append_predictions(
    evaluator: Evaluator,
    episodes: Sequence[Episode],
    path: Path,
    processes: Processes,
    every: Sequence[Episode] | None = None,
) -> None:
    """Append the predictions that the file lacks, a group of episodes at a time, which `processes` share.

    `every` are all episodes whose predictions the file may contain, by default `episodes`. Raises `InputError` for a
    prediction in the file that belongs to none of them, or that has other scores than the evaluator gives.
    """
    size = 1
    if evaluator.scorer.lacks("shared prefixes"):
        size = SERVED_GROUP if evaluator.scorer.lacks("token ids") else GROUP
    # The groups do not depend on what the file contains: what is batched together can change the last digits.
    groups = list(chunks(episodes, size))

    def answered() -> set[Answered]:
        known = checks.episodes_by_id(episodes if every is None else every, str(path.with_name("episodes.jsonl")))
        kept = checks.check_predictions(known, read_jsonl(Prediction, path), str(path))
        _check_kind(evaluator, kept, path)
        return {_answered(p) for p in kept}

    work = partial(_predictions, evaluator)
    append_results(processes, path, groups, work, Prediction, answered, _wanted, _answered)


def _answered(prediction: Prediction) -> Answered:
    return prediction.query_id, prediction.shots_per_class


def _wanted(episodes: Sequence[Episode]) -> Iterator[Answered]:
    """The queries of some episodes at each number of shots."""
    return ((e.query_id(q), k) for e in episodes for q in range(len(e.queries)) for k in e.shots_per_class)


def _predictions(evaluator: Evaluator, episodes: Sequence[Episode]) -> list[Prediction]:
    return list(predict_episodes(evaluator, episodes))


def _check_kind(evaluator: Evaluator, kept: Sequence[Prediction], path: Path) -> None:
    """Raise `InputError` if the predictions in the file have other scores than the evaluator gives."""
    for prediction in kept:
        calibrate = evaluator.calibrate and prediction.shots_per_class > 0
        headed = evaluator.head != "lm" and prediction.shots_per_class > 0
        wanted = {"likelihood_pmi": evaluator.grey, "likelihood_calibrated": calibrate, "head": headed}
        kinds = {s for s in (*LIKELIHOODS, "head") if evaluator.likelihood and wanted.get(s, True)}
        if {*available_scorings(prediction)} != kinds | ({"generate"} if evaluator.generate else set()):
            raise InputError(
                f"{path}: its predictions have other scores than this run would write. They were edited, or the server "
                "no longer gives likelihoods. Choose another --out, or remove the file."
            )


@dataclass(frozen=True, slots=True)
class QueryCase:
    """A query at a number of shots per class."""

    episode: Episode
    query: int
    shots_per_class: int


def predict_episodes(evaluator: Evaluator, episodes: Sequence[Episode]) -> Iterator[Prediction]:
    """The predictions of some episodes."""
    cases = [QueryCase(e, q, k) for e in episodes for k in e.shots_per_class for q in range(len(e.queries))]
    scores: dict[int, list[tuple[float, int]]] = {}
    nulls: dict[tuple[str, int, str, int], Sequence[tuple[float | None, int]]] = {}
    if evaluator.likelihood:
        requests = [_request(evaluator, case) for case in cases]
        blind = {_blind(case): case for case in cases} if evaluator.grey else {}
        rows = evaluator.scorer.score([*requests, *(_request(evaluator, case, grey=True) for case in blind.values())])
        scores = dict(enumerate(rows[: len(requests)]))
        nulls = dict(zip(blind, rows[len(requests) :], strict=True))
    priors = _priors(evaluator, cases) if evaluator.likelihood and evaluator.calibrate else {}
    heads: dict[int, list[float]] = {}
    if evaluator.likelihood and evaluator.head != "lm":
        heads = head_log_probabilities(evaluator.scorer, evaluator.scaffold, evaluator.head, cases, scores, priors)
    make = partial(_messages, evaluator)
    prompts = [make(case) for case in cases] if evaluator.generate else []
    replies = evaluator.scorer.generate(prompts, evaluator.new_tokens) if evaluator.generate else [None] * len(cases)
    for i, (case, reply) in enumerate(zip(cases, replies, strict=True)):
        e, query = case.episode, case.episode.queries[case.query]
        null = nulls.get(_blind(case), [(None, 0)] * len(e.candidates))
        candidates = tuple(
            Score(c.class_id, c.name, value, grey, tokens, prior, by_head)
            for c, (value, tokens), (grey, _), prior, by_head in zip(
                e.candidates,
                scores.get(i, []),
                null,
                priors.get((e.id, case.shots_per_class), [None] * len(e.candidates)),
                heads.get(i, [None] * len(e.candidates)),
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
    """(episode id, shots per class) -> each candidate's mean log-probability among the candidates over the pictures of
    the support (batch calibration, arXiv 2309.17249, on the support), which `ask` subtracts too.

    Every class has equally many of these pictures, and the support of each query contains the queried picture.
    """
    supports = {(case.episode.id, case.shots_per_class): case for case in cases if case.shots_per_class > 0}
    requests: list[ScoringRequest] = []
    for case in supports.values():
        shown = case.episode.shown(case.shots_per_class)
        queries = dataclasses.replace(case.episode, queries=shown)
        requests += [_request(evaluator, QueryCase(queries, i, case.shots_per_class)) for i in range(len(shown))]
    rows = iter(evaluator.scorer.score(requests))
    priors = {}
    for key, case in supports.items():
        scores = np.array([[value for value, _ in next(rows)] for _ in case.episode.shown(case.shots_per_class)])
        priors[key] = (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).mean(0).tolist()
    return priors


def _blind(case: QueryCase) -> tuple[str, int, str, int]:
    """A key that two queries share if they are equal once their pictures are replaced by grey ones."""
    query = case.episode.queries[case.query]
    return case.episode.id, case.shots_per_class, query.question, len(query.others)


def _messages(evaluator: Evaluator, case: QueryCase, answer: str | None = None, grey: bool = False) -> list[Message]:
    episode = case.episode
    if grey:
        query = episode.queries[case.query]
        blind = dataclasses.replace(query, item=BLANK, others=(BLANK,) * len(query.others))
        queries = tuple(blind if i == case.query else q for i, q in enumerate(episode.queries))
        episode = dataclasses.replace(episode, queries=queries)
    return query_messages(episode, case.query, case.shots_per_class, evaluator.scaffold, answer)


def _request(evaluator: Evaluator, case: QueryCase, grey: bool = False) -> ScoringRequest:
    answers = tuple(_messages(evaluator, case, c.name, grey) for c in case.episode.candidates)
    return ScoringRequest(_messages(evaluator, case, grey=grey), answers)


def sample_prompts(evaluator: Evaluator, episodes: Sequence[Episode]) -> list[list[Message]]:
    """The prompts that identify a run: of evenly spaced episodes, with their fewest and most shots and each answer."""
    step = max(1, len(episodes) // SAMPLE)
    return [
        _messages(evaluator, QueryCase(episode, place % len(episode.queries), shots), candidate.name)
        for place, episode in enumerate(episodes[::step][:SAMPLE])
        for shots in sorted({episode.shots_per_class[0], episode.shots_per_class[-1]})
        for candidate in episode.candidates
    ]


def check_fits(evaluator: Evaluator, episodes: Sequence[Episode]) -> None:
    """Raise `InputError` if the longest prompts do not fit into the model's context, before anything is written."""
    longest = max(episodes, key=_size)
    for candidate in longest.candidates:
        evaluator.scorer.check(_messages(evaluator, QueryCase(longest, 0, longest.shots_per_class[-1]), candidate.name))


def _size(episode: Episode) -> tuple[int, int]:
    """The approximate size of an episode's longest prompt: its numbers of pictures and of characters."""
    turns = (*episode.shown(episode.shots_per_class[-1]), *episode.queries[:1])
    return sum(len(turn.pictures) for turn in turns), sum(len(turn.question) + len(turn.answer) for turn in turns)
