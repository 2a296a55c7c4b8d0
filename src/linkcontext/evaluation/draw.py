"""The episodes that a configuration asks for: links between classes, or conversations about tasks."""

from dataclasses import replace

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import mined
from linkcontext.episodes.link import Sampled, sample
from linkcontext.episodes.questions import Talks
from linkcontext.errors import InputError
from linkcontext.records import Episode

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


def drawn(config: EpisodeConfig, dataset: Dataset) -> Sampled:
    """Draw them. Raises as `sample` and `Talks.of`, and `InputError` for flags that only the other kind has."""
    if given := [flag for flag in flags(config, EpisodeConfig()) if flag in (LINKS if config.tasks else TALKS)]:
        told = "together with" if config.tasks else "without"
        raise InputError(f"{', '.join(given)}: not {told} --tasks. Leave it out.")
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
