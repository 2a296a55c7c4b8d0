"""Drawing episodes from items. Episode i is a pure function of the plan, the data and i.

Why a policy that never looks at the query picture scores exactly 1/ways in every episode: whatever it
makes of the support and of the names, it gives all queries of an episode one answer, and each class is
queried equally often. The support is balanced as well, so that counting its names tells nothing.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from linkcontext.data.manifest import Dataset, first_few
from linkcontext.errors import InputError
from linkcontext.records import Candidate, Episode, Item, Turn
from linkcontext.seeds import Name, rng
from linkcontext.world.names import NameKind, shown_names

Negatives = Literal["random", "neighbours"]
Order = Literal["rounds", "shuffled"]


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """What to draw. Shots are per class: an episode's support has ways x max(shots_per_class) pictures."""

    ways: int = 2
    shots_per_class: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    episodes: int = 256
    queries: int | None = None  # of all classes together, a multiple of ways; None: one of each class
    names: NameKind = "pseudo"
    negatives: Negatives = "random"
    order: Order = "rounds"
    seed: int = 0
    support_split: str | None = None  # None: pictures of any split
    query_split: str | None = None
    # No support picture shares its group with a query picture of its class; "" is a group like any other.
    groups_apart: bool = False

    @property
    def queries_per_class(self) -> int:
        """How often each class is queried in an episode."""
        return 1 if self.queries is None else self.queries // self.ways


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A class that could not be used as asked. `pictures` counts different pictures of the splits in play."""

    class_id: str
    pictures: int
    lacks: str  # "5 of 17 pictures needed"


@dataclass(frozen=True, slots=True)
class Sampled:
    """The episodes, and what could not be in them."""

    episodes: tuple[Episode, ...]
    left_out: tuple[LeftOut, ...]
    disputed: tuple[str, ...]  # items whose content is filed under differently named classes too


@dataclass(frozen=True, slots=True)
class Stock:
    """The pictures of one class in play. Of copies within a class only the first by id is here.

    A source is what support and query may not share: a content, and with `groups_apart` a group too.
    """

    class_id: str
    name: str
    pictures: int  # different ones
    supports: tuple[str, ...]  # item ids
    queries: tuple[str, ...]
    source: dict[str, str]  # item id -> source
    supply: dict[str, tuple[int, int]]  # source -> how many supports and queries it holds


@dataclass(frozen=True, slots=True)
class Pool:
    """Everything an episode is drawn from: the usable classes and who meets whom."""

    plan: EpisodePlan
    stocks: dict[str, Stock]
    firsts: tuple[str, ...]  # classes that can be an episode's first
    nearest: dict[str, tuple[str, ...]]  # of each first its ways - 1 negatives; empty where they are random
    taken_names: frozenset[str]
    left_out: tuple[LeftOut, ...]
    disputed: tuple[str, ...]


def open_pool(
    dataset: Dataset, plan: EpisodePlan, neighbours: Mapping[str, Sequence[str]] | None = None
) -> Pool:
    """Find the usable classes once; `draw` then makes any episode alone. Raises like `sample`."""
    _check(plan, dataset)
    names, classes = dataset.names(), _in_play(dataset, plan)
    disputed = _disputed(classes, names)
    every = [_stock(plan, class_id, names[class_id], items, disputed) for class_id, items in classes.items()]
    stocks = {stock.class_id: stock for stock in every if _enough(stock, plan, set())}
    left_out = [LeftOut(s.class_id, s.pictures, _lacks(s, plan)) for s in every if s.class_id not in stocks]
    nearest: dict[str, tuple[str, ...]] = {}
    if plan.negatives == "neighbours":
        known = _known_neighbours(dataset) if neighbours is None else neighbours
        nearest, lonely = _nearest(stocks, plan, known)
        left_out += lonely
    firsts = tuple(nearest if plan.negatives == "neighbours" else stocks)
    if not firsts or len({_name_key(stock.name) for stock in stocks.values()}) < plan.ways:
        raise InputError(_too_few(dataset, plan, len(stocks), left_out))
    spoken = {name.casefold() for name in names.values()}
    taken = spoken.union(*(name.split() for name in spoken))
    return Pool(plan, stocks, firsts, nearest, frozenset(taken), tuple(left_out), tuple(sorted(disputed)))


def _check(plan: EpisodePlan, dataset: Dataset) -> None:
    """A plan that contradicts itself, or asks for what the data set does not know."""
    shots, splits = plan.shots_per_class, {item.split for item in dataset.items}
    for chosen, kind in ((plan.names, NameKind), (plan.negatives, Negatives), (plan.order, Order)):
        if chosen not in get_args(kind):
            raise InputError(f"{chosen!r} is none of {', '.join(get_args(kind))}.")
    if plan.ways < 2 or plan.episodes < 1:
        raise InputError(f"ways={plan.ways}, episodes={plan.episodes}: give at least 2 ways and 1 episode.")
    if not shots or min(shots) < 0 or len(set(shots)) < len(shots):
        raise InputError(f"shots_per_class {shots}: give one or more different numbers, none below 0.")
    if plan.queries is not None and (plan.queries < 1 or plan.queries % plan.ways):
        raise InputError(
            f"{plan.queries} queries for {plan.ways} ways: every class must be queried equally often. "
            f"Give a multiple of {plan.ways}."
        )
    for split in (plan.support_split, plan.query_split):
        if split is not None and split not in splits:
            there = first_few(sorted(repr(each) for each in splits))
            raise InputError(f"{dataset.root}: no picture is of the split {split!r}; there is {there}.")
    if plan.groups_apart and not any(item.group for item in dataset.items):
        raise InputError(f"{dataset.root}: no picture has a group, so groups cannot be kept apart.")


def _in_play(dataset: Dataset, plan: EpisodePlan) -> dict[str, list[Item]]:
    """Each class's pictures of the splits asked for, by id: the order of the data set must not matter."""
    splits = {plan.support_split, plan.query_split}
    return {
        class_id: sorted((i for i in items if None in splits or i.split in splits), key=lambda item: item.id)
        for class_id, items in dataset.by_class().items()
    }


