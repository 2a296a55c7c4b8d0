"""The support of a prompt: which taught pictures are shown before a query, and in which order."""

import logging
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


def largest_fitting(pictures: TaughtPictures, select: Select, check: Callable[[list[Turn]], object]) -> int:
    """The largest number of pictures per name whose support passes `check`, which raises `InputError` otherwise.

    Raises the error for one picture per name if not even that fits.
    """
    most = max(map(len, pictures.by_name.values()), default=0)
    for count in range(most, 0, -1):
        try:
            check(select_support(pictures, count, select))
        except InputError:
            if count == 1:
                raise
            continue
        return count
    return 0


def fitting_shots(learner: "Learner") -> int:
    """How many pictures per name fit the context and leave room for a question and its answer."""
    by_name, model = learner.pictures.by_name, learner.model
    longest = max(by_name, key=len, default="")
    count = largest_fitting(
        learner.pictures,
        learner.select,
        lambda turns: model.prompt(build_messages(turns, learner.scaffold, turns[0], longest)),
    )
    if count < max(map(len, by_name.values()), default=0):
        log.warning(
            "Only %d pictures per name are shown, the most representative ones: no more fit the model's context "
            "of %s tokens.",
            count,
            model.card.context,
        )
    return count
