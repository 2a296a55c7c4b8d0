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
from linkcontext.episodes.pool import ClassPool, EpisodePool, LeftOut, by_rule, differently_named, has_enough, open_pool
from linkcontext.records import Candidate, Episode, Turn
from linkcontext.seeds import Name, rng


@dataclass(frozen=True, slots=True)
class SampledEpisodes:
    """The episodes, and what could not be in them."""

    episodes: tuple[Episode, ...]
    left_out: tuple[LeftOut, ...]
    disputed: tuple[str, ...]  # items whose content is filed under differently named classes too


@dataclass(frozen=True, slots=True)
class ClassSlot:
    """One class in one episode: its name there, its query pictures, and the pictures that may support it."""

    class_pool: ClassPool
    name: str
    queries: tuple[str, ...]
    supports: tuple[str, ...]

    def turn(self, item: str) -> Turn:
        """That picture under the name shown."""
        return Turn(item, self.class_pool.class_id, self.name)


def sample_episodes(
    dataset: Dataset, plan: EpisodePlan, neighbours: Mapping[str, Sequence[str]] | None = None
) -> SampledEpisodes:
    """Draw all episodes of a plan. `neighbours` maps a class id to others, nearest first.

    Raises `InputError` when the plan contradicts itself, or when too few classes have enough pictures.
    """
    pool = open_pool(dataset, plan, neighbours)
    episodes = tuple(episode for index in range(plan.episodes) for episode in draw_episode(pool, index))
    return SampledEpisodes(episodes, pool.left_out, pool.disputed)


def draw_episode(pool: EpisodePool, index: int) -> tuple[Episode, ...]:
    """Episode `index`: one record, or with `order="shuffled"` one for each shot count."""
    plan, stream = pool.plan, ("episodes", pool.plan.seed, index)
    classes = _classes(pool, index)
    names = shown_names(plan.names, [s.name for s in classes], *stream, avoid=pool.taken_names)
    class_slots = [
        _class_slot(plan, class_pool, name, *stream) for class_pool, name in zip(classes, names, strict=True)
    ]
    queries = [slot.turn(item) for slot in class_slots for item in slot.queries]
    order = rng(*stream, "query order").permutation(len(queries))
    candidates = [Candidate(slot.class_pool.class_id, slot.name, slot.class_pool.name) for slot in class_slots]
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
        found = [replace(episode, support=_rounds(class_slots, episode.shots_per_class[-1], *stream))]
    else:
        found = [
            replace(
                episode, id=f"{episode.id}-k{k:02d}", shots_per_class=(k,), support=_shuffle(class_slots, k, *stream)
            )
            for k in episode.shots_per_class
        ]
    return tuple(replace(e, support=_mislabelled(e, plan.false_labels, *stream)) for e in found)


def _task(plan: EpisodePlan) -> str:
    """Rows of metrics are told apart by it: random and hard negatives never share a row."""
    task = "link-neighbours" if plan.negatives == "neighbours" else "link"
    task = f"{task}-shuffled" if plan.order == "shuffled" else task
    return f"{task}-false-{plan.false_labels:g}" if plan.false_labels else task


def _classes(pool: EpisodePool, index: int) -> list[ClassPool]:
    """The classes of an episode. Every block of len(firsts) episodes has each usable class first once."""
    plan = pool.plan
    block, place = divmod(index, len(pool.anchors))
    first = pool.anchors[rng("episodes", plan.seed, "first", block).permutation(len(pool.anchors))[place]]
    if plan.negatives == "neighbours":
        near = by_rule(pool.nearest[first], plan.rule, "episodes", plan.seed, index, "negatives")
        return differently_named([pool.classes[class_id] for class_id in (first, *near)], plan.ways)
    classes = list(pool.classes.values())
    others = rng("episodes", plan.seed, index, "classes").permutation(len(classes))
    return differently_named([pool.classes[first], *(classes[other] for other in others)], plan.ways)


def _class_slot(plan: EpisodePlan, class_pool: ClassPool, name: str, *stream: Name) -> ClassSlot:
    """Draw the queries of a class first, so that they stay the same at every shot count."""
    order = rng(*stream, "query", class_pool.class_id).permutation(len(class_pool.queries))
    queries: list[str] = []
    given_up: set[str] = set()  # sources that have a query, and so no support
    for item in (class_pool.queries[place] for place in order):
        if len(queries) == plan.queries_per_class:
            break
        with_it = given_up | {class_pool.source[item]}
        if with_it == given_up or has_enough(class_pool, plan, with_it):
            queries.append(item)
            given_up = with_it
    supports = tuple(item for item in class_pool.supports if class_pool.source[item] not in given_up)
    return ClassSlot(class_pool, name, tuple(queries), supports)


def _rounds(class_slots: list[ClassSlot], shots_per_class: int, *stream: Name) -> tuple[Turn, ...]:
    """A support whose every prefix of whole rounds is balanced."""
    order = rng(*stream, "rounds")
    columns = [[slot.turn(item) for item in _support_pictures(slot, shots_per_class, *stream)] for slot in class_slots]
    return tuple(
        columns[place][turn] for turn in range(shots_per_class) for place in order.permutation(len(class_slots))
    )


def _shuffle(class_slots: list[ClassSlot], shots_per_class: int, *stream: Name) -> tuple[Turn, ...]:
    """A support drawn for this shot count alone, balanced only as a whole."""
    stream = (*stream, "shuffled", shots_per_class)
    turns = [slot.turn(item) for slot in class_slots for item in _support_pictures(slot, shots_per_class, *stream)]
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


def _support_pictures(slot: ClassSlot, shots_per_class: int, *stream: Name) -> list[str]:
    """Support pictures, uniformly; fewer shots of one stream are the beginning of more."""
    order = rng(*stream, "support", slot.class_pool.class_id).permutation(len(slot.supports))
    return [slot.supports[place] for place in order[:shots_per_class]]


def copy_first(shown: Sequence[Turn]) -> str | None:
    """The policy that repeats the first answer shown: its class id, None when nothing was shown."""
    return shown[0].class_id if shown else None


def copy_last(shown: Sequence[Turn]) -> str | None:
    """The policy that repeats the last answer shown: its class id, None when nothing was shown."""
    return shown[-1].class_id if shown else None