def _disputed(classes: Mapping[str, Sequence[Item]], names: Mapping[str, str]) -> set[str]:
    """Items with content that differently named classes claim: no answer to them would be right."""
    claims: dict[str, set[str]] = {}
    for class_id, items in classes.items():
        for item in items:
            claims.setdefault(item.sha256, set()).add(_name_key(names[class_id]))
    return {item.id for items in classes.values() for item in items if len(claims[item.sha256]) > 1}


def _stock(plan: EpisodePlan, class_id: str, name: str, items: Sequence[Item], disputed: set[str]) -> Stock:
    """What a class can give under the plan, whether or not it is enough."""
    items = [item for item in items if item.id not in disputed]
    source = _sources(items) if plan.groups_apart else {item.id: item.sha256 for item in items}
    supports = _first_copies(item for item in items if plan.support_split in (None, item.split))
    queries = _first_copies(item for item in items if plan.query_split in (None, item.split))
    held, asked = (Counter(source[item] for item in side) for side in (supports, queries))
    supply = {each: (held[each], asked[each]) for each in dict.fromkeys(source.values())}
    return Stock(class_id, name, len({item.sha256 for item in items}), supports, queries, source, supply)


def _first_copies(items: Iterable[Item]) -> tuple[str, ...]:
    """Ids, each content once: two copies would count one picture twice."""
    first: dict[str, str] = {}
    for item in items:
        first.setdefault(item.sha256, item.id)
    return tuple(first.values())


def _sources(items: Iterable[Item]) -> dict[str, str]:
    """Item id to source, where groups that hold copies of one picture are one source (union-find)."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for item in items:
        parent[root(f"content {item.sha256}")] = root(f"group {item.group}")
    return {item.id: root(f"group {item.group}") for item in items}


def _lacks(stock: Stock, plan: EpisodePlan) -> str:
    """What keeps a class out, in the words of the list shown to the user."""
    show, ask = max(plan.shots_per_class), plan.queries_per_class
    if plan.groups_apart and stock.pictures >= show + ask:
        have = f"{stock.pictures} pictures in {len(stock.supply)} groups"
        return f"{have}, which do not part into {show} supports and {ask} queries"
    if plan.support_split == plan.query_split:
        return f"{stock.pictures} of {show + ask} pictures needed"
    have = f"{len(stock.supports)} of {show} supports and {len(stock.queries)} of {ask} queries needed"
    return f"{have}, {stock.pictures} different pictures in all"


def _known_neighbours(dataset: Dataset) -> dict[str, Sequence[str]]:
    """What the pictures' own facts say, for example those of the procedural world."""
    known: dict[str, Sequence[str]] = {}
    for item in sorted(dataset.items, key=lambda item: item.id):
        near = item.facts.get("neighbours", ())
        if not isinstance(near, list | tuple) or not all(isinstance(class_id, str) for class_id in near):
            raise InputError(f"{dataset.root}: {item.id}: the fact `neighbours` must be a list of class ids.")
        known[item.class_id] = known.get(item.class_id) or near
    return known


def _nearest(
    stocks: Mapping[str, Stock], plan: EpisodePlan, known: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[str, ...]], list[LeftOut]]:
    """The negatives of each class that has enough, and the classes that have not and so are never first."""
    if not any(known.values()):
        raise InputError("No class has a list of neighbours. Run `linkcontext mine`, or give --neighbours.")
    nearest: dict[str, tuple[str, ...]] = {}
    lonely: list[LeftOut] = []
    for class_id, stock in stocks.items():
        usable = (stocks[other] for other in known.get(class_id, ()) if other in stocks)
        met = tuple(other.class_id for other in _differently_named([stock, *usable], plan.ways)[1:])
        if len(met) == plan.ways - 1:
            nearest[class_id] = met
        else:
            lack = f"{len(met)} of {plan.ways - 1} usable neighbours needed; it is only ever a negative"
            lonely.append(LeftOut(class_id, stock.pictures, lack))
    return nearest, lonely


