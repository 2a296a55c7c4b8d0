"""Changes of a support, by hand: two classes, two pictures of each, in rounds."""

import pytest

from linkcontext.errors import InputError
from linkcontext.evaluation.grounding.changes import add_contradiction, add_irrelevant, move_relevant
from linkcontext.evaluation.grounding.probe import DrawnEpisodes
from linkcontext.records import Candidate, Episode, Item, Turn

CANDIDATES = (Candidate("cat", "dax", "cat"), Candidate("dog", "fep", "dog"))
SUPPORT = (Turn("c1", "cat", "dax"), Turn("d1", "dog", "fep"), Turn("d2", "dog", "fep"), Turn("c2", "cat", "dax"))
QUERIES = (Turn("d3", "dog", "fep"), Turn("c3", "cat", "dax"))
EPISODE = Episode("shown/e00007", "link", "pseudo", 2, (2,), CANDIDATES, SUPPORT, QUERIES)


def picture(name, class_id, pixels=""):
    return Item(name, name, class_id, class_id, name, pixels=pixels)


def drawn(*items):
    return DrawnEpisodes([EPISODE], lambda **options: [], items)


def test_an_irrelevant_example_is_of_another_class_and_has_a_name_of_its_own():
    # The second owl has the pixels of a cat, so that it would not be irrelevant.
    pictures = drawn(picture("c1", "cat", "same"), picture("o1", "owl"), picture("o2", "owl", "same"))
    for place, at, rest in (("first", 0, slice(1, None)), ("last", -1, slice(None, -1))):
        (episode,) = add_irrelevant(place)(pictures)
        assert (episode.ways, episode.shots_per_class, len(episode.support)) == (1, (5,), 5)
        assert episode.shown(5) == episode.support
        assert episode.support[rest] == SUPPORT
        assert (episode.support[at].item, episode.support[at].class_id) == ("o1", "owl")
        assert episode.support[at].answer not in ("dax", "fep", "owl", "cat")
        assert (episode.candidates, episode.queries) == (CANDIDATES, QUERIES)
    with pytest.raises(InputError, match="besides the 2"):
        list(add_irrelevant("last")(drawn(picture("c1", "cat"), picture("d1", "dog"))))


def test_the_last_turn_of_the_class_of_the_query_is_moved():
    first, last = ([*move_relevant(place)(drawn())] for place in ("first", "last"))
    assert [e.id for e in first] == ["shown/e00007-q0-k02", "shown/e00007-q1-k02"]
    assert [e.queries for e in first] == [QUERIES[:1], QUERIES[1:]]
    assert ["".join(turn.item for turn in e.support) for e in first] == ["d2c1d1c2", "c2c1d1d2"]
    assert ["".join(turn.item for turn in e.support) for e in last] == ["c1d1c2d2", "c1d1d2c2"]
    assert all(e.support[-1].class_id != e.queries[0].class_id for e in first)


def test_a_contradiction_repeats_a_picture_under_the_other_name():
    for place, at, rest in (("first", 0, slice(1, None)), ("last", -1, slice(None, -1))):
        (episode,) = add_contradiction(place)(drawn())
        turn = episode.support[at]
        (own,) = {t.class_id for t in SUPPORT if t.item == turn.item}
        assert (turn.class_id, turn.answer) == {"cat": ("dog", "fep"), "dog": ("cat", "dax")}[own]
        assert episode.support[rest] == SUPPORT
        assert (episode.ways, episode.shots_per_class) == (1, (5,))
