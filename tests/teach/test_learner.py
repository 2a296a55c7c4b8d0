"""Teaching and asking in Python."""

import pytest

import linkcontext
from linkcontext.errors import InputError
from linkcontext.source import open_data


@pytest.fixture(scope="module")
def things():
    return open_data("world:3").by_class()


@pytest.fixture(scope="module")
def paths(things):
    root = open_data("world:3").root
    return [[root / item.path for item in items] for items in things.values()]


def test_the_bundled_model_learns_what_it_is_shown(paths):
    right = asked = 0
    for first, second in ((0, 7), (13, 22), (30, 41)):
        model = linkcontext.load("mini")
        model.teach({"cactihog": paths[first][:4], "plimbo": paths[second][:4]})
        for name, pictures in (("cactihog", paths[first]), ("plimbo", paths[second])):
            for picture in pictures[10:15]:
                answer = model.ask(picture)
                assert sum(answer.probabilities.values()) == pytest.approx(1)
                assert answer.probabilities[answer.name] == max(answer.probabilities.values())
                right += answer.name == name
                asked += 1
    assert right / asked > 0.75  # chance is a half, and 30 fair coins get there once in 200


def test_names_are_followed_not_known(paths):
    """The same pictures under exchanged names get exchanged answers."""
    said = []
    for names in (("tavork", "lumbi"), ("lumbi", "tavork")):
        model = linkcontext.load("mini")
        model.teach({names[0]: paths[0][:4], names[1]: paths[7][:4]})
        said.append([model.ask(picture).name for picture in paths[0][10:16]])
    changed = sum(a != b for a, b in zip(*said, strict=True))
    assert changed >= 4


def test_a_picture_is_never_its_own_example(nano, paths):
    model = linkcontext.load(str(nano))
    model.teach({"a": paths[0][:2], "b": paths[1][:2]})
    with_itself = model.ask(paths[0][0])
    alone = linkcontext.load(str(nano))
    alone.teach({"a": paths[0][1:2], "b": paths[1][:2]})
    assert alone.ask(paths[0][0]).probabilities == pytest.approx(with_itself.probabilities, abs=1e-4)


def test_bad_lessons_are_sentences(nano, paths, tmp_path):
    model = linkcontext.load(str(nano))
    with pytest.raises(InputError, match="at least two names"):
        model.ask(paths[0][0])
    with pytest.raises(InputError, match="at least one picture"):
        model.teach({"a": []})
    with pytest.raises(InputError, match="no such picture"):
        model.teach({"a": [tmp_path / "nowhere.png"]})