def _too_few(dataset: Dataset, plan: EpisodePlan, usable: int, left_out: Sequence[LeftOut]) -> str:
    """One sentence for the user with the first few culprits."""
    listed = first_few([f"{out.class_id} ({out.lacks})" for out in left_out])
    return (
        f"{dataset.root}: usable classes: {usable}; an episode needs {plan.ways} with different names. "
        + (f"Left out: {listed}. " if listed else "")
        + "Add pictures or classes, or ask for fewer ways or shots_per_class."
    )


def _differently_named(stocks: Iterable[Stock], ways: int) -> list[Stock]:
    """The first `ways` classes whose names differ; the later of two equal names does not meet the earlier."""
    met: dict[str, Stock] = {}
    for stock in stocks:
        met.setdefault(_name_key(stock.name), stock)
        if len(met) == ways:
            break
    return list(met.values())


def _name_key(name: str) -> str:
    """Names with one key would be the same answer: case, compatibility forms and spaces don't count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _enough(stock: Stock, plan: EpisodePlan, given_up: set[str]) -> bool:
    """Can the queries be completed and the support still be filled once these sources are given up?"""
    rest = [supply for source, supply in stock.supply.items() if source not in given_up]
    gone = [stock.supply[source] for source in given_up]
    missing = max(0, plan.queries_per_class - sum(queries for _, queries in gone))
    spare = len(stock.supports) - sum(supports for supports, _ in gone) - max(plan.shots_per_class)
    # Most often even the dearest sources can be spared, which saves the search.
    dearest = sorted((supports for supports, queries in rest if queries), reverse=True)[:missing]
    if len(dearest) == missing and sum(dearest) <= spare:
        return True
    return _least_loss(rest, missing) <= spare


def _least_loss(supply: list[tuple[int, int]], queries: int) -> float:
    """The fewest supports to give up for that many queries: a knapsack over sources (supports, queries)."""
    loss = [0.0] + [math.inf] * queries
    for supports, offered in supply:
        for wanted in range(queries, 0, -1):
            loss[wanted] = min(loss[wanted], loss[max(0, wanted - offered)] + supports)
    return loss[queries]


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


def sample(
    dataset: Dataset, plan: EpisodePlan, neighbours: Mapping[str, Sequence[str]] | None = None
) -> Sampled:
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
        return (replace(episode, support=_rounds(seats, episode.shots_per_class[-1], *stream)),)
    return tuple(
        replace(
            episode, id=f"{episode.id}-k{k:02d}", shots_per_class=(k,), support=_shuffle(seats, k, *stream)
        )
        for k in episode.shots_per_class
    )


def _task(plan: EpisodePlan) -> str:
    """Rows of metrics are told apart by it: random and hard negatives never share a row."""
    task = "link-neighbours" if plan.negatives == "neighbours" else "link"
    return f"{task}-shuffled" if plan.order == "shuffled" else task


def _classes(pool: Pool, index: int) -> list[Stock]:
    """The classes of an episode. Every block of len(firsts) episodes has each usable class first once."""
    plan = pool.plan
    block, place = divmod(index, len(pool.firsts))
    first = pool.firsts[rng("episodes", plan.seed, "first", block).permutation(len(pool.firsts))[place]]
    if plan.negatives == "neighbours":
        return [pool.stocks[class_id] for class_id in (first, *pool.nearest[first])]
    stocks = list(pool.stocks.values())
    others = rng("episodes", plan.seed, index, "classes").permutation(len(stocks))
    return _differently_named([pool.stocks[first], *(stocks[other] for other in others)], plan.ways)


def _seat(plan: EpisodePlan, stock: Stock, name: str, *stream: Name) -> Seat:
    """Draw the queries of a class first, so that they stay the same at every shot count."""
    order = rng(*stream, "query", stock.class_id).permutation(len(stock.queries))
    queries: list[str] = []
    given_up: set[str] = set()  # sources that have a query, and so no support
    for item in (stock.queries[place] for place in order):
        if len(queries) == plan.queries_per_class:
            break
        with_it = given_up | {stock.source[item]}
        if with_it == given_up or _enough(stock, plan, with_it):
            queries.append(item)
            given_up = with_it
    supports = tuple(item for item in stock.supports if stock.source[item] not in given_up)
    return Seat(stock, name, tuple(queries), supports)


def _rounds(seats: list[Seat], shots_per_class: int, *stream: Name) -> tuple[Turn, ...]:
    """A support whose every prefix of whole rounds is balanced."""
    order = rng(*stream, "rounds")
    columns = [[seat.turn(item) for item in _some(seat, shots_per_class, *stream)] for seat in seats]
    return tuple(
        columns[place][turn] for turn in range(shots_per_class) for place in order.permutation(len(seats))
    )


def _shuffle(seats: list[Seat], shots_per_class: int, *stream: Name) -> tuple[Turn, ...]:
    """A support drawn for this shot count alone, balanced only as a whole."""
    stream = (*stream, "shuffled", shots_per_class)
    turns = [seat.turn(item) for seat in seats for item in _some(seat, shots_per_class, *stream)]
    return tuple(turns[place] for place in rng(*stream).permutation(len(turns)))


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
