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

FEWEST = 4  # pictures of each name: with fewer, showing the most similar pictures names more of them right
RETRIEVED = 16  # most similar pictures. docs/teaching.md has the measurements


class Shown(NamedTuple):
    """How much of what was taught a prompt shows."""

    per_name: int  # pictures of every name, where all queries have the same support; 0 if none fits
    retrieved: int = 0  # pictures, those most similar to the query; 0 where all queries have the same support
    among_shown: bool = False  # whether the language model chooses among the names of the retrieved pictures alone


class Support(NamedTuple):
    """The turns that precede a query, and their KV cache where there is one."""

    turns: list[Turn]
    prefix: PrefixCache | None = None


def interleave(by_name: Mapping[str, Sequence[str]]) -> list[Turn]:
    """Pictures as turns, one picture of each name at a time.

    Names with fewer pictures show theirs again, so that each is shown equally often: a name that is shown less is also
    answered less.
    """
    most = max(map(len, by_name.values()), default=0)
    return [Turn(row[i % len(row)], name, name) for i in range(most) for name, row in by_name.items()]


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
    named = [(picture, name) for name, own in pictures.by_name.items() for picture in own]
    kept = [place for place, (picture, _) in enumerate(named) if picture != without]
    order = rices(rows_of_kind(query, kind)[0], pictures.rows(kind)[kept, 0], count)
    chosen = [named[kept[place]] for place in order]
    return [Turn(picture, name, name) for picture, name in chosen]


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


def shown_pictures(learner: "Learner") -> Shown:
    """How much the prompts of a learner show.

    All pictures or, of each name, as many as fit the context. Where these are fewer than `FEWEST`, each query has a
    support of its own instead, the `RETRIEVED` taught pictures most similar to it, if the model has image features to
    compare. Raises `InputError` where it has none and not one picture of every name fits.
    """
    return learner.computed.once(learner.pictures.key, "shown", lambda: _shown(learner))


def retrieves(learner: "Learner") -> bool:
    """Whether each query has a support of its own."""
    return shown_pictures(learner).retrieved > 0


def shown_support(learner: "Learner") -> list[Turn]:
    """The support that all queries have and, where each has one of its own, the one that precedes no query."""
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
    most = max(map(len, pictures.by_name.values()), default=0)
    try:
        fitting = largest_fitting(most, lambda n: _check(learner, select_support(pictures, n, learner.select)))
    except InputError:
        if not pictures.kinds:
            raise
        fitting = 0
    if fitting == most:
        return Shown(fitting)
    if fitting >= FEWEST or not pictures.kinds:
        _warn(learner, f"Only {fitting} pictures per name are shown, the most representative ones: no more fit")
        return Shown(fitting)
    turns = [Turn(item, name, name) for name, own in pictures.by_name.items() for item in own]
    turns.sort(key=lambda turn: -_length(pictures, turn))
    retrieved = largest_fitting(min(RETRIEVED, len(turns)), lambda n: _check(learner, turns[:n]))
    _warn(
        learner,
        f"The language model is shown the {retrieved} taught pictures most similar to each query, and chooses among "
        f"their names: no more than {fitting} of each of {len(pictures.names):,} names fit",
    )
    return Shown(fitting, retrieved, among_shown=True)


def _length(pictures: TaughtPictures, turn: Turn) -> int:
    """About how many tokens a turn has: those of its picture where they are known, and the letters of its name."""
    features = pictures.features.get(turn.item)
    return len(turn.answer) + (0 if features is None else len(features.image_tokens.ids))


def _warn(learner: "Learner", what: str) -> None:
    log.warning("%s the model's context of %s tokens.", what, learner.model.card.context)


def _check(learner: "Learner", turns: Sequence[Turn]) -> None:
    """Raise `InputError` if a support with a question and the longest name does not fit the context."""
    longest = max(learner.pictures.by_name, key=len)
    learner.model.prompt(build_messages(turns, learner.scaffold, turns[0], longest))
