"""One evaluation: data, episodes, predictions, metrics, report. Killed at any moment, it goes on where it was."""

import dataclasses
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from linkcontext.config import EvalConfig, ModelConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.scan import progress
from linkcontext.data.sources import digest
from linkcontext.episodes.marks import refuse_marked_episodes
from linkcontext.episodes.prompt import Scaffold, prompt, refuse_scaffold, scaffold
from linkcontext.episodes.sample import copy_first, copy_last
from linkcontext.episodes.talk import HELD_OUT
from linkcontext.errors import InputError
from linkcontext.evaluate import legacy
from linkcontext.evaluate.choose import chosen
from linkcontext.evaluate.draw import RICES, drawn
from linkcontext.evaluate.explain import explain
from linkcontext.evaluate.means import curves, summary, type_of
from linkcontext.evaluate.metrics import available, credit, rows
from linkcontext.models.load import Model, load
from linkcontext.models.remote import PREFIX, Remote, Served, connect
from linkcontext.models.score import Ask, Scorer
from linkcontext.models.select import majority
from linkcontext.models.vision import GREY, Eyes, nearest
from linkcontext.records import Episode, Prediction, Score, Turn, appending, read_jsonl, write_jsonl, write_text
from linkcontext.source import open_data

GROUP = 4  # episodes whose prompts are batched together where nothing is shared
# What may change while a run goes on: figures do not depend on it.
FREE = ("out", "batch", "engine", "memory_gb", "explain", "unseen")


def evaluate(config: EvalConfig, model: Model | Served | None = None) -> dict[str, Any]:
    """Run `config` and write its folder; the content of metrics.json.

    With `model` that one is used instead of loading `config.model`. A folder that holds the same run goes on
    where it stopped; one that holds another is an `InputError`.
    """
    dataset = open_data(config.episodes.data, config.episodes.strict)
    sampled = drawn(config.episodes, dataset)
    left_out = [f"{c.class_id}: left out, {c.lacks}" for c in sampled.left_out]
    return measure(config, dataset, sampled.episodes, left_out, model)


def measure(
    config: EvalConfig,
    dataset: Dataset,
    episodes: Sequence[Episode],
    left_out: Sequence[str] = (),
    model: Model | Served | None = None,
) -> dict[str, Any]:
    """`evaluate` for episodes that are already there, drawn or a benchmark's own."""
    wording = scaffold(config.scaffold)
    if config.episodes.tasks:
        types = {type_of(episode.task)[0] for episode in episodes} | {
            told.partition("/")[0] for told in left_out if "/" in told.partition(":")[0]
        }
        if unknown := sorted({*config.unseen} - types - {*HELD_OUT}):
            raise InputError(f"--unseen {unknown[0]}: no such type of task here; there is {', '.join(sorted(types))}.")
    model = model or opened(config.model)
    out = run_folder(config)
    asker = Asker.of(model, dataset, wording, config)
    if config.episodes.select != "random":
        if isinstance(asker.scorer, Remote):
            raise InputError(f"--select {config.episodes.select}: a server shows no features. Use random.")
        episodes = chosen(config.episodes, dataset, asker.scorer)
    refuse_scaffold(wording, asker.scorer.marks)
    refuse_marked_episodes(episodes, asker.scorer.marks)
    fits(asker, episodes)
    claim(out, config, model, dataset, [*dataset.problems, *left_out])
    claim_episodes(out, episodes)
    predict(asker, episodes, out / "predictions.jsonl")
    if isinstance(asker.scorer, Scorer):
        asker.scorer.eyes.save()
    found = finish(
        out,
        episodes,
        asker.scorer.counters(),
        with_legacy=config.scoring == "lcl-legacy",
        unseen=config.unseen if config.episodes.tasks else None,
    )
    if isinstance(asker.scorer, Scorer):
        predictions = tuple(read_jsonl(Prediction, out / "predictions.jsonl"))
        explain(asker.scorer, wording, episodes, predictions, out, config.explain)
    return found


def local(c: ModelConfig) -> Model:
    """The model of a configuration, loaded here."""
    return load(c.model, c.dtype, c.device, c.adapter, c.trust_remote_code, c.load_in_4bit)


def opened(c: ModelConfig) -> Model | Served:
    """The model of a configuration, loaded here or behind a server."""
    if not c.model.startswith(PREFIX):
        return local(c)
    if idle := flags(c, ModelConfig(c.model)):
        raise InputError(f"{', '.join(idle)}: the server of {c.model} has loaded its model already. Leave it out.")
    return connect(c.model)


def fits(asker: "Asker", episodes: Sequence[Episode]) -> None:
    """A support that does not fit is refused before anything is written: `Scorer.check` of the longest prompts."""
    longest = max(episodes, key=_size)
    for candidate in longest.candidates:
        asker.scorer.check(_messages(asker, Case(longest, 0, longest.shots_per_class[-1]), candidate.name))


