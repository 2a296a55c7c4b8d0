"""`linkcontext probe`: does the answer come from the pictures?

Every probe is the same drawn episodes with one thing changed (another name, no pictures, another order, ...), so that
what differs between two of them is paired query by query:

    shown                   the episodes as they are drawn: invented names, a balanced support
    shuffled                the support's pictures in another order among its names
    blank, none             grey supports; supports without a picture, the same words
    order-1, -2, -3         the support's turns in another order
    false-0.25 ... false-1  that share of the support under another name of the episode
    real, swapped           the classes' own names, without a support too; those names handed round
    ways-4, ways-8          more classes
    wording-lcl ...         other words around the pictures

All run on one model with one memory of pictures. `linkcontext.evaluation.grounding.findings` says what the predictions
show.
A folder holds config.json, episodes.jsonl, predictions.jsonl, probe.json (rows, findings, conclusion) and probe.md.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from linkcontext.config import EpisodeConfig, EvalConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import mined
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, load_scaffold, refuse_scaffold
from linkcontext.episodes.special_tokens import refuse_marked_episodes
from linkcontext.errors import InputError
from linkcontext.evaluation import checks
from linkcontext.evaluation.example_selection import main_shots
from linkcontext.evaluation.grounding.findings import SHARES, judge_predictions
from linkcontext.evaluation.open_run import open_run_dir, run_identity
from linkcontext.evaluation.runner import (
    Evaluator,
    append_predictions,
    check_fits,
    opened,
    prompted,
    sample_prompts,
    with_engines,
)
from linkcontext.models.synthetic_images import BLANK
from linkcontext.records import Episode, Prediction, read_jsonl
from linkcontext.scoring.protocol import ScoringModel, require
from linkcontext.seeds import rng
from linkcontext.source import open_data
from linkcontext.storage import write_text

ORDERS = 3  # besides the one that was drawn
WAYS = (8, 4, 2)
# What a probe takes of `EpisodeConfig`; the rest it sets itself.
DRAWS = ("data", "ways", "shots", "episodes", "negatives", "neighbours", "rule")
READ = (*DRAWS, "support_split", "query_split", "groups_apart", "seed", "strict")

Condition = tuple[Evaluator, list[Episode]]


def probe_grounding(config: EvalConfig, model: ScoringModel | None = None) -> dict[str, Any]:
    """Probe, and write the folder; the content of probe.json.

    With `model` that one is used instead of loading `config.model`. A folder that holds the same probe goes on where it
    stopped.

    Raises:
        InputError: flags that a probe sets itself; a model without log-probabilities; data with too few pictures; the
            folder of another run.
    """
    config = check_probe_config(config)
    dataset = open_data(config.episodes.data, config.episodes.strict)
    model = opened(config.model) if model is None else prompted(model, config.model)
    dataset = model.pictures.without_refused(dataset, [item.id for item in dataset.items], config.episodes.strict)
    evaluator = replace(Evaluator.of(model, dataset, load_scaffold(config.scaffold), config), grey=False)
    require(evaluator.scorer, "log-probabilities", "probe")
    asked, left_out = plan_conditions(evaluator, config)
    for wordings, episodes in asked:
        refuse_scaffold(wordings.wording, wordings.scorer.card.special_tokens)
        refuse_marked_episodes(episodes, wordings.scorer.card.special_tokens)
    out = probe_folder(config)
    every = [episode for _, episodes in asked for episode in episodes]
    conversations = [messages for other, episodes in asked for messages in sample_prompts(other, episodes)]
    problems = [*dataset.problems, *left_out]
    about = run_identity(model, evaluator.wording, conversations)
    open_run_dir(out / "episodes.jsonl", every, config, model, dataset, problems, about)
    predict_conditions(asked, out / "predictions.jsonl")
    scorer = asked[0][0].scorer
    scorer.pictures.save()
    return write_findings(out, model.card.name, config.episodes.data, left_out, scorer.counters())


def check_probe_config(config: EvalConfig) -> EvalConfig:
    """The configuration as a probe reads it: one number of shots per class, names and orders of its own."""
    e = config.episodes
    idle = flags(e, _read(e))
    idle += ["--scoring"] * (config.scoring != "likelihood") + ["--explain"] * (config.explain is not None)
    idle += ["--calibrate"] * config.calibrate
    if idle:
        raise InputError(f"{', '.join(idle)}: a probe sets this itself. Leave it out.")
    if len(e.shots) != 1 or e.shots[0] < 1:
        raise InputError(f"--shots {' '.join(map(str, e.shots))}: a probe shows one number per class, at least 1.")
    return config


def probe_of_run(config: EvalConfig, run: Path) -> EvalConfig:
    """The probe that belongs to a run: its data, ways, episodes, seed and wording, at its largest shots per class up to
    4; in the folder `probe` of the run's own."""
    e = config.episodes
    shots = [k for k in e.shots if k > 0]
    if e.tasks or not shots:
        raise InputError("--probe: links between pictures and names are probed. Leave --tasks out, and give --shots.")
    kept = replace(_read(e), shots=(main_shots(shots),))
    out = str(run / "probe")
    return replace(config, episodes=kept, scoring="likelihood", calibrate=False, explain=None, out=out)


def _read(e: EpisodeConfig) -> EpisodeConfig:
    """What a probe takes of what was asked for."""
    return EpisodeConfig(**{name: getattr(e, name) for name in READ})


def probe_folder(config: EvalConfig) -> Path:
    """Where the files go."""
    if config.out is not None:
        return Path(config.out)
    e = config.episodes
    words = [Path(config.model.model).name, "probe", Path(e.data).name.replace(":", "-"), f"{e.ways}way"]
    return Path("runs") / "-".join([*words, f"seed{e.seed}"])


