"""The episodes that a configuration asks for: links between classes, or conversations about tasks."""

from linkcontext.config import EpisodeConfig
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.sample import Sampled, sample
from linkcontext.episodes.talk import Talks
from linkcontext.mining.neighbours import mined


def drawn(config: EpisodeConfig, dataset: Dataset) -> Sampled:
    """Draw them. Raises as `sample` and `Talks.of`."""
    if config.tasks:
        talks = Talks.of(dataset, config.talk_plan())
        return Sampled(talks.episodes(), talks.left_out, ())
    return sample(dataset, config.plan(), mined(config.neighbours, dataset))
