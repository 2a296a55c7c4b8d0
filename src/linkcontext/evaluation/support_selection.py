"""Select supports by the model's image features (--select): medoids of each class, or neighbours of the query."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from linkcontext.config import EpisodeConfig
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.ids import MEDOID, RICES, for_query
from linkcontext.evaluation.draw import draw_choosable
from linkcontext.evaluation.medoids import medoids, rices, vector
from linkcontext.records import Episode, Turn
from linkcontext.scoring.protocol import ScoringModel


def select_supports(config: EpisodeConfig, dataset: Dataset, scorer: ScoringModel) -> tuple[Episode, ...]:
    """The episodes of `draw_choosable`, with supports selected from all their pictures.

    With medoid, the rounds of a support consist of the medoids of each class, and fewer shots are a prefix of more.
    With rices, each query at each number of shots becomes an episode, whose support ends with the most similar
    pictures. The model must have image features.
    """
    selected: list[Episode] = []
    for episode in draw_choosable(config, dataset).episodes:
        if config.select == "medoid":
            selected.append(_with_medoids(episode, config.sweep, scorer))
        else:
            selected += _with_neighbours(episode, config.sweep, scorer)
    return tuple(selected)


def _vectors(turns: Sequence[Turn], scorer: ScoringModel) -> torch.Tensor:
    """The unit feature vectors of the turns' pictures, float32[len(turns), width]."""
    return torch.stack([vector(features) for features in scorer.pictures.features([turn.item for turn in turns])])


def _with_medoids(episode: Episode, shots: tuple[int, ...], scorer: ScoringModel) -> Episode:
    ranked = {}
    for candidate in episode.candidates:
        own = [turn for turn in episode.support if turn.class_id == candidate.class_id]
        ranked[candidate.class_id] = [own[place] for place in medoids(_vectors(own, scorer), shots[-1])]
    rounds = episode.support[: episode.ways * shots[-1]]  # only their order of classes is kept
    support = tuple(ranked[turn.class_id][at // episode.ways] for at, turn in enumerate(rounds))
    return replace(episode, task=f"{episode.task}{MEDOID}", shots_per_class=shots, support=support)


def _with_neighbours(episode: Episode, shots: tuple[int, ...], scorer: ScoringModel) -> Iterator[Episode]:
    vectors, query_vectors = _vectors(episode.support, scorer), _vectors(episode.queries, scorer)
    for number, (query, query_vector) in enumerate(zip(episode.queries, query_vectors, strict=True)):
        for k in shots:
            order = rices(query_vector, vectors, episode.ways * k)
            yield replace(
                episode,
                id=for_query(episode.id, number, k),
                task=f"{episode.task}{RICES}",
                shots_per_class=(k,),
                support=tuple(episode.support[place] for place in order),
                queries=(query,),
            )
