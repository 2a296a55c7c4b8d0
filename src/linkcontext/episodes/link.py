"""Drawing episodes from items. Episode i is a pure function of the plan, the data and i.

Why a policy that never looks at the query picture scores exactly 1/ways in every episode: whatever it
makes of the support and of the names, it gives all queries of an episode one answer, and each class is
queried equally often. The support is balanced as well, so that counting its names tells nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.names import shown_names
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.pool import LeftOut, Pool, Stock, by_rule, differently_named, enough, open_pool
from linkcontext.records import Candidate, Episode, Turn
from linkcontext.seeds import Name, rng

__all__ = [
    "EpisodePlan",
    "LeftOut",
    "Pool",
    "Sampled",
    "copy_first",
    "copy_last",
    "draw",
    "open_pool",
    "sample",
]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The episodes, and what could not be in them."""

    episodes: tuple[Episode, ...]
    left_out: tuple[LeftOut, ...]
    disputed: tuple[str, ...]  # items whose content is filed under differently named classes too


@dataclass(frozen=True, slots=True)
class Seat:
    """One class in one episode: its name there, its query pictures, and the pictures that may support it."""

    stock: Stock
    name: str
    queries: tuple[str, ...]
    supports: tuple[str, ...]

    def turn(self, item: str) -> Turn:
        """That picture under the name shown."""
        return Turn(item, self.stock.class_id, self.name)


def sample(dataset: Dataset, plan: EpisodePlan, neighbours: Mapping[str, Sequence[str]] | None = None) -> Sampled:
    """Draw all episodes of a plan. `neighbours` maps a class id to others, nearest first.

    Raises `InputError` when the plan contradicts itself, or when too few classes have enough pictures.
    """
    pool = open_pool(dataset, plan, neighbours)
    episodes = tuple(episode for index in range(plan.episodes) for episode in draw(pool, index))
    return Sampled(episodes, pool.left_out, pool.disputed)


def draw(pool: Pool, index: int) -> tuple[Episode, ...]:
    """Episode `index`: one record, or with `order="shuffled"` one for each shot count."""
    plan, stream = pool.plan, ("episodes", pool.plan.seed, index)
    stocks = _classes(pool, index)
    names = shown_names(plan.names, [s.name for s in stocks], *stream, avoid=pool.taken_names)
    seats = [_seat(plan, stock, name, *stream) for stock, name in zip(stocks, names, strict=True)]
    queries = [seat.turn(item) for seat in seats for item in seat.queries]
    order = rng(*stream, "query order").permutation(len(queries))
    candidates = [Candidate(seat.stock.class_id, seat.name, seat.stock.name) for seat in seats]
    episode = Episode(
        id=f"e{index:05d}",
        task=_task(plan),
        names=plan.names,
        ways=plan.ways,
        shots_per_class=tuple(sorted(plan.shots_per_class)),
        candidates=tuple(sorted(candidates, key=lambda candidate: candidate.name)),
        support=(),
        queries=tuple(queries[place] for place in order),
    )
    if plan.order == "rounds":
        found = [replace(episode, support=_rounds(seats, episode.shots_per_class[-1], *stream))]
    else:
        found = [
            replace(episode, id=f"{episode.id}-k{k:02d}", shots_per_class=(k,), support=_shuffle(seats, k, *stream))
            for k in episode.shots_per_class
        ]
    return tuple(replace(e, support=_mislabelled(e, plan.false_labels, *stream)) for e in found)


def _task(plan: EpisodePlan) -> str:
    """Rows of metrics are told apart by it: random and hard negatives never share a row."""
    task = "link-neighbours" if plan.negatives == "neighbours" else "link"
    task = f"{task}-shuffled" if plan.order == "shuffled" else task
    return f"{task}-false-{plan.false_labels:g}" if plan.false_labels else task


def _classes(pool: Pool, index: int) -> list[Stock]:
    """The classes of an episode. Every block of len(firsts) episodes has each usable class first once."""
    plan = pool.plan
    block, place = divmod(index, len(pool.firsts))
    first = pool.firsts[rng("episodes", plan.seed, "first", block).permutation(len(pool.firsts))[place]]
    if plan.negatives == "neighbours":
        near = by_rule(pool.nearest[first], plan.rule, "episodes", plan.seed, index, "negatives")
        return differently_named([pool.stocks[class_id] for class_id in (first, *near)], plan.ways)
    stocks = list(pool.stocks.values())
    others = rng("episodes", plan.seed, index, "classes").permutation(len(stocks))
    return differently_named([pool.stocks[first], *(stocks[other] for other in others)], plan.ways)


def _seat(plan: EpisodePlan, stock: Stock, name: str, *stream: Name) -> Seat:
    """Draw the queries of a class first, so that they stay the same at every shot count."""
    order = rng(*stream, "query", stock.class_id).permutation(len(stock.queries))
    queries: list[str] = []
    given_up: set[str] = set()  # sources that have a query, and so no support
    for item in (stock.queries[place] for place in order):
        if len(queries) == plan.queries_per_class:
            break
        with_it = given_up | {stock.source[item]}
        if with_it == given_up or enough(stock, plan, with_it):
            queries.append(item)
            given_up = with_it
    supports = tuple(item for item in stock.supports if stock.source[item] not in given_up)
    return Seat(stock, name, tuple(queries), supports)


def _rounds(seats: list[Seat], shots_per_class: int, *stream: Name) -> tuple[Turn, ...]:
    """A support whose every prefix of whole rounds is balanced."""
    order = rng(*stream, "rounds")
    columns = [[seat.turn(item) for item in _some(seat, shots_per_class, *stream)] for seat in seats]
    return tuple(columns[place][turn] for turn in range(shots_per_class) for place in order.permutation(len(seats)))


def _shuffle(seats: list[Seat], shots_per_class: int, *stream: Name) -> tuple[Turn, ...]:
    """A support drawn for this shot count alone, balanced only as a whole."""
    stream = (*stream, "shuffled", shots_per_class)
    turns = [seat.turn(item) for seat in seats for item in _some(seat, shots_per_class, *stream)]
    return tuple(turns[place] for place in rng(*stream).permutation(len(turns)))


def _mislabelled(episode: Episode, share: float, *stream: Name) -> tuple[Turn, ...]:
    """The support with each turn, by its own lot, under the name of another class. A larger share misleads more turns
    and the same ones: a turn is of the class that it is said to be."""
    if not share:
        return episode.support
    lots = rng(*stream, "false labels")
    drawn = lots.random(len(episode.support)), lots.integers(1, episode.ways, len(episode.support))
    classes = [candidate.class_id for candidate in episode.candidates]
    shown = []
    for turn, lot, step in zip(episode.support, *drawn, strict=True):
        other = episode.candidates[(classes.index(turn.class_id) + int(step)) % episode.ways]
        shown.append(replace(turn, class_id=other.class_id, answer=other.name) if lot < share else turn)
    return tuple(shown)


def _some(seat: Seat, shots_per_class: int, *stream: Name) -> list[str]:
    """Support pictures, uniformly; fewer shots of one stream are the beginning of more."""
    order = rng(*stream, "support", seat.stock.class_id).permutation(len(seat.supports))
    return [seat.supports[place] for place in order[:shots_per_class]]


def copy_first(shown: Sequence[Turn]) -> str | None:
    """The policy that repeats the first answer shown: its class id, None when nothing was shown."""
    return shown[0].class_id if shown else None


def copy_last(shown: Sequence[Turn]) -> str | None:
    """The policy that repeats the last answer shown: its class id, None when nothing was shown."""
    return shown[-1].class_id if shown else None