def _size(episode: Episode) -> tuple[int, int]:
    """Pictures and letters of the longest prompt, about."""
    shown = episode.shown(episode.shots_per_class[-1])
    said = (*shown, *episode.queries[:1])
    return sum(len(turn.pictures) for turn in said), sum(len(turn.question) + len(turn.answer) for turn in said)


def claim_episodes(out: Path, episodes: Sequence[Episode]) -> None:
    """Write episodes.jsonl, or make sure that it is the same: a benchmark's records may have changed."""
    path = out / "episodes.jsonl"
    if path.exists() and tuple(read_jsonl(Episode, path)) != tuple(episodes):
        raise InputError(f"{out}: holds a run of other episodes. Choose another --out, or remove it.")
    write_jsonl(episodes, path)


def finish(
    out: Path,
    episodes: Sequence[Episode],
    counters: dict[str, Any],
    with_legacy: bool = False,
    unseen: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Metrics of the predictions in a run's folder; with types of tasks that are `unseen`, means over tasks too."""
    asked = {e.id: e for e in episodes}
    predictions = tuple(read_jsonl(Prediction, out / "predictions.jsonl"))
    found = rows(asked, predictions) + (legacy.rows(asked, predictions) if with_legacy else [])
    metrics = {"rows": found, "counters": counters}
    if unseen is not None:
        means = summary(found, unseen)
        metrics |= {"means": means, "curves": curves(means)}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


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


def resolved(config: EvalConfig) -> dict[str, Any]:
    """The configuration as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return found


def claim(out: Path, config: EvalConfig, model: Model | Served, dataset: Dataset, problems: list[str]) -> None:
    """Write config.json, or make sure that the folder holds the same run.

    An option that there was not yet when the run began counts as its default, which is what was done without it.
    """
    path = out / "config.json"
    same: dict[str, Any] = {"config": resolved(config), "data": digest(dataset)}
    for name in FREE:
        same["config"].pop(name)
    if path.exists():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            earlier = {
                "config": {k: v for k, v in _with_defaults(kept["config"]).items() if k not in FREE},
                "data": kept["data"]["digest"],
            }
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged. Remove {out} or choose another --out.") from error
        if earlier != same:
            raise InputError(
                f"{out}: holds a run of another configuration ({_difference(earlier, same)}). "
                "Choose another --out, or remove it."
            )
        return
    if out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise InputError(f"{out}: there is something in it, and it is no run. Choose another --out.")
    packages = ("linkcontext", "torch", "transformers", "tokenizers", "numpy", "pillow")
    written = {
        "command": "linkcontext " + " ".join(sys.argv[1:]),
        "config": resolved(config),
        "model": model.describe(),
        "data": {
            "spec": config.episodes.data,
            "root": str(dataset.root),
            "digest": same["data"],
            "problems": problems,
        },
        "versions": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{p: version(p) for p in packages},
        },
    }
    write_text(json.dumps(written, indent=1) + "\n", path)


def _with_defaults(kept: dict[str, Any]) -> dict[str, Any]:
    defaults = resolved(EvalConfig())
    return defaults | kept | {part: defaults[part] | kept[part] for part in ("model", "episodes")}


def _difference(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    def flat(tree: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            found |= flat(value) if isinstance(value, dict) else {key: value}
        return found

    a, b = flat(earlier), flat(now)
    return ", ".join(
        f"{key} {a.get(key)} there, {b.get(key)} asked" for key in sorted({*a, *b}) if a.get(key) != b.get(key)
    )


@dataclass(frozen=True)
class Asker:
    """A model, a data set and a wording: everything a prediction needs besides its episode."""

    scorer: Scorer | Remote
    dataset: Dataset
    wording: Scaffold
    likelihood: bool
    generate: bool
    grey: bool = True  # whether likelihoods are asked with a grey query picture too, for PMI

    @classmethod
    def of(cls, model: Model | Served, dataset: Dataset, wording: Scaffold, config: EvalConfig) -> "Asker":
        """From a configuration."""
        sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
        likelihood = config.scoring in ("likelihood", "both")
        if isinstance(model, Served):
            if config.engine != "auto" or config.memory_gb is not None:
                raise InputError(f"--engine, --memory-gb: {model.name} is computed by its server. Leave them out.")
            remote = Remote(model, sources, config.batch)
            likelihood = likelihood and remote.scores
            return cls(remote, dataset, wording, likelihood, not likelihood or config.scoring == "both")
        eyes = Eyes(model, kept=True)
        scorer = Scorer(model, eyes, sources, config.batch, config.engine, config.memory_gb)
        return cls(scorer, dataset, wording, likelihood, config.scoring != "likelihood")


def predict(asker: Asker, episodes: Sequence[Episode], path: Path) -> None:
    """Append the predictions that `path` does not hold yet, a group of episodes at a time."""
    with appending(path) as append, progress("Asking", len(episodes)) as advance:
        done = {(p.query_id, p.shots_per_class) for p in read_jsonl(Prediction, path)}
        left = [
            e
            for e in episodes
            if not all((e.query_id(q), k) in done for q in range(len(e.queries)) for k in e.shots_per_class)
        ]
        for _ in range(len(episodes) - len(left)):
            advance()
        size = 1 if asker.scorer.engine in ("cached", "packed") else GROUP
        for start in range(0, len(left), size):
            group = left[start : start + size]
            append([p for p in answer(asker, group) if (p.query_id, p.shots_per_class) not in done])
            for _ in group:
                advance()


@dataclass(frozen=True, slots=True)
class Case:
    """One query at one shot count."""

    episode: Episode
    query: int
    shots_per_class: int


def answer(asker: Asker, episodes: Sequence[Episode]) -> Iterator[Prediction]:
    """The predictions of some episodes."""
    cases = [Case(e, q, k) for e in episodes for k in e.shots_per_class for q in range(len(e.queries))]
    scores: dict[int, list[tuple[float, int]]] = {}
    nulls: dict[tuple[str, int, str, int], Sequence[tuple[float | None, int]]] = {}
    if asker.likelihood:
        asks = [_ask(asker, case) for case in cases]
        blind = {_blind(c): c for c in cases}
        blind = blind if asker.grey else {}
        found = asker.scorer.score([*asks, *(_ask(asker, case, grey=True) for case in blind.values())])
        scores = dict(enumerate(found[: len(asks)]))
        nulls = dict(zip(blind, found[len(asks) :], strict=True))
    make = partial(_messages, asker)
    replies = asker.scorer.generate([make(case) for case in cases]) if asker.generate else [None] * len(cases)
    for i, (case, reply) in enumerate(zip(cases, replies, strict=True)):
        e, query = case.episode, case.episode.queries[case.query]
        null = nulls.get(_blind(case), [(None, 0)] * len(e.candidates))
        candidates = tuple(
            Score(c.class_id, c.name, value, grey, tokens)
            for c, (value, tokens), (grey, _) in zip(e.candidates, scores.get(i, []), null, strict=False)
        )
        prediction = Prediction(
            e.id,
            e.query_id(case.query),
            case.shots_per_class,
            candidates,
            query.class_id,
            reply,
            {},
            asker.scorer.prompt(make(case)).sha256(),
            tuple(turn.item for turn in e.shown(case.shots_per_class)),
            baselines(asker, e, case.shots_per_class, query),
        )
        correct = {s: credit(prediction, s, e.candidates) == 1 for s in available(prediction)}
        yield dataclasses.replace(prediction, correct=correct)


def _blind(case: Case) -> tuple[str, int, str, int]:
    """What two queries must share to be the same without their pictures."""
    query = case.episode.queries[case.query]
    return case.episode.id, case.shots_per_class, query.question, len(query.others)


def _messages(asker: Asker, case: Case, answer: str | None = None, grey: bool = False) -> list[dict[str, Any]]:
    episode = case.episode
    if grey:
        asked = episode.queries[case.query]
        blind = dataclasses.replace(asked, item=GREY, others=(GREY,) * len(asked.others))
        queries = tuple(blind if i == case.query else q for i, q in enumerate(episode.queries))
        episode = dataclasses.replace(episode, queries=queries)
    return prompt(episode, case.query, case.shots_per_class, asker.wording, answer)


def _ask(asker: Asker, case: Case, grey: bool = False) -> Ask:
    answers = tuple(_messages(asker, case, c.name, grey) for c in case.episode.candidates)
    return Ask(_messages(asker, case, grey=grey), answers)


def baselines(asker: Asker, episode: Episode, shots_per_class: int, query: Turn) -> dict[str, str | None]:
    """What policies without a language model would answer: the class id, or None where there is no support.

    The majority of the support answers where it was chosen for the query; elsewhere it is balanced.
    """
    shown = episode.shown(shots_per_class)
    found: dict[str, str | None] = {"copy_first": copy_first(shown), "copy_last": copy_last(shown)}
    if episode.task.endswith(RICES):
        found["majority"] = majority([turn.class_id for turn in shown])
    if isinstance(asker.scorer, Remote) or asker.scorer.engine == "naive":
        return found
    sources = asker.scorer.sources
    if any(turn.item not in sources for turn in shown):  # a blank is near nothing
        return found
    if any(turn.others for turn in (*shown, query)):  # several pictures are no one point to be near to
        return found
    eyes = asker.scorer.eyes
    seen = [eyes.recall(sources[turn.item][0], alone=not shown) for turn in (*shown, query)]
    pooled = [s.pooled for s in seen if s.pooled is not None]
    for kind, vectors in (("tokens", [s.mean for s in seen]), ("pooled", pooled)):
        if not vectors:  # a tower without a summary
            continue
        *supports, asked = vectors
        centroid, support = nearest(asked, supports, [turn.class_id for turn in shown])
        found |= {f"nearest_centroid_{kind}": centroid, f"nearest_support_{kind}": support}
    return found
