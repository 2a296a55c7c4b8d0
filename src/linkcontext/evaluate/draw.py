"""The episodes that a configuration asks for: links between classes, or conversations about tasks."""

from dataclasses import replace

from linkcontext.config import EpisodeConfig
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.sample import Sampled, sample
from linkcontext.episodes.talk import Talks
from linkcontext.mining.neighbours import mined
from linkcontext.records import Episode


def drawn(config: EpisodeConfig, dataset: Dataset) -> Sampled:
    """Draw them. Raises as `sample` and `Talks.of`."""
    if config.tasks:
        talks = Talks.of(dataset, config.talk_plan())
        return Sampled(talks.episodes(), talks.left_out, ())
    found = stocked(config, dataset)
    if config.choose_from is None:
        return found
    return replace(found, episodes=tuple(_first(episode, config.sweep) for episode in found.episodes))


def stocked(config: EpisodeConfig, dataset: Dataset) -> Sampled:
    """Episodes whose support is all that can be chosen: `choose_from` of each class. Raises as `sample`."""
    return sample(dataset, config.plan(), mined(config.neighbours, dataset))


def _first(episode: Episode, shots: tuple[int, ...]) -> Episode:
    """An episode with the beginning of its support."""
    return replace(episode, shots_per_class=shots, support=episode.shown(shots[-1]))
