"""One evaluation: data, episodes, predictions, metrics, report. Killed at any moment, it goes on where it was."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from linkcontext.config import EpisodeConfig, EvalConfig, ModelConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.ids import RICES
from linkcontext.episodes.link import SampledEpisodes, copy_first, copy_last
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.episodes.scaffold import Message, Scaffold, load_scaffold, query_messages, refuse_scaffold
from linkcontext.episodes.special_tokens import refuse_marked_episodes
from linkcontext.errors import InputError
from linkcontext.evaluation import checks, lcl_metric
from linkcontext.evaluation.aggregate import mean_rows, shot_curves, type_of
from linkcontext.evaluation.attribution import write_attribution
from linkcontext.evaluation.draw import draw_episodes
from linkcontext.evaluation.medoids import majority
from linkcontext.evaluation.metrics import (
    LIKELIHOODS,
    available_scorings,
    credit,
    grouped,
    metric_rows,
)
from linkcontext.evaluation.nearest import nearest
from linkcontext.evaluation.open_run import open_run_dir, run_identity
from linkcontext.evaluation.support_selection import select_supports
from linkcontext.models.loading import load
from linkcontext.models.model import Model
from linkcontext.models.prompting import REPLY_TOKENS, USUAL_PROMPTING
from linkcontext.models.synthetic_images import BLANK
from linkcontext.progress import progress
from linkcontext.records import Episode, Prediction, Score, Turn, appending, read_jsonl
from linkcontext.scoring.connection import PREFIX, connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest, require
from linkcontext.scoring.remote import RemoteModel
from linkcontext.source import open_data
from linkcontext.storage import write_text

log = logging.getLogger("linkcontext")
SAMPLE = 16  # episodes whose prompts a folder is compared by
GROUP = 4  # episodes whose prompts are batched together where nothing is shared


def evaluate(config: EvalConfig, model: ScoringModel | None = None) -> dict[str, Any]:
    """Run `config` and write its folder; the content of metrics.json.

    With `model` that one is used instead of loading `config.model`. A folder that holds the same run goes on
    where it stopped; one that holds another is an `InputError`.
    """
    load_scaffold(config.scaffold)  # a wrong one is said before a model is loaded
    dataset = open_data(config.episodes.data, config.episodes.strict)
    sampled = draw_episodes(config.episodes, dataset)
    model = model or opened(config.model)
    dataset, sampled = drawn_for(model, config.episodes, dataset, sampled)
    left_out = [f"{c.class_id}: left out, {c.shortfall}" for c in sampled.left_out]
    return evaluate_episodes(config, dataset, sampled.episodes, left_out, model)


def drawn_for(
    model: ScoringModel, config: EpisodeConfig, dataset: Dataset, sampled: SampledEpisodes
) -> tuple[Dataset, SampledEpisodes]:
    """A data set and its episodes without pictures that the model's image processor refuses, drawn again if needed.

    With --strict, raises `InputError` for the first such picture.
    """
    while (left := model.pictures.without_refused(dataset, _used(sampled.episodes), config.strict)) is not dataset:
        dataset, sampled = left, draw_episodes(config, left)
    return dataset, sampled


def _used(episodes: Sequence[Episode]) -> dict[str, None]:
    """The ids of the pictures of some episodes, each once, in order."""
    turns = (turn for episode in episodes for turn in (*episode.support, *episode.queries))
    return dict.fromkeys(item for turn in turns for item in turn.pictures)


def evaluate_episodes(
    config: EvalConfig,
    dataset: Dataset,
    episodes: Sequence[Episode],
    left_out: Sequence[str] = (),
    model: ScoringModel | None = None,
) -> dict[str, Any]:
    """`evaluate` for episodes that are already there, drawn or a benchmark's own."""
    wording = load_scaffold(config.scaffold)
    if config.episodes.tasks:
        types = {type_of(episode.task)[0] for episode in episodes} | {
            told.partition("/")[0] for told in left_out if "/" in told.partition(":")[0]
        }
        if unknown := sorted({*config.unseen} - types - {*HELD_OUT}):
            raise InputError(f"--unseen {unknown[0]}: no such type of task here; there is {', '.join(sorted(types))}.")
    model = opened(config.model) if model is None else prompted(model, config.model)
    model.pictures.without_refused(dataset, _used(episodes), strict=True)
    out = run_folder(config)
    evaluator = Evaluator.of(model, dataset, wording, config)
    if config.episodes.select != "random":
        require(evaluator.scorer, "image features", f"--select {config.episodes.select}")
        episodes = select_supports(config.episodes, dataset, evaluator.scorer)
    refuse_scaffold(wording, evaluator.scorer.card.special_tokens)
    refuse_marked_episodes(episodes, evaluator.scorer.card.special_tokens)
    check_fits(evaluator, episodes)
    about = run_identity(model, wording, sample_prompts(evaluator, episodes))
    open_run_dir(out / "episodes.jsonl", episodes, config, model, dataset, [*dataset.problems, *left_out], about)
    append_predictions(evaluator, episodes, out / "predictions.jsonl")
    evaluator.scorer.pictures.save()
    found = write_metrics(
        out,
        episodes,
        evaluator.scorer.counters(),
        with_legacy=config.scoring == "lcl-legacy",
        unseen=config.unseen if config.episodes.tasks else None,
    )
    predictions = tuple(read_jsonl(Prediction, out / "predictions.jsonl"))
    write_attribution(evaluator.scorer, wording, episodes, predictions, out, config.explain)
    return found


