"""Ask a learner about several pictures at once: what they share is computed once, and their features many at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from linkcontext.data.images import Upload
from linkcontext.episodes.scaffold import build_messages
from linkcontext.errors import InputError
from linkcontext.inference.vision import BATCH, chunks
from linkcontext.progress import progress
from linkcontext.records import Turn
from linkcontext.teach.answer import Answer, certain
from linkcontext.teach.given_pictures import Source, small_picture
from linkcontext.teach.named_reply import named_replies
from linkcontext.teach.naming import probabilities_of_names
from linkcontext.teach.rejection import nearest_pictures
from linkcontext.teach.support import Support, retrieves
from linkcontext.teach.vectoriser import query_vectors

if TYPE_CHECKING:
    from linkcontext.teach.learner import Learner


def answers(learner: "Learner", sources: Sequence[Source]) -> list[Answer]:
    """The answer about each picture, in order; see `Learner.ask`."""
    with _queries(learner, sources, "") as queries:
        pictures = learner.pictures
        new = [query for query in queries if pictures.name_of(query.item) is None]
        if new and len(pictures.names) < 2:
            raise InputError("teach at least two names before asking: with one there is nothing to choose.")
        answered = {}
        with progress("Asking", len(new)) as advance:
            for chunk in chunks([*{query.item: query for query in new}.values()], BATCH):
                for query, answer in zip(chunk, _named(learner, chunk), strict=True):
                    answered[query.item] = answer
                    advance()
        return [
            replace(answered.get(query.item) or _taught(learner, query), picture=_kept(source))
            for query, source in zip(queries, sources, strict=True)
        ]


def replies(
    learner: "Learner",
    sources: Sequence[Source],
    question: str,
    new_tokens: int | None,
    history: Sequence[Turn],
    with_support: bool,
) -> list[str]:
    """The reply about each picture, in order; see `Learner.say`."""
    with _queries(learner, sources, question) as queries:
        texts = []
        for group, support in _by_support(learner, queries, with_support):
            prompts = [build_messages([*support.turns, *history], learner.scaffold, query) for query in group]
            length = new_tokens or learner.model.card.prompting.reply_tokens
            texts += learner.model.generate(prompts, length, support.prefix)
        return texts


def _by_support(
    learner: "Learner", queries: Sequence[Turn], with_support: bool
) -> Iterator[tuple[Sequence[Turn], Support]]:
    """The queries in order, each group with the support that precedes it."""
    if not with_support:
        groups = [(chunk, Support([])) for chunk in chunks(queries, BATCH)]
    elif retrieves(learner):
        groups = [([query], learner.support_for(query)) for query in queries]
    else:
        groups = [(chunk, learner.support_for(chunk[0])) for chunk in chunks(queries, BATCH)]
    yield from groups


def _kept(source: Source) -> Source:
    """What an answer keeps of its picture: the path, or a thumbnail of a picture in memory."""
    return Upload(source.name, small_picture(source)) if isinstance(source, Upload) else source


def _taught(learner: "Learner", query: Turn) -> Answer:
    """The answer about a picture that was taught; the model is not run."""
    pictures = learner.pictures
    name = pictures.name_of(query.item)
    assert name is not None
    probabilities = certain(name, pictures.names)
    if not pictures.kinds:
        return Answer(name, probabilities, taught=True)
    (vectors,) = query_vectors(learner, [query.item])
    return Answer(name, probabilities, *nearest_pictures(pictures, vectors), taught=True)


def _named(learner: "Learner", queries: Sequence[Turn]) -> list[Answer]:
    """The answers about pictures that were not taught."""
    pictures, model = learner.pictures, learner.model
    vectors = query_vectors(learner, [query.item for query in queries]) if pictures.kinds else []
    if model.lacks("log-probabilities") and "lm" in learner.choose_head().parts:
        rows = []
        for group, support in _by_support(learner, queries, with_support=True):
            rows += named_replies(model, learner.scaffold, group, support, pictures.names)
    else:
        probabilities = probabilities_of_names(learner, queries, vectors)
        rows = [dict(zip(pictures.names, row, strict=True)) for row in probabilities]
    names = [max(row, key=row.__getitem__) for row in rows]
    if not pictures.kinds:
        return [Answer(name, row) for name, row in zip(names, rows, strict=True)]
    threshold, named = learner.estimate_rejection_threshold(), []
    for name, row, own in zip(names, rows, vectors, strict=True):
        similarity, neighbours = nearest_pictures(pictures, own)
        accepted = threshold is None or threshold.accepts(similarity)
        named.append(Answer(name if accepted else None, row, similarity, neighbours))
    return named


@contextmanager
def _queries(learner: "Learner", sources: Sequence[Source], question: str) -> Iterator[list[Turn]]:
    """A query about each picture. Pictures in memory that were not taught are released at the end."""
    queries = [learner.query(source, question) for source in sources]
    try:
        yield queries
    finally:
        for query, source in zip(queries, sources, strict=True):
            if isinstance(source, Upload) and query.item not in learner.pictures.pixel_hashes:
                learner.model.sources.pop(query.item, None)