def plan_conditions(evaluator: Evaluator, config: EvalConfig) -> tuple[list[Condition], list[str]]:
    """All that is asked, and who asks it; and what is left out because the data or the model's context are too small.

    Raises an `InputError` only where the episodes as they are drawn cannot be asked.
    """
    shown = draw_conditions(config, evaluator.dataset)
    check_fits(evaluator, shown)
    asked, left_out = [(evaluator, shown)], []
    for ways in (ways for ways in WAYS if ways != config.episodes.ways):
        placed = any(e.ways > ways for _, episodes in asked for e in episodes)
        try:
            episodes = _more_ways(config, evaluator.dataset, ways, placed)
            check_fits(evaluator, episodes)
            asked.append((evaluator, episodes))
        except InputError as error:
            left_out.append(f"{ways} ways: {error}")
    whole = [_whole(episode) for episode in shown if episode.task == "shown"]
    for name in (name for name in SCAFFOLDS if name != config.scaffold):
        # A scorer of its own, because the words decide which engine a model allows; one memory of pictures.
        other = replace(evaluator, scorer=evaluator.scorer.clone(), wording=load_scaffold(name))
        try:
            check_fits(other, whole)
            asked.append((other, list(_called(f"wording-{name}", whole))))
        except InputError as error:
            left_out.append(f"wording {name}: {error}")
    return asked, left_out


def draw_conditions(config: EvalConfig, dataset: Dataset) -> list[Episode]:
    """All that is asked in the configuration's own wording and with its number of ways."""
    plan, near = _plan(config), mined(config.episodes.neighbours, dataset)
    few = replace(plan, shots_per_class=plan.shots_per_class[-1:])

    def under(plan: EpisodePlan, **changes: Any) -> Sequence[Episode]:
        return sample_episodes(dataset, replace(plan, **changes), near).episodes

    base = under(plan)
    whole = [_whole(episode) for episode in base]
    found = [
        *_called("shown", base),
        *_called("shuffled", map(_shuffled, whole)),
        *_called("blank", (_with_items(e, [BLANK] * len(e.support)) for e in whole)),
        *_called("none", (_with_items(e, [""] * len(e.support)) for e in whole)),
    ]
    for number in range(1, ORDERS + 1):
        found += _called(f"order-{number}", (_reordered(e, number) for e in whole))
    for share in SHARES:
        found += _called(f"false-{share:g}", under(few, false_labels=share))
    found += _called("real", under(few, names="real", shots_per_class=(0, *few.shots_per_class)))
    found += _called("swapped", under(few, names="swapped"))
    return found


def _more_ways(config: EvalConfig, dataset: Dataset, ways: int, placed: bool) -> list[Episode]:
    """Episodes of another number of classes, with as many queries in all as there are otherwise, each class queried
    once in each. One picture of each tells places apart, once, where most classes are."""
    plan = replace(_plan(config), ways=ways)
    plan = replace(plan, episodes=max(2, round(plan.episodes * config.episodes.ways / ways)))
    plan = replace(plan, shots_per_class=plan.shots_per_class[-1:]) if placed else plan
    return list(
        _called(f"ways-{ways}", sample_episodes(dataset, plan, mined(config.episodes.neighbours, dataset)).episodes)
    )


def predict_conditions(asked: Sequence[Condition], path: Path) -> None:
    """Append the predictions that `path` does not hold yet."""
    every = [episode for _, episodes in asked for episode in episodes]
    for evaluator, episodes in asked:
        append_predictions(evaluator, episodes, path, every)


def write_findings(
    out: Path, model: str, data: str, left_out: Sequence[str], counters: dict[str, Any]
) -> dict[str, Any]:
    """What the predictions in a probe's folder say; writes probe.json."""
    episodes = {episode.id: episode for episode in read_jsonl(Episode, out / "episodes.jsonl")}
    path = out / "predictions.jsonl"
    predictions = checks.check_predictions(episodes, read_jsonl(Prediction, path), str(path))
    found = judge_predictions(model, episodes, predictions)
    counters = with_engines(counters, (p.engine for p in predictions), out)
    probe = {"model": model, "data": data, **found, "left_out": list(left_out), "counters": counters}
    text = json.dumps(probe, indent=1) + "\n"
    write_text(text, out / "probe.json")
    return dict(json.loads(text))


def _plan(config: EvalConfig) -> EpisodePlan:
    """One picture of each class is asked about too: it costs little, and tells how much a single one does."""
    return replace(config.episodes.plan(), shots_per_class=tuple(sorted({1, *config.episodes.shots})))


def _called(task: str, episodes: Iterable[Episode]) -> Iterator[Episode]:
    """The episodes under a task of their own, by which rows and ids are told apart."""
    return (replace(e, id=f"{task}/{e.id.rpartition('/')[2]}", task=task) for e in episodes)


def _whole(episode: Episode) -> Episode:
    """The episode with its largest shots per class alone."""
    return replace(episode, shots_per_class=episode.shots_per_class[-1:])


def _with_items(episode: Episode, items: Sequence[str]) -> Episode:
    """The episode with other pictures under the support's names."""
    turns = zip(episode.support, items, strict=True)
    return replace(episode, support=tuple(replace(turn, item=item) for turn, item in turns))


def _shuffled(episode: Episode) -> Episode:
    order = rng("evidence", "shuffled", episode.id).permutation(len(episode.support))
    return _with_items(episode, [episode.support[place].item for place in order])


def _reordered(episode: Episode, number: int) -> Episode:
    order = rng("evidence", "order", number, episode.id).permutation(len(episode.support))
    return replace(episode, support=tuple(episode.support[place] for place in order))
