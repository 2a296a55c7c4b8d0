"""Draw the episodes of a run from its options: links between classes and names, or questions about tasks (--tasks)."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import neighbours_from_file
from linkcontext.episodes.link import SampledEpisodes, sample_episodes
from linkcontext.episodes.pool import open_pool
from linkcontext.episodes.questions import TaskSampler
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.task import EpisodeSet
from linkcontext.records import Episode
from linkcontext.source import open_data

LINK_FLAGS = (  # not with --tasks
    "--ways",
    "--queries",
    "--negatives",
    "--order",
    "--groups-apart",
    "--false-labels",
    "--choose-from",
    "--select",
)
TASK_FLAGS = ("--coherence", "--format", "--options", "--balanced")  # only with --tasks


def open_drawn(options: EpisodeConfig, _: Scaffold) -> EpisodeSet:
    """The data set of `--data` and the episodes drawn from it. Raises like `open_data` and `draw_configured`."""
    return _draw_set(options, open_data(options.data, options.strict))


def _draw_set(options: EpisodeConfig, dataset: Dataset) -> EpisodeSet:
    fitting, sentences = with_fitting_shots(options, dataset)
    sampled = draw_configured(fitting, dataset)
    sentences += left_out_sentences(sampled)
    return EpisodeSet(dataset, sampled.episodes, sentences, partial(_draw_set, options))


def with_fitting_shots(options: EpisodeConfig, dataset: Dataset) -> tuple[EpisodeConfig, list[str]]:
    """The options with those of the default shots per class for which the classes have pictures, and a sentence if
    they are not all. Shots that the user chose, and those of --tasks, stay as they are.
    """
    if options.tasks or options.shots != EpisodeConfig().shots or options.choose_from is not None:
        return options, []
    neighbours = neighbours_from_file(options.neighbours, dataset)
    for count in range(len(options.sweep), 1, -1):
        fitting = replace(options, shots=options.sweep[:count])
        with suppress(InputError):  # too few pictures: drawing the smallest sweep says which classes lack them
            open_pool(dataset, fitting.plan(), neighbours)
            break
    if fitting.shots == options.sweep:
        return options, []
    shots, usual = (" ".join(map(str, each)) for each in (fitting.shots, options.sweep))
    return fitting, [
        f"Shots per class: {shots}, because the classes have too few pictures for all of the default ({usual})."
    ]


def left_out_sentences(sampled: SampledEpisodes) -> list[str]:
    """Sentences about the classes or subjects that could not be used, one for each."""
    return [f"{left.class_id}: left out, {left.shortfall}" for left in sampled.left_out]


def draw_configured(config: EpisodeConfig, dataset: Dataset) -> SampledEpisodes:
    """Draw the episodes of a configuration.

    Raises `InputError` like `sample_episodes` and `TaskSampler.of`, and for flags that do not fit with or without
    --tasks.
    """
    idle = LINK_FLAGS if config.tasks else TASK_FLAGS
    if given := [flag for flag in flags(config, EpisodeConfig()) if flag in idle]:
        preposition = "together with" if config.tasks else "without"
        raise InputError(f"{', '.join(given)}: not {preposition} --tasks. Leave it out.")
    if config.tasks:
        sampler = TaskSampler.of(dataset, config.task_plan())
        return SampledEpisodes(sampler.episodes(), sampler.left_out, ())
    sampled = draw_choosable(config, dataset)
    if config.choose_from is None:
        return sampled
    return replace(sampled, episodes=tuple(_shortened(episode, config.sweep) for episode in sampled.episodes))


def draw_choosable(config: EpisodeConfig, dataset: Dataset) -> SampledEpisodes:
    """Episodes whose supports hold all `choose_from` pictures per class. Raises like `sample_episodes`."""
    return sample_episodes(dataset, config.plan(), neighbours_from_file(config.neighbours, dataset))


def _shortened(episode: Episode, shots: tuple[int, ...]) -> Episode:
    """The episode with only the first `shots[-1]` rounds of its support."""
    return replace(episode, shots_per_class=shots, support=episode.shown(shots[-1]))
