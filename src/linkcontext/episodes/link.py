"""Draw episodes that link classes to names. Episode i is a pure function of the plan, the data and i.

A policy that ignores the query picture scores exactly 1/ways in every episode: whatever it computes from the support
and the names, it gives the same answer to all queries of an episode, and each class is queried equally often. The
support is balanced as well, so counting its names does not help either.
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
    """The episodes, and the classes and items that could not be used."""

    episodes: tuple[Episode, ...]
    left_out: tuple[LeftOut, ...]
    disputed: tuple[str, ...]  # items with copies in classes of another name


@dataclass(frozen=True, slots=True)
class ClassSlot:
    """One class in one episode: its name there, its query pictures, and its possible support pictures."""

    class_pool: ClassPool
    name: str
    queries: tuple[str, ...]
    supports: tuple[str, ...]

    def turn(self, item: str) -> Turn:
        """A turn with that picture and the class's name in the episode."""
        return Turn(item, self.class_pool.class_id, self.name)


def sample_episodes(
    dataset: Dataset, plan: EpisodePlan, neighbours: Mapping[str, Sequence[str]] | None = None
) -> SampledEpisodes:
    """Draw all episodes of a plan. `neighbours` maps a class id to other class ids, nearest first.

    Raises `InputError` for a plan that contradicts itself, and if too few classes have enough pictures.
    """
    pool = open_pool(dataset, plan, neighbours)
    episodes = tuple(episode for index in range(plan.episodes) for episode in draw_episode(pool, index))
    return SampledEpisodes(episodes, pool.left_out, pool.disputed)


def draw_episode(pool: EpisodePool, index: int) -> tuple[Episode, ...]:
    """Draw episode `index`: one record, or with `order="shuffled"` one for each shot count."""
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
        episodes = [replace(episode, support=_rounds(class_slots, episode.shots_per_class[-1], *stream))]
    else:
        episodes = [
            replace(
                episode, id=f"{episode.id}-k{k:02d}", shots_per_class=(k,), support=_shuffle(class_slots, k, *stream)
            )
            for k in episode.shots_per_class
        ]
    return tuple(replace(e, support=_mislabelled(e, plan.false_labels, *stream)) for e in episodes)


def _task(plan: EpisodePlan) -> str:
    """The task of the episodes, which separates rows of metrics: random and hard negatives never share a row."""
    task = "link-neighbours" if plan.negatives == "neighbours" else "link"
    task = f"{task}-shuffled" if plan.order == "shuffled" else task
    return f"{task}-false-{plan.false_labels:g}" if plan.false_labels else task


def _classes(pool: EpisodePool, index: int) -> list[ClassPool]:
    """The classes of an episode. In every block of len(anchors) episodes each anchor is the first class once."""
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
    """Draw the queries of a class, and then its possible supports, so that queries do not depend on the shot count."""
    order = rng(*stream, "query", class_pool.class_id).permutation(len(class_pool.queries))
    queries: list[str] = []
    given_up: set[str] = set()  # sources of queries, which give no support pictures
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
    """A support for one shot count, which is balanced only as a whole."""
    stream = (*stream, "shuffled", shots_per_class)
    turns = [slot.turn(item) for slot in class_slots for item in _support_pictures(slot, shots_per_class, *stream)]
    return tuple(turns[place] for place in rng(*stream).permutation(len(turns)))


def _mislabelled(episode: Episode, share: float, *stream: Name) -> tuple[Turn, ...]:
    """The support with each turn renamed to another class with probability `share`.

    A larger share renames the same turns and more. A renamed turn has the class id of its new name.
    """
    if not share:
        return episode.support
    generator = rng(*stream, "false labels")
    drawn = generator.random(len(episode.support)), generator.integers(1, episode.ways, len(episode.support))
    classes = [candidate.class_id for candidate in episode.candidates]
    shown = []
    for turn, value, step in zip(episode.support, *drawn, strict=True):
        other = episode.candidates[(classes.index(turn.class_id) + int(step)) % episode.ways]
        shown.append(replace(turn, class_id=other.class_id, answer=other.name) if value < share else turn)
    return tuple(shown)


def _support_pictures(slot: ClassSlot, shots_per_class: int, *stream: Name) -> list[str]:
    """Support pictures drawn uniformly; for one stream, fewer shots are a prefix of more."""
    order = rng(*stream, "support", slot.class_pool.class_id).permutation(len(slot.supports))
    return [slot.supports[place] for place in order[:shots_per_class]]


def copy_first(shown: Sequence[Turn]) -> str | None:
    """The class id that a policy answers which repeats the first answer of the support; None without a support."""
    return shown[0].class_id if shown else None


def copy_last(shown: Sequence[Turn]) -> str | None:
    """The class id that a policy answers which repeats the last answer of the support; None without a support."""
    return shown[-1].class_id if shown else None
