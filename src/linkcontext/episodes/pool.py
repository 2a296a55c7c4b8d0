"""The pool of an episode plan: the usable classes of a data set, and which classes may share an episode."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from linkcontext.data.copies import label_conflicts
from linkcontext.data.layout import name_key
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.plan import EpisodePlan, Rule, check_link_plan
from linkcontext.errors import InputError, first_few
from linkcontext.records import Item
from linkcontext.seeds import Name, rng


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A class that the plan cannot use. `pictures` counts different pictures in the splits of the plan."""

    class_id: str
    pictures: int
    shortfall: str  # "5 of 17 pictures needed"


@dataclass(frozen=True, slots=True)
class ClassPool:
    """The pictures of one class in the plan's splits. Of copies within a class, only the first by id is used.

    A support and a query picture never share a source: a picture's content, and with `groups_apart` its group too.
    """

    class_id: str
    name: str
    pictures: int  # number of different pictures
    supports: tuple[str, ...]  # item ids
    queries: tuple[str, ...]
    source: dict[str, str]  # item id -> source
    group_capacity: dict[str, tuple[int, int]]  # source -> its numbers of support and query pictures


@dataclass(frozen=True, slots=True)
class EpisodePool:
    """Everything that an episode is drawn from."""

    plan: EpisodePlan
    classes: dict[str, ClassPool]
    anchors: tuple[str, ...]  # classes that can be the first of an episode
    # Anchor -> its ways - 1 negatives, or with a rule all classes that they are drawn from; empty for random negatives.
    nearest: dict[str, tuple[str, ...]]
    taken_names: frozenset[str]
    left_out: tuple[LeftOut, ...]
    disputed: tuple[str, ...]


def open_pool(
    dataset: Dataset, plan: EpisodePlan, neighbours: Mapping[str, Sequence[str]] | None = None
) -> EpisodePool:
    """Find the usable classes of a plan, from which `draw_episode` draws any episode. Raises like `sample_episodes`."""
    check_link_plan(plan, dataset)
    names, in_play = dataset.names(), _in_play(dataset, plan)
    claims = label_conflicts(item for items in in_play.values() for item in items)
    contradicted = {item.id for same in claims.values() for item in same}
    every = [_class_pool(plan, class_id, names[class_id], items, contradicted) for class_id, items in in_play.items()]
    classes = {one.class_id: one for one in every if has_enough(one, plan, set())}
    left_out = [
        LeftOut(one.class_id, one.pictures, _shortfall(one, plan, in_play[one.class_id], contradicted))
        for one in every
        if one.class_id not in classes
    ]
    nearest: dict[str, tuple[str, ...]] = {}
    if plan.negatives == "neighbours":
        known = _known_neighbours(dataset) if neighbours is None else neighbours
        nearest, without_neighbours = _nearest(classes, plan, known)
        left_out += without_neighbours
    anchors = tuple(nearest if plan.negatives == "neighbours" else classes)
    if not anchors or len({name_key(class_pool.name) for class_pool in classes.values()}) < plan.ways:
        raise InputError(_too_few(dataset, plan, len(classes), left_out))
    lower_names = {name.casefold() for name in names.values()}
    taken = lower_names.union(*(name.split() for name in lower_names))
    return EpisodePool(plan, classes, anchors, nearest, frozenset(taken), tuple(left_out), tuple(sorted(contradicted)))


def _in_play(dataset: Dataset, plan: EpisodePlan) -> dict[str, list[Item]]:
    """Class id -> its pictures in the plan's splits, by id, so that the order of the data set does not matter."""
    splits = {plan.support_split, plan.query_split}
    return {
        class_id: sorted((i for i in items if None in splits or i.split in splits), key=lambda item: item.id)
        for class_id, items in dataset.by_class().items()
    }


def _class_pool(
    plan: EpisodePlan, class_id: str, name: str, items: Sequence[Item], contradicted: set[str]
) -> ClassPool:
    """The pictures of a class under the plan, whether or not they are enough."""
    items = [item for item in items if item.id not in contradicted]
    source = _sources(items) if plan.groups_apart else {item.id: item.content for item in items}
    supports = _first_copies(item for item in items if plan.support_split in (None, item.split))
    queries = _first_copies(item for item in items if plan.query_split in (None, item.split))
    n_supports, n_queries = (Counter(source[item] for item in side) for side in (supports, queries))
    group_capacity = {each: (n_supports[each], n_queries[each]) for each in dict.fromkeys(source.values())}
    return ClassPool(class_id, name, len({item.content for item in items}), supports, queries, source, group_capacity)


def _first_copies(items: Iterable[Item]) -> tuple[str, ...]:
    """The ids of items with different contents, so that a picture and its copy count once."""
    first: dict[str, str] = {}
    for item in items:
        first.setdefault(item.content, item.id)
    return tuple(first.values())