def local(c: ModelConfig, download: bool = True) -> Model:
    """The model of a configuration, loaded here; without `download` from this machine alone."""
    return load(c.model, c.dtype, c.device, c.adapter, c.trust_remote_code, c.load_in_4bit, download, c.prompting)


def opened(c: ModelConfig) -> ScoringModel:
    """The model of a configuration, loaded here or behind a server, without pictures yet."""
    if not c.model.startswith(PREFIX):
        return LocalModel.of(local(c))
    if idle := flags(c, ModelConfig(c.model, **dataclasses.asdict(c.prompting))):
        raise InputError(f"{', '.join(idle)}: the server of {c.model} has loaded its model already. Leave it out.")
    return RemoteModel(connect(c.model, c.prompting))


def prompted(model: ScoringModel, c: ModelConfig) -> ScoringModel:
    """A loaded model, prompted as the configuration says; with the default options it keeps its own."""
    return model if c.prompting == USUAL_PROMPTING else model.clone(c.prompting)


def sample_prompts(evaluator: "Evaluator", episodes: Sequence[Episode]) -> list[list[Message]]:
    """Conversations with each answer, of episodes spread evenly over all of them, at their fewest and most shots."""
    step = max(1, len(episodes) // SAMPLE)
    return [
        _messages(evaluator, QueryCase(episode, place % len(episode.queries), shots), candidate.name)
        for place, episode in enumerate(episodes[::step][:SAMPLE])
        for shots in sorted({episode.shots_per_class[0], episode.shots_per_class[-1]})
        for candidate in episode.candidates
    ]


def check_fits(evaluator: "Evaluator", episodes: Sequence[Episode]) -> None:
    """A support that does not fit is refused before anything is written: `LocalModel.check` of the longest prompts."""
    longest = max(episodes, key=_size)
    for candidate in longest.candidates:
        evaluator.scorer.check(_messages(evaluator, QueryCase(longest, 0, longest.shots_per_class[-1]), candidate.name))


def _size(episode: Episode) -> tuple[int, int]:
    """Pictures and letters of the longest prompt, about."""
    shown = episode.shown(episode.shots_per_class[-1])
    said = (*shown, *episode.queries[:1])
    return sum(len(turn.pictures) for turn in said), sum(len(turn.question) + len(turn.answer) for turn in said)


def write_metrics(
    out: Path,
    episodes: Sequence[Episode],
    counters: dict[str, Any],
    with_legacy: bool = False,
    unseen: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Metrics of the predictions in a run's folder; with types of tasks that are `unseen`, means over tasks too."""
    asked = {e.id: e for e in episodes}
    predictions = checks.check_predictions(
        asked, read_jsonl(Prediction, out / "predictions.jsonl"), str(out / "predictions.jsonl")
    )
    found = metric_rows(asked, predictions) + (lcl_metric.lcl_rows(asked, predictions) if with_legacy else [])
    metrics = {"rows": found, "counters": with_engines(counters, (p.engine for p in predictions), out)}
    if unseen is not None:
        means = mean_rows(found, unseen, grouped(asked, predictions))
        metrics |= {"means": means, "curves": shot_curves(means)}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


def with_engines(counters: dict[str, Any], engines: Iterable[str], out: Path) -> dict[str, Any]:
    """The counters of a run, with the number of answers of each engine if not all are of the one named there: a run may
    be resumed with another engine."""
    counts = Counter(engine or "not recorded" for engine in engines)
    if counts.keys() <= {counters.get("engine")}:
        return counters
    listed = ", ".join(f"{engine} {count}" for engine, count in sorted(counts.items()))
    log.warning("%s: its answers were computed by these engines: %s.", out, listed)
    return {**counters, "engines": listed}


def run_folder(config: EvalConfig) -> Path:
    """Where a run's files go."""
    if config.out is not None:
        return Path(config.out)
    e = config.episodes
    chosen_ = (e.select,) if e.select != "random" else ()
    words = [
        Path(config.model.model).name.replace("#", "-"),
        Path(e.data).name.replace(":", "-"),
        *(
            (*(task.replace("/", "-") for task in e.tasks), e.format, e.coherence)
            if e.tasks
            else (f"{e.ways}way", e.names, *chosen_)
        ),
        config.scoring,
        f"seed{e.seed}",
    ]
    return Path("runs") / "-".join(words)


@dataclass(frozen=True)
class Evaluator:
    """A model, a data set and a wording: everything a prediction needs besides its episode."""

    scorer: ScoringModel
    dataset: Dataset
    wording: Scaffold
    likelihood: bool
    generate: bool
    grey: bool = True  # whether likelihoods are asked with a grey query picture too, for PMI
    calibrate: bool = False  # whether the support's pictures are asked about too, for calibrated likelihoods
    new_tokens: int = REPLY_TOKENS  # of a reply

    @classmethod
    def of(cls, model: ScoringModel, dataset: Dataset, wording: Scaffold, config: EvalConfig) -> "Evaluator":
        """From a configuration."""
        sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
        scorer = model.with_pictures(sources, config.batch, config.engine, config.memory_gb)
        likelihood = config.scoring in ("likelihood", "both") and not scorer.lacks("log-probabilities")
        return cls(
            scorer,
            dataset,
            wording,
            likelihood,
            generate=not likelihood or config.scoring == "both",
            calibrate=config.calibrate,
            new_tokens=model.card.prompting.max_new_tokens or REPLY_TOKENS,
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
            baselines(evaluator, e, case.shots_per_class, query),
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


def _messages(
    evaluator: Evaluator, case: QueryCase, answer: str | None = None, grey: bool = False
) -> list[dict[str, Any]]:
    episode = case.episode
    if grey:
        asked = episode.queries[case.query]
        blind = dataclasses.replace(asked, item=BLANK, others=(BLANK,) * len(asked.others))
        queries = tuple(blind if i == case.query else q for i, q in enumerate(episode.queries))
        episode = dataclasses.replace(episode, queries=queries)
    return query_messages(episode, case.query, case.shots_per_class, evaluator.wording, answer)


def _ask(evaluator: Evaluator, case: QueryCase, grey: bool = False) -> ScoringRequest:
    answers = tuple(_messages(evaluator, case, c.name, grey) for c in case.episode.candidates)
    return ScoringRequest(_messages(evaluator, case, grey=grey), answers)


def baselines(evaluator: Evaluator, episode: Episode, shots_per_class: int, query: Turn) -> dict[str, str | None]:
    """What policies without a language model would answer: the class id, or None where there is no support.

    The majority of the support answers where it was chosen for the query; elsewhere it is balanced.
    """
    shown = episode.shown(shots_per_class)
    found: dict[str, str | None] = {"copy_first": copy_first(shown), "copy_last": copy_last(shown)}
    if episode.task.endswith(RICES):
        found["majority"] = majority([turn.class_id for turn in shown])
    if evaluator.scorer.lacks("image features"):
        return found
    sources = evaluator.scorer.sources
    if any(turn.item not in sources for turn in shown):  # a blank is near nothing
        return found
    if any(turn.others for turn in (*shown, query)):  # several pictures are no one point to be near to
        return found
    seen = evaluator.scorer.pictures.features([turn.item for turn in (*shown, query)], alone=not shown)
    pooled = [s.pooled for s in seen if s.pooled is not None]
    for kind, vectors in (("tokens", [s.mean for s in seen]), ("pooled", pooled)):
        if not vectors:  # a tower without a summary
            continue
        *supports, asked = vectors
        centroid, support = nearest(asked, supports, [turn.class_id for turn in shown])
        found |= {f"nearest_centroid_{kind}": centroid, f"nearest_support_{kind}": support}
    return found
