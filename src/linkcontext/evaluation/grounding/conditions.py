"""The conditions of `linkcontext probe`: drawn, checked and predicted.

A condition is the same drawn episodes with one thing changed, so that two conditions are compared query by query:

    shown                   the episodes as they are drawn: invented names, a balanced support
    shuffled, blank, ...    the conditions of each probe in the table (`grounding.probes`)
    ways-4, ways-8          more classes
    wording-lcl ...         other scaffolds

All conditions run on one model, which encodes each picture once. `grounding.findings` judges the predictions. The
folder of a probe holds config.json, episodes.jsonl, predictions.jsonl, probe.json (rows, findings, conclusion) and
probe.md.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import neighbours_from_file
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, load_scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.evaluator import Evaluator, append_predictions, check_fits
from linkcontext.evaluation.example_selection import main_shots
from linkcontext.evaluation.grounding import probes
from linkcontext.evaluation.grounding.probe import DrawnEpisodes
from linkcontext.processes import Processes
from linkcontext.records import Episode

WAYS = (8, 4, 2)
# Conditions are drawn in the order of version 0.1, so that the files of two runs compare equal; others follow them.
FIRST = ("shuffled", "blank", "none", "order-", "false-", "real", "swapped")
# The options of `EpisodeConfig` that a probe reads; it sets the others itself.
DRAWS = ("data", "ways", "shots", "episodes", "negatives", "neighbours", "rule")
READ = (*DRAWS, "support_split", "query_split", "groups_apart", "seed", "strict")

Condition = tuple[Evaluator, list[Episode]]


def options_not_read(options: EpisodeConfig) -> list[str]:
    """The options that are given and that a probe does not read, because it sets them itself."""
    return flags(options, _read(options))


def check_shots(shots: Sequence[int]) -> None:
    """Raise an `InputError` unless there is one number of shots per class, at least 1."""
    if len(shots) != 1 or shots[0] < 1:
        raise InputError(
            f"--shots-per-class {' '.join(map(str, shots))}: a probe shows one number per class, at least 1."
        )


def options_of_run(options: EpisodeConfig) -> EpisodeConfig:
    """The options of the probe of a run: those that a probe reads, with the run's largest shots per class up to 4."""
    shots = [k for k in options.shots if k > 0]
    if options.tasks or not shots:
        raise InputError(
            "--probe: the probes test links between pictures and names. Leave --tasks out, and give --shots-per-class."
        )
    return replace(_read(options), shots=(main_shots(shots),))


def _read(options: EpisodeConfig) -> EpisodeConfig:
    """The options without those that a probe sets itself."""
    return EpisodeConfig(**{name: getattr(options, name) for name in READ})


def run_name(model: str, options: EpisodeConfig) -> str:
    """The default name of a probe's folder."""
    words = [Path(model).name, "probe", Path(options.data).name.replace(":", "-"), f"{options.ways}way"]
    return "-".join([*words, f"seed{options.seed}"])


def plan_conditions(evaluator: Evaluator, options: EpisodeConfig, scaffold: str) -> tuple[list[Condition], list[str]]:
    """Draw all conditions, each with its evaluator; and sentences about those that data or context are too small for.

    Raises `InputError` if the episodes as they are drawn do not fit into the model's context.
    """
    drawn, shown = draw_conditions(options, evaluator.dataset)
    check_fits(evaluator, shown)
    planned, left_out = [(evaluator, shown)], []
    for ways in (ways for ways in WAYS if ways != options.ways):
        placed = any(e.ways > ways for _, episodes in planned for e in episodes)
        try:
            episodes = _more_ways(options, evaluator.dataset, ways, placed)
            check_fits(evaluator, episodes)
            planned.append((evaluator, episodes))
        except InputError as error:
            left_out.append(f"{ways} ways: {error}")
    whole = [_whole(episode) for episode in shown if episode.task == "shown"]
    for name in (name for name in SCAFFOLDS if name != scaffold):
        # A model of its own, because the wording decides which engine can be used. Image features are shared.
        other = replace(evaluator, scorer=evaluator.scorer.clone(), scaffold=load_scaffold(name))
        try:
            check_fits(other, whole)
            planned.append((other, list(_named(f"wording-{name}", whole))))
        except InputError as error:
            left_out.append(f"wording {name}: {error}")
    for probe in (probe for probe in probes.PROBES if probe.extends):
        try:
            episodes = [e for name, change in probe.conditions.items() for e in _named(name, change(drawn))]
            check_fits(evaluator, episodes)
            planned.append((evaluator, episodes))
        except InputError as error:
            left_out.append(f"{probe.name}: {error}")
    return planned, left_out


def draw_conditions(options: EpisodeConfig, dataset: Dataset) -> tuple[DrawnEpisodes, list[Episode]]:
    """What conditions are made of; and the episodes of `shown` and of the conditions that always can be drawn, in the
    run's own wording and number of ways.
    """
    plan, neighbours = _plan(options), neighbours_from_file(options.neighbours, dataset)

    def draw(plan: EpisodePlan, **changes: Any) -> Sequence[Episode]:
        return sample_episodes(dataset, replace(plan, **changes), neighbours).episodes

    shown = draw(plan)
    redraw = partial(draw, replace(plan, shots_per_class=plan.shots_per_class[-1:]))
    pictures = [item for item in dataset.items if options.support_split in (None, item.split)]
    drawn = DrawnEpisodes([_whole(episode) for episode in shown], redraw, pictures)
    always = (probe for probe in probes.PROBES if not probe.extends)
    conditions = {name: change for probe in always for name, change in probe.conditions.items()}
    episodes = list(_named("shown", shown))
    for name in sorted(conditions, key=_drawing_order):
        episodes += _named(name, conditions[name](drawn))
    return drawn, episodes


def _drawing_order(condition: str) -> int:
    return next((place for place, prefix in enumerate(FIRST) if condition.startswith(prefix)), len(FIRST))


def _more_ways(options: EpisodeConfig, dataset: Dataset, ways: int, placed: bool) -> list[Episode]:
    """Episodes of another number of classes, with the same number of queries in all and one query of each class.

    With `placed`, another condition has more ways and single pictures of each class, so these episodes need none.
    """
    plan = replace(_plan(options), ways=ways)
    plan = replace(plan, episodes=max(2, round(plan.episodes * options.ways / ways)))
    plan = replace(plan, shots_per_class=plan.shots_per_class[-1:]) if placed else plan
    return list(
        _named(
            f"ways-{ways}", sample_episodes(dataset, plan, neighbours_from_file(options.neighbours, dataset)).episodes
        )
    )


def predict_conditions(planned: Sequence[Condition], path: Path, processes: Processes) -> None:
    """Append to `path` the predictions that it does not hold yet; `processes` share the episodes."""
    every = [episode for _, episodes in planned for episode in episodes]
    for evaluator, episodes in planned:
        append_predictions(evaluator, episodes, path, processes, every)


def _plan(options: EpisodeConfig) -> EpisodePlan:
    """The plan of `shown`. It has one shot per class too, which costs little and is what the probe of places needs."""
    return replace(options.plan(), shots_per_class=tuple(sorted({1, *options.shots})))


def _named(condition: str, episodes: Iterable[Episode]) -> Iterator[Episode]:
    """The episodes with the condition as their task, which rows of metrics and ids are grouped by."""
    return (replace(e, id=f"{condition}/{e.id.rpartition('/')[2]}", task=condition) for e in episodes)


def _whole(episode: Episode) -> Episode:
    """The episode with its largest shots per class only."""
    return replace(episode, shots_per_class=episode.shots_per_class[-1:])
