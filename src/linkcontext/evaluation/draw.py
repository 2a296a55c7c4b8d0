"""Episodes drawn as options say: links between classes, or conversations about tasks."""

from dataclasses import replace
from functools import partial

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import neighbours_from_file
from linkcontext.episodes.link import SampledEpisodes, sample_episodes
from linkcontext.episodes.questions import TaskSampler
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.task import EpisodeSet
from linkcontext.records import Episode
from linkcontext.source import open_data

# Flags that only links between classes have, or only conversations about tasks.
LINKS = (
    "--ways",
    "--queries",
    "--negatives",
    "--order",
    "--groups-apart",
    "--false-labels",
    "--choose-from",
    "--select",
)
TALKS = ("--coherence", "--format", "--options", "--balanced")


def open_drawn(options: EpisodeConfig, _: Scaffold) -> EpisodeSet:
    """The data set of `--data` and the episodes that are drawn from it. Raises as `open_data` and `draw_configured`."""
    return _draw_set(options, open_data(options.data, options.strict))


def _draw_set(options: EpisodeConfig, dataset: Dataset) -> EpisodeSet:
    sampled = draw_configured(options, dataset)
    return EpisodeSet(dataset, sampled.episodes, left_out_sentences(sampled), partial(_draw_set, options))


def left_out_sentences(sampled: SampledEpisodes) -> list[str]:
    """What could not be in the episodes, a sentence for each class or subject."""
    return [f"{left.class_id}: left out, {left.shortfall}" for left in sampled.left_out]


def draw_configured(config: EpisodeConfig, dataset: Dataset) -> SampledEpisodes:
    """Draw them. Raises as `sample_episodes` and `TaskSampler.of`, and `InputError` for flags of the other kind."""
    if given := [flag for flag in flags(config, EpisodeConfig()) if flag in (LINKS if config.tasks else TALKS)]:
        told = "together with" if config.tasks else "without"
        raise InputError(f"{', '.join(given)}: not {told} --tasks. Leave it out.")
    if config.tasks:
        sampler = TaskSampler.of(dataset, config.task_plan())
        return SampledEpisodes(sampler.episodes(), sampler.left_out, ())
    found = draw_choosable(config, dataset)
    if config.choose_from is None:
        return found
    return replace(found, episodes=tuple(_first(episode, config.sweep) for episode in found.episodes))


def draw_choosable(config: EpisodeConfig, dataset: Dataset) -> SampledEpisodes:
    """Episodes whose support is all that can be chosen: `choose_from` of each class. Raises as `sample_episodes`."""
    return sample_episodes(dataset, config.plan(), neighbours_from_file(config.neighbours, dataset))


def _first(episode: Episode, shots: tuple[int, ...]) -> Episode:
    """An episode with the beginning of its support."""
    return replace(episode, shots_per_class=shots, support=episode.shown(shots[-1]))
