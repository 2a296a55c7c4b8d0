"""Teaching and asking in Python."""

import pytest
from PIL import Image

import linkcontext
from linkcontext.data.images import sha256
from linkcontext.errors import InputError
from linkcontext.models.loading import load
from linkcontext.records import Turn
from linkcontext.source import open_data
from linkcontext.teach.answer import answer_line
from linkcontext.teach.calibration import name_log_probabilities
from linkcontext.teach.learner import Learner
from linkcontext.teach.recogniser import Recogniser
from linkcontext.teach.support import Support


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


def test_a_picture_that_was_taught_answers_its_own_name(nano, paths, tmp_path, monkeypatch):
    model = linkcontext.load(str(nano))
    model.teach({"a": paths[0][:1], "b": paths[1][:1]})  # one picture a name
    Image.open(paths[1][0]).save(tmp_path / "again.bmp")  # the same pixels in other bytes
    monkeypatch.setattr(type(model.local_model), "score", lambda *_: pytest.fail("the model was asked"))
    for picture, name in ((paths[0][0], "a"), (paths[1][0], "b"), (tmp_path / "again.bmp", "b")):
        answer = model.ask(picture)
        assert (answer.name, answer.taught) == (name, True)
        assert answer.probabilities == {other: float(other == name) for other in "ab"}
        assert (answer.nearest[0].name, answer.nearest[0].similarity) == (name, pytest.approx(1))
        assert answer_line(answer) == f"{name} (this picture was taught)"
    model.teach({"a": [tmp_path / "again.bmp"]})  # a correction, by a copy
    assert model.ask(paths[1][0]).name == "a"
    assert model.pictures.by_name == {"a": [sha256(paths[0][0]), sha256(paths[1][0])]}
    assert model.pictures.paths[sha256(paths[1][0])] == paths[1][0]  # where its bytes are
    assert model.ask(paths[0][0]).name == "a"  # with one name left there is still something to say
    model.teach({"b": [paths[1][0]]})
    assert model.ask(tmp_path / "again.bmp").name == "b"


def test_a_picture_under_two_names_is_found_by_its_pixels(nano, paths, tmp_path):
    model = linkcontext.load(str(nano))
    Image.open(paths[0][0]).save(tmp_path / "copy.tif")
    with pytest.raises(InputError, match=r"copy.tif: is shown as 'a' \(in .*0000.png\) and as 'b'. Name it once"):
        model.teach({"a": [paths[0][0]], "b": [tmp_path / "copy.tif"]})
    model.teach({"a": [paths[0][0], tmp_path / "copy.tif"]})
    assert model.pictures.by_name == {"a": [sha256(paths[0][0])]}


def test_names_with_composed_letters_are_one(nano, paths):
    model = linkcontext.load(str(nano))
    model.teach({"caf\u00e9": paths[0][:1]})
    model.teach({"cafe\u0301": paths[0][1:2]})
    assert {name: len(items) for name, items in model.pictures.by_name.items()} == {"caf\u00e9": 2}


@pytest.mark.parametrize("select", ["medoid", "rices"])
def test_probabilities_are_calibrated_whatever_is_shown(nano, paths, select):
    """By oracle: the log-probabilities of the names, less their mean over pictures that are shown."""
    model = Learner(load(str(nano)), shots_per_class=2, select=select)
    model.teach({"a": paths[0][:3], "a longer name": paths[1][:3]})
    query, picture = model.query(paths[2][0]), paths[2][0]
    turns = model.choose_support()
    if select == "rices":
        own = [model._similar_support(turn.item, without_itself=True) for turn in turns]
        assert all(turn.item not in {t.item for t in support} for turn, support in zip(turns, own, strict=True))
        support = model._similar_support(query.item)
    else:
        own, support = [turns] * len(turns), turns

    def scores(turn, support):
        names = model.pictures.names
        return name_log_probabilities(model.local_model, model.scaffold, [turn], Support(support), names)[0]

    mean = sum(scores(Turn(t.item, "", ""), s) for t, s in zip(turns, own, strict=True)) / len(turns)
    expected = (scores(query, support) - mean).softmax(0)
    assert any(abs(value) > 0.1 for value in model.estimate_name_bias())
    assert list(model.ask(picture).probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_calibration_follows_every_picture_that_rices_can_show(nano, paths):
    """By oracle: a learner that was asked in between answers as one that was not."""
    lessons = {"a": paths[0][:3], "a longer name": paths[1][:3]}, {"a": paths[0][3:8]}
    model, fresh = (Learner(load(str(nano)), shots_per_class=1, select="rices") for _ in range(2))
    model.teach(lessons[0])
    assert model.estimate_name_bias()
    for lesson in lessons[1:]:
        model.teach(lesson)
    for lesson in lessons:
        fresh.teach(lesson)
    assert model.estimate_name_bias() == pytest.approx(fresh.estimate_name_bias(), abs=1e-4)


def test_a_name_is_taken_away_in_whatever_spelling(nano, paths):
    model = linkcontext.load(str(nano))
    model.teach({"caf\u00e9 noir": paths[0][:1], "b": paths[1][:1]})
    model.rename(" cafe\u0301  noir", "c")
    model.forget("c ")
    assert list(model.pictures.by_name) == ["b"]


def test_bad_lessons_are_sentences(nano, paths, tmp_path):
    model = linkcontext.load(str(nano))
    with pytest.raises(InputError, match="at least two names"):
        model.ask(paths[0][0])
    with pytest.raises(InputError, match="Give at least one picture"):
        model.teach({"a": []})
    with pytest.raises(InputError, match="no such picture"):
        model.teach({"a": [tmp_path / "nowhere.png"]})


def test_a_taught_picture_is_recognised_in_a_conversation(nano, paths, tmp_path):
    model = linkcontext.load(str(nano))
    model.teach({"a": paths[0][:1], "b": paths[1][:1]})
    Image.open(paths[1][0]).save(tmp_path / "again.bmp")
    recogniser = Recogniser.of(model)
    sources = {"x": ("x", tmp_path / "again.bmp"), "new": ("new", paths[2][0])}

    def name(text, *items, role="user"):
        pictures = [{"type": "image", "image": item} for item in items]
        return recogniser.name([{"role": role, "content": [*pictures, {"type": "text", "text": text}]}], sources)

    for text in ("What is this?", "what's this", "", "Name this."):
        assert name(text, "x") == "b"
        assert name(text, "new") is None
    for text, items in (("What colour is it?", ["x"]), ("What is this?", []), ("What is this?", ["x", "new"])):
        assert name(text, *items) is None
    assert name("What is this?", "x", role="assistant") is None
    assert recogniser.name([], {}) is None
