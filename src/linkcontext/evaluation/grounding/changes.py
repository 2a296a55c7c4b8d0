"""Changes of drawn episodes that conditions are made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from linkcontext.evaluation.grounding.probe import DrawnEpisodes
from linkcontext.records import Episode
from linkcontext.seeds import rng


def with_support_pictures(item: str) -> Callable[[DrawnEpisodes], Iterator[Episode]]:
    """Replace every support picture by one item, "" for none; the names stay."""
    return lambda drawn: (_with_items(episode, [item] * len(episode.support)) for episode in drawn.episodes)


def shuffle_pictures(drawn: DrawnEpisodes) -> Iterator[Episode]:
    """Permute the support's pictures among its names."""
    for episode in drawn.episodes:
        order = rng("evidence", "shuffled", episode.id).permutation(len(episode.support))
        yield _with_items(episode, [episode.support[place].item for place in order])


def reorder_support(number: int) -> Callable[[DrawnEpisodes], Iterator[Episode]]:
    """Permute the support's turns; each number is another order."""

    def reorder(drawn: DrawnEpisodes) -> Iterator[Episode]:
        for episode in drawn.episodes:
            order = rng("evidence", "order", number, episode.id).permutation(len(episode.support))
            yield replace(episode, support=tuple(episode.support[place] for place in order))

    return reorder


def redraw(**options: Any) -> Callable[[DrawnEpisodes], Sequence[Episode]]:
    """Draw the episodes with other options of `EpisodePlan`."""
    return lambda drawn: drawn.redraw(**options)


def redraw_with_no_support(**options: Any) -> Callable[[DrawnEpisodes], Sequence[Episode]]:
    """The same, and ask each query without a support too."""
    return lambda drawn: drawn.redraw(shots_per_class=(0, drawn.shots_per_class), **options)


def _with_items(episode: Episode, items: Sequence[str]) -> Episode:
    """The episode with other pictures under the names of its support."""
    turns = zip(episode.support, items, strict=True)
    return replace(episode, support=tuple(replace(turn, item=item) for turn, item in turns))
