"""Teaching and asking in Python."""

import pytest
from PIL import Image

import linkcontext
from linkcontext.app.session import Session
from linkcontext.data.images import sha256
from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.source import open_data
from linkcontext.teach.answer import Answer, answer_line
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack_writing import write_pack


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
    monkeypatch.setattr(type(model.model), "score", lambda *_: pytest.fail("the model was asked"))
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
    with pytest.raises(
        InputError, match=r"copy.tif: has the name 'a' \(in .*0000.png\) and the name 'b'. Give it one name"
    ):
        model.teach({"a": [paths[0][0]], "b": [tmp_path / "copy.tif"]})
    model.teach({"a": [paths[0][0], tmp_path / "copy.tif"]})
    assert model.pictures.by_name == {"a": [sha256(paths[0][0])]}


def test_names_with_composed_letters_are_one(nano, paths):
    model = linkcontext.load(str(nano))
    model.teach({"caf\u00e9": paths[0][:1]})
    model.teach({"cafe\u0301": paths[0][1:2]})
    assert {name: len(items) for name, items in model.pictures.by_name.items()} == {"caf\u00e9": 2}


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
    with pytest.raises(InputError, match="teach takes names with their pictures"):
        model.teach({})
    with pytest.raises(InputError, match=r"a picture in the place of a name\. Write \{'a': "):
        model.teach({str(paths[0][0]): "a"})


def test_one_name_is_taught_with_its_pictures(nano, paths):
    model = linkcontext.load(str(nano))
    model.teach("dax", paths[0][:2])
    model.teach("wug", str(paths[1][0]))
    assert {name: len(own) for name, own in model.pictures.by_name.items()} == {"dax": 2, "wug": 1}


def test_the_old_name_of_the_similarity_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"Answer\.fit is now Answer\.similarity"):
        assert Answer("a", {"a": 1.0}, 0.5).fit == 0.5


def test_a_loaded_model_is_taken_with_a_warning_as_before(nano, paths, tmp_path):
    model = load_model(str(nano))
    with pytest.warns(DeprecationWarning, match=r"LocalModel\(model\)"):
        learner = Learner(model)
    learner.teach({"a": paths[0][:2], "b": paths[1][:2]})
    with pytest.warns(DeprecationWarning, match=r"LocalModel\(model\)"):
        again = write_pack(learner, tmp_path / "two.pack").learner(model)
    assert again.ask(paths[0][5]).probabilities == pytest.approx(learner.ask(paths[0][5]).probabilities, abs=1e-5)
    with pytest.warns(DeprecationWarning, match=r"LocalModel\(model\)"):
        session = Session(model, tmp_path)
    session.choose(paths[0][:1])
    assert session.teach("a")[0] == "a: 1 picture."