def _sources(items: Iterable[Item]) -> dict[str, str]:
    """Item id -> source. Groups that contain copies of one picture are one source (union-find)."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for item in items:
        parent[root(f"content {item.content}")] = root(f"group {item.group}")
    return {item.id: root(f"group {item.group}") for item in items}


def _shortfall(class_pool: ClassPool, plan: EpisodePlan, items: Sequence[Item], contradicted: set[str]) -> str:
    """Why a class is left out, as the user reads it."""
    lost = sum(item.id in contradicted for item in items)
    return _short_of(class_pool, plan) + (f", {lost} more are in another class too" if lost else "")


def _short_of(class_pool: ClassPool, plan: EpisodePlan) -> str:
    show, ask = max(plan.shots_per_class), plan.queries_per_class
    if plan.groups_apart and class_pool.pictures >= show + ask:
        have = f"{class_pool.pictures} pictures in {len(class_pool.group_capacity)} groups"
        return f"{have}, which do not part into {show} supports and {ask} queries"
    if plan.support_split == plan.query_split:
        return f"{class_pool.pictures} of {show + ask} pictures needed"
    have = f"{len(class_pool.supports)} of {show} supports and {len(class_pool.queries)} of {ask} queries needed"
    return f"{have}, {class_pool.pictures} different pictures in all"


def _known_neighbours(dataset: Dataset) -> dict[str, Sequence[str]]:
    """Class id -> neighbours by the facts of its pictures, which the procedural world has, for example."""
    known: dict[str, Sequence[str]] = {}
    for item in sorted(dataset.items, key=lambda item: item.id):
        near = item.facts.get("neighbours", ())
        if not isinstance(near, list | tuple) or not all(isinstance(class_id, str) for class_id in near):
            raise InputError(f"{dataset.root}: {item.id}: the fact `neighbours` must be a list of class ids.")
        known[item.class_id] = known.get(item.class_id) or near
    return known


def _nearest(
    classes: Mapping[str, ClassPool], plan: EpisodePlan, known: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[str, ...]], list[LeftOut]]:
    """Class id -> the classes that its negatives are taken from, and the classes with too few, which are no anchors."""
    if not any(known.values()):
        raise InputError("No class has a list of neighbours. Run `linkcontext mine`, or give --neighbours.")
    nearest: dict[str, tuple[str, ...]] = {}
    without_neighbours: list[LeftOut] = []
    for class_id, class_pool in classes.items():
        usable = [classes[other] for other in known.get(class_id, ()) if other in classes]
        met = differently_named([class_pool, *usable], plan.ways)[1:]
        if len(met) == plan.ways - 1:
            nearest[class_id] = tuple(other.class_id for other in (met if plan.rule == "nearest" else usable))
        else:
            lack = f"{len(met)} of {plan.ways - 1} usable neighbours needed; it is only ever a negative"
            without_neighbours.append(LeftOut(class_id, class_pool.pictures, lack))
    return nearest, without_neighbours


def _too_few(dataset: Dataset, plan: EpisodePlan, usable: int, left_out: Sequence[LeftOut]) -> str:
    """The message about too few classes, with the first few that are left out."""
    listed = first_few([f"{out.class_id} ({out.shortfall})" for out in left_out])
    problems = first_few(list(dataset.problems), whole=True)
    return (
        f"{dataset.root}: usable classes: {usable}; an episode needs {plan.ways} with different names. "
        + (f"Left out: {listed}. " if listed else "")
        + (f"{problems} " if problems else "")
        + "Add pictures or classes, or ask for fewer: --ways, --shots-per-class."
    )


def by_rule(near: Sequence[str], rule: Rule, *stream: Name) -> tuple[str, ...]:
    """The order in which an episode takes the neighbours of `near`, which are sorted with the nearest first.

    nearest: this order. topk: uniform sampling without replacement. linear and intervals: sampling without replacement,
    the j-th of n with weight n + 1 - j (the two rules differ in the list: `linkcontext.data.neighbours`).
    """
    if rule == "nearest":
        return tuple(near)
    weights = np.ones(len(near)) if rule == "topk" else np.arange(len(near), 0, -1)
    # Of exponential waiting times with these rates, each is the shortest with probability weight / sum, and so on.
    waits = -np.log1p(-rng(*stream).random(len(near))) / weights
    return tuple(near[place] for place in np.argsort(waits))


def differently_named(classes: Iterable[ClassPool], ways: int) -> list[ClassPool]:
    """The first `ways` classes with different names; of classes with the same name only the first is taken."""
    met: dict[str, ClassPool] = {}
    for class_pool in classes:
        met.setdefault(name_key(class_pool.name), class_pool)
        if len(met) == ways:
            break
    return list(met.values())


def has_enough(class_pool: ClassPool, plan: EpisodePlan, given_up: set[str]) -> bool:
    """Whether a class still has enough queries and supports if the sources `given_up` are used for queries only."""
    rest = [group_capacity for source, group_capacity in class_pool.group_capacity.items() if source not in given_up]
    gone = [class_pool.group_capacity[source] for source in given_up]
    missing = max(0, plan.queries_per_class - sum(queries for _, queries in gone))
    spare = len(class_pool.supports) - sum(supports for supports, _ in gone) - max(plan.shots_per_class)
    # Usually even the sources with the most supports can be given up, which saves the search.
    dearest = sorted((supports for supports, queries in rest if queries), reverse=True)[:missing]
    if len(dearest) == missing and sum(dearest) <= spare:
        return True
    return _least_loss(rest, missing) <= spare


def _least_loss(group_capacity: list[tuple[int, int]], queries: int) -> float:
    """The smallest number of supports lost for `queries` queries: a knapsack over sources (supports, queries)."""
    loss = [0.0] + [math.inf] * queries
    for supports, offered in group_capacity:
        for wanted in range(queries, 0, -1):
            loss[wanted] = min(loss[wanted], loss[max(0, wanted - offered)] + supports)
    return loss[queries]
