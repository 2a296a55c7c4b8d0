"""The episodes that a configuration asks for: links between classes, or conversations about tasks.

Supports that are chosen (`linkcontext.evaluate.choose`) make other episodes of the drawn ones; as which they were drawn
is read from their ids and tasks.
"""

import re
from dataclasses import replace

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.sample import Sampled, sample
from linkcontext.episodes.talk import Talks
from linkcontext.errors import InputError
from linkcontext.mining.neighbours import mined
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
# What the task of an episode ends in whose support was chosen: of each class, or for its query.
MEDOID, RICES = "-medoid", "-rices"


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


def for_query(episode_id: str, query: int, shots_per_class: int) -> str:
    """The id of an episode that has one query of a drawn one, with a support of its own."""
    return f"{episode_id}-q{query}-k{shots_per_class:02d}"


def drawn_as(episode_id: str) -> str:
    """The id of the drawn episode, whose queries stand and fall together, whatever supports were chosen for them."""
    return re.sub(r"-q\d+-k\d+$", "", episode_id)


def drawn_query(query_id: str) -> str:
    """The id of a query in the drawn episode."""
    return re.sub(r"-q(\d+)-k\d+/q0$", r"/q\1", query_id)


def drawn_task(task: str) -> str:
    """The task without what is said of how supports were chosen."""
    return task.removesuffix(MEDOID).removesuffix(RICES)
