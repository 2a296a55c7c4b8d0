"""Supports chosen by what a model's eyes see in them: those that stand for their class, or those like the query."""

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
    """The episodes of `drawn`, with supports chosen of all that there are to choose from.

    By medoid a support has the medoids of each class in its rounds, and fewer shots are the beginning of more. By
    rices each query at each number of shots is an episode of its own, with the likest pictures last. Raises
    `InputError` if the model has no image features to choose by.
    """
    found: list[Episode] = []
    for episode in draw_choosable(config, dataset).episodes:
        if config.select == "medoid":
            found.append(_medoids(episode, config.sweep, scorer))
        else:
            found += _likest(episode, config.sweep, scorer)
    return tuple(found)


def _vectors(turns: Sequence[Turn], scorer: ScoringModel) -> torch.Tensor:
    return torch.stack([vector(seen) for seen in scorer.pictures.features([turn.item for turn in turns])])


def _medoids(episode: Episode, shots: tuple[int, ...], scorer: ScoringModel) -> Episode:
    ranked = {}
    for candidate in episode.candidates:
        own = [turn for turn in episode.support if turn.class_id == candidate.class_id]
        ranked[candidate.class_id] = [own[place] for place in medoids(_vectors(own, scorer), shots[-1])]
    rounds = episode.support[: episode.ways * shots[-1]]  # of which only the order of classes is kept
    support = tuple(ranked[turn.class_id][at // episode.ways] for at, turn in enumerate(rounds))
    return replace(episode, task=f"{episode.task}{MEDOID}", shots_per_class=shots, support=support)


def _likest(episode: Episode, shots: tuple[int, ...], scorer: ScoringModel) -> Iterator[Episode]:
    vectors, queries = _vectors(episode.support, scorer), _vectors(episode.queries, scorer)
    for number, (query, asked) in enumerate(zip(episode.queries, queries, strict=True)):
        for k in shots:
            order = rices(asked, vectors, episode.ways * k)
            yield replace(
                episode,
                id=for_query(episode.id, number, k),
                task=f"{episode.task}{RICES}",
                shots_per_class=(k,),
                support=tuple(episode.support[place] for place in order),
                queries=(query,),
            )
