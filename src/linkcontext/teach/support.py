"""The support of a prompt: which taught pictures are shown before a query, and in which order."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from linkcontext.config import Select
from linkcontext.episodes.scaffold import build_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.medoids import medoids, rices
from linkcontext.evaluation.picture_vectors import PictureVectors, rows_of_kind
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.records import Turn
from linkcontext.seeds import rng
from linkcontext.teach.taught_pictures import TaughtPictures

if TYPE_CHECKING:
    from linkcontext.teach.learner import Learner

log = logging.getLogger("linkcontext")


class Shown(NamedTuple):
    """How much of what was taught a prompt shows."""

    per_name: int  # pictures of every name; 0 where the context has no room for one of every name
    retrieved: int = 0  # pictures, those most similar to the query; 0 where all queries have the same support


class Support(NamedTuple):
    """The turns that precede a query, and their KV cache where there is one."""

    turns: list[Turn]
    prefix: PrefixCache | None = None


def interleave(by_name: Mapping[str, Sequence[str]]) -> list[Turn]:
    """Pictures as turns, one picture of each name at a time."""
    most = max(map(len, by_name.values()), default=0)
    return [Turn(row[i], name, name) for i in range(most) for name, row in by_name.items() if i < len(row)]


def select_support(pictures: TaughtPictures, count: int, select: Select) -> list[Turn]:
    """A support of at most `count` pictures of each name: the medoids, or a random sample.

    The sample is random, too, if there are no features to compare. Fewer pictures are the beginning of more.
    """
    return interleave({name: _selected(pictures, name, count, select) for name in pictures.by_name})


def _selected(pictures: TaughtPictures, name: str, count: int, select: Select) -> list[str]:
    own = pictures.by_name[name]
    if len(own) <= count:
        return own
    if select == "random" or not pictures.vectors:
        order = rng("select", name, len(own)).permutation(len(own))[:count].tolist()
    else:
        order = medoids(pictures.rows(pictures.similarity_kind, own)[:, 0], count)
    return [own[place] for place in order]


def most_similar(pictures: TaughtPictures, query: PictureVectors, count: int, without: str | None = None) -> list[Turn]:
    """A support of the `count` pictures most similar to the query, whatever their names (RICES).

    The picture with the id `without` is left out.
    """
    kind = pictures.similarity_kind
    named = [(picture, name) for name, own in pictures.by_name.items() for picture in own if picture != without]
    rows = pictures.rows(kind, [picture for picture, _ in named])[:, 0]
    order = rices(rows_of_kind(query, kind)[0], rows, count)
    return [Turn(named[place][0], named[place][1], named[place][1]) for place in order]


def largest_fitting(most: int, check: Callable[[int], object]) -> int:
    """The largest number up to `most` that passes `check`, which raises `InputError` for it and all above otherwise.

    Raises the error for 1 if not even that passes.
    """

    def fits(count: int) -> bool:
        try:
            check(count)
        except InputError:
            return False
        return True

    if most == 0 or fits(most):
        return most
    check(1)
    return 1 + bisect_left(range(2, most), True, key=lambda count: not fits(count))


def fitting_shots(learner: "Learner") -> int:
    """How many pictures per name fit the context and leave room for a question and its answer."""
    by_name, model = learner.pictures.by_name, learner.model
    most = max(map(len, by_name.values()), default=0)
    count = largest_fitting(most, lambda n: _check(learner, select_support(learner.pictures, n, learner.select)))
    if count < most:
        log.warning(
            "Only %d pictures per name are shown, the most representative ones: no more fit the model's context "
            "of %s tokens.",
            count,
            model.card.context,
        )
    return count


def shown_pictures(learner: "Learner") -> Shown:
    """How much the prompts of a learner show.

    Where the context has no room for one picture of every name, each query gets a support of its own, as with
    `select="rices"`: the taught pictures most similar to it, as many as fit. Raises `InputError` where the model has no
    image features to compare.
    """
    return learner.computed.once(learner.pictures.key, "shown", lambda: _shown(learner))


def retrieves(learner: "Learner") -> bool:
    """Whether each query has a support of its own."""
    return shown_pictures(learner).retrieved > 0


def shown_support(learner: "Learner") -> list[Turn]:
    """The support that all queries have or, where each has one of its own, one that is as long."""
    shown = shown_pictures(learner)
    turns = select_support(learner.pictures, shown.per_name or 1, learner.select)
    return turns if shown.per_name else turns[: shown.retrieved]


def _shown(learner: "Learner") -> Shown:
    pictures, shots = learner.pictures, learner.shots_per_class
    if learner.select == "rices":
        return Shown(shots or 1, (shots or 1) * len(pictures.names))
    if shots is not None:
        return Shown(shots)
    pictures.register(learner.model)  # their tokens count
    try:
        return Shown(fitting_shots(learner))
    except InputError:
        if not pictures.kinds:
            raise
    longest = sorted(pictures.by_name, key=len, reverse=True)
    turns = [Turn(pictures.by_name[name][0], name, name) for name in longest]
    retrieved = largest_fitting(len(turns), lambda n: _check(learner, turns[:n]))
    log.warning(
        "The %s names do not fit the model's context of %s tokens: the language model is shown the %s taught pictures "
        "most similar to each query, and chooses among their names.",
        f"{len(turns):,}",
        learner.model.card.context,
        retrieved,
    )
    return Shown(0, retrieved)


def _check(learner: "Learner", turns: Sequence[Turn]) -> None:
    """Raise `InputError` if a support with a question and the longest name does not fit the context."""
    longest = max(learner.pictures.by_name, key=len)
    learner.model.prompt(build_messages(turns, learner.scaffold, turns[0], longest))
