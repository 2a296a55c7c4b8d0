"""Changes of drawn episodes that conditions are made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from linkcontext.episodes.ids import for_query
from linkcontext.episodes.names import shown_names
from linkcontext.errors import InputError
from linkcontext.evaluation.grounding.probe import DrawnEpisodes
from linkcontext.records import Episode, Turn
from linkcontext.seeds import rng

Place = Literal["first", "last"]  # of one turn in a support
PLACES: tuple[Place, ...] = get_args(Place)


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


def add_irrelevant(place: Place) -> Callable[[DrawnEpisodes], Iterator[Episode]]:
    """Add one turn to the support: a picture of a class that is no candidate, with a pseudo-word of its own.

    The change raises `InputError` if the data have no picture of another class than an episode's.
    """

    def add(drawn: DrawnEpisodes) -> Iterator[Episode]:
        names = {item.name for item in drawn.pictures}
        for episode in drawn.episodes:
            own = {candidate.class_id for candidate in episode.candidates}
            contents = {item.content for item in drawn.pictures if item.class_id in own}
            others = [item for item in drawn.pictures if item.class_id not in own and item.content not in contents]
            if not others:
                raise InputError(f"an irrelevant example needs a class besides the {episode.ways} of an episode.")
            stream = "evidence", "noise", episode.id.rpartition("/")[2]
            item = others[int(rng(*stream).integers(len(others)))]
            (name,) = shown_names("pseudo", [item.name], *stream, avoid=names | {c.name for c in episode.candidates})
            yield _with_turn(episode, Turn(item.id, item.class_id, name), place)

    return add


def move_relevant(place: Place) -> Callable[[DrawnEpisodes], Iterator[Episode]]:
    """For each query, move the last turn of its class to the first or the last place of the support.

    Every query becomes an episode, because each class has another relevant turn. The last of its turns is moved, so
    that the support ends with another class if the turn goes to the first place.
    """

    def move(drawn: DrawnEpisodes) -> Iterator[Episode]:
        for episode in drawn.episodes:
            for number, query in enumerate(episode.queries):
                relevant = max(at for at, turn in enumerate(episode.support) if turn.class_id == query.class_id)
                rest = [at for at in range(len(episode.support)) if at != relevant]
                order = [relevant, *rest] if place == "first" else [*rest, relevant]
                yield replace(
                    episode,
                    id=for_query(episode.id, number, drawn.shots_per_class),
                    support=tuple(episode.support[at] for at in order),
                    queries=(query,),
                )

    return move


def add_contradiction(place: Place) -> Callable[[DrawnEpisodes], Iterator[Episode]]:
    """Add one turn to the support: a picture that the support shows already, with the name of another class."""

    def add(drawn: DrawnEpisodes) -> Iterator[Episode]:
        for episode in drawn.episodes:
            chance = rng("evidence", "contradiction", episode.id.rpartition("/")[2])
            turn = episode.support[int(chance.integers(len(episode.support)))]
            others = [candidate for candidate in episode.candidates if candidate.class_id != turn.class_id]
            other = others[int(chance.integers(len(others)))]
            yield _with_turn(episode, replace(turn, class_id=other.class_id, answer=other.name), place)

    return add


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


def _with_turn(episode: Episode, turn: Turn, place: Place) -> Episode:
    """The episode with one turn more. Its support is no longer balanced, so its shots are counted in all (`ways=1`)."""
    support = (turn, *episode.support) if place == "first" else (*episode.support, turn)
    return replace(episode, ways=1, shots_per_class=(len(support),), support=support)
