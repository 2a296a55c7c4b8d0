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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from linkcontext.evaluation.grounding.comparisons import SHARES
from linkcontext.models.synthetic_images import BLANK
from linkcontext.records import Episode
from linkcontext.seeds import rng

ORDERS = 3  # besides the one that was drawn
WAYS = (8, 4, 2)
# What a probe takes of `EpisodeConfig`; the rest it sets itself.
DRAWS = ("data", "ways", "shots", "episodes", "negatives", "neighbours", "rule")
READ = (*DRAWS, "support_split", "query_split", "groups_apart", "seed", "strict")

Condition = tuple[Evaluator, list[Episode]]


def options_not_read(options: EpisodeConfig) -> list[str]:
    """The flags that were given and that a probe does not read, because it sets them itself."""
    return flags(options, _read(options))


def check_shots(shots: Sequence[int]) -> None:
    """Raise an `InputError` unless there is one number of shots per class, at least 1."""
    if len(shots) != 1 or shots[0] < 1:
        raise InputError(f"--shots {' '.join(map(str, shots))}: a probe shows one number per class, at least 1.")


def options_of_run(options: EpisodeConfig) -> EpisodeConfig:
    """The options of the probe that belongs to a run: those that it reads, at the largest shots per class up to 4."""
    shots = [k for k in options.shots if k > 0]
    if options.tasks or not shots:
        raise InputError("--probe: links between pictures and names are probed. Leave --tasks out, and give --shots.")
    return replace(_read(options), shots=(main_shots(shots),))


def _read(options: EpisodeConfig) -> EpisodeConfig:
    """The options without those that a probe sets itself."""
    return EpisodeConfig(**{name: getattr(options, name) for name in READ})


def run_name(model: str, options: EpisodeConfig) -> str:
    """The default name of a probe's folder."""
    words = [Path(model).name, "probe", Path(options.data).name.replace(":", "-"), f"{options.ways}way"]
    return "-".join([*words, f"seed{options.seed}"])


def plan_conditions(evaluator: Evaluator, options: EpisodeConfig, scaffold: str) -> tuple[list[Condition], list[str]]:
    """All that is asked, and who asks it; and what is left out because the data or the model's context are too small.

    Raises an `InputError` only where the episodes as they are drawn cannot be asked.
    """
    shown = draw_conditions(options, evaluator.dataset)
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
        # A scorer of its own, because the words decide which engine a model allows; one memory of pictures.
        other = replace(evaluator, scorer=evaluator.scorer.clone(), scaffold=load_scaffold(name))
        try:
            check_fits(other, whole)
            planned.append((other, list(_called(f"wording-{name}", whole))))
        except InputError as error:
            left_out.append(f"wording {name}: {error}")
    return planned, left_out


def draw_conditions(options: EpisodeConfig, dataset: Dataset) -> list[Episode]:
    """All that is asked in the configuration's own wording and with its number of ways."""
    plan, near = _plan(options), neighbours_from_file(options.neighbours, dataset)
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


def _more_ways(options: EpisodeConfig, dataset: Dataset, ways: int, placed: bool) -> list[Episode]:
    """Episodes of another number of classes, with as many queries in all as there are otherwise, each class queried
    once in each. One picture of each tells places apart, once, where most classes are."""
    plan = replace(_plan(options), ways=ways)
    plan = replace(plan, episodes=max(2, round(plan.episodes * options.ways / ways)))
    plan = replace(plan, shots_per_class=plan.shots_per_class[-1:]) if placed else plan
    return list(
        _called(
            f"ways-{ways}", sample_episodes(dataset, plan, neighbours_from_file(options.neighbours, dataset)).episodes
        )
    )


def predict_conditions(planned: Sequence[Condition], path: Path) -> None:
    """Append the predictions that `path` does not hold yet."""
    every = [episode for _, episodes in planned for episode in episodes]
    for evaluator, episodes in planned:
        append_predictions(evaluator, episodes, path, every)


def _plan(options: EpisodeConfig) -> EpisodePlan:
    """One picture of each class is asked about too: it costs little, and tells how much a single one does."""
    return replace(options.plan(), shots_per_class=tuple(sorted({1, *options.shots})))


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
