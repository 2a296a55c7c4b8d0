"""What else users should know after a lesson."""

from collections.abc import Iterator, Mapping, Sequence

from linkcontext.errors import counted
from linkcontext.evaluation.text import join_words
from linkcontext.teach.learner import Learner
from linkcontext.teach.names import similar_names
from linkcontext.teach.support import retrieves, shown_pictures


def count_pictures(learner: Learner, name: str) -> str:
    """The number of pictures of a name, in words."""
    return counted(len(learner.pictures.by_name[name]), "picture")


def lesson_notes(learner: Learner, before: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Sentences about a lesson; `before` are the pictures by name before it."""
    yield from name_notes(learner, before)
    shown, taught = len({turn.item for turn in learner.choose_support()}), len(learner.pictures.ids)
    if retrieves(learner):
        shown = shown_pictures(learner).retrieved
        yield f"Of {taught} pictures the language model is shown the {shown} that are most similar to each query."
    elif shown < taught:
        yield f"{shown} of {taught} pictures fit into the context: the most representative ones."


def name_notes(learner: Learner, before: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Sentences about names that a lesson has changed, and about new ones that may be the same thing as others."""
    yield from _renamed(learner, before)
    yield from _look_alikes(learner.pictures.names, before)


def _renamed(learner: Learner, before: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Sentences about pictures that have another name now, and about names that have none left."""
    pictures = learner.pictures
    for name, own in before.items():
        moved = [picture for picture in own if pictures.name_of(picture) not in (name, None)]
        now = join_words(sorted({f'"{pictures.name_of(picture)}"' for picture in moved}))
        if name not in pictures.by_name:
            yield f"{name} has no picture left and is forgotten."
        elif moved:
            were = "was" if len(moved) == 1 else "were"
            yield f'{counted(len(moved), "picture")} {were} called "{name}" before, and {now} from now on.'


def _look_alikes(names: Sequence[str], before: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Sentences about new names that could mean the same as others."""
    for other, name in similar_names(names):
        if not {name, other} <= before.keys():
            yield f"{other} and {name} are two names. If they are one thing, give their pictures one name."
