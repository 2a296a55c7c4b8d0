"""Many pictures at once, and pictures without a file: the answers are those about single files."""

import gc
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import linkcontext
from linkcontext.data.images import Upload, open_image
from linkcontext.errors import InputError
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.given_pictures import picture_source
from linkcontext.teach.learner import Learner


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.path(item.id) for item in items] for items in dataset.by_class().values()][::7]


@pytest.fixture(scope="module")
def loaded(nano):
    return linkcontext.load(nano, device="cpu").model.loaded


def taught(loaded, paths, convert=lambda path: path, engine="auto", **options):
    learner = Learner(LocalModel(loaded, requested=engine), **options)
    assert learner.model.choice.requested == engine
    learner.teach({name: [convert(path) for path in own[:3]] for name, own in zip("abc", paths, strict=False)})
    return learner


@pytest.mark.parametrize("head", ["auto", "lm", "knn", "mix"])
def test_many_answers_are_those_of_one_by_one(loaded, paths, head):
    learner = taught(loaded, paths, head=head)
    queries = [path for own in paths[:3] for path in own[4:8]] + [paths[0][0], paths[0][4]]  # taught, and asked twice
    many, single = learner.ask(queries), [learner.ask(path) for path in queries]
    assert [answer.picture for answer in many] == queries
    for one, alone in zip(many, single, strict=True):
        assert (one.name, one.taught) == (alone.name, alone.taught)
        assert one.probabilities == pytest.approx(alone.probabilities, abs=1e-4)
        assert one.similarity == pytest.approx(alone.similarity, abs=1e-5)
    assert [answer.taught for answer in many].count(True) == 1
    assert learner.ask([]) == []


@pytest.mark.parametrize(
    ("engine", "options"), [("reference", {}), ("auto", {"select": "rices", "shots_per_class": 2})]
)
def test_many_answers_where_nothing_is_shared(loaded, paths, engine, options):
    learner = taught(loaded, paths, engine=engine, head="lm", **options)
    queries = paths[0][4:7] + paths[1][4:6]
    for one, path in zip(learner.ask(queries), queries, strict=True):
        assert one.probabilities == pytest.approx(learner.ask(path).probabilities, abs=1e-4)
    assert learner.say(queries, "What is it?") == [learner.say(path, "What is it?") for path in queries]


def test_the_support_is_run_once_for_many(loaded, paths, monkeypatch):
    learner = taught(loaded, paths, head="lm")
    learner.estimate_name_bias()
    calls, score = [], LocalModel.score
    monkeypatch.setattr(LocalModel, "score", lambda *given: calls.append(len(given[1])) or score(*given))
    learner.ask(paths[0][4:8] + paths[1][4:8])
    assert calls == [8]  # queries in one tree


def test_a_reply_about_each(loaded, paths):
    learner = taught(loaded, paths)
    queries = [paths[0][5], paths[2][6]]
    assert learner.say(queries, "How many?", 5) == [learner.say(path, "How many?", 5) for path in queries]
    assert learner.say(queries, with_support=False) == [learner.say(path, with_support=False) for path in queries]


def pillow(path):
    with Image.open(path) as image:
        return image.copy()


def kinds(path):
    pixels = np.asarray(open_image(path))
    return [
        path.read_bytes(),
        pillow(path),
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255,
    ]


def test_pictures_without_a_file_are_taught_and_asked_as_files_are(loaded, paths):
    files = taught(loaded, paths)
    expected = files.ask(paths[1][5])
    for number in range(4):
        learner = taught(loaded, paths, lambda path, number=number: kinds(path)[number])
        answer = learner.ask(kinds(paths[1][5])[number])
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert isinstance(answer.picture, Upload)
        assert len(answer.picture.content) < 20_000
        assert learner.ask(paths[0][0]).taught  # a file with the pixels of a picture that was taught without one
        assert files.ask(kinds(paths[2][0])[number]).name == "c"


def test_asked_pictures_are_not_kept(loaded, paths):
    learner = taught(loaded, paths)
    before = set(learner.model.sources)
    learner.ask([pillow(path) for path in paths[0][4:8]])
    learner.say(pillow(paths[0][9]), "What?", 2)
    gc.collect()
    assert set(learner.model.sources) == before


def test_a_folder_is_taught_and_asked(loaded, paths, tmp_path):
    for name, own in zip(("lime", "red pepper"), paths, strict=False):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for path in own[:3]:
            shutil.copy(path, tmp_path / "photos" / name)
    (tmp_path / "new").mkdir()
    for number, own in enumerate(paths[:2]):
        shutil.copy(own[5], tmp_path / "new" / f"{number}.png")
    whole, parts, data = (Learner(LocalModel(loaded)) for _ in range(3))
    whole.teach(str(tmp_path / "photos"))
    parts.teach({"lime": tmp_path / "photos" / "lime", "red pepper": str(tmp_path / "photos" / "red pepper")})
    data.teach(linkcontext.open_data(tmp_path / "photos"))
    assert whole.pictures.by_name == parts.pictures.by_name == data.pictures.by_name
    answers = whole.ask([tmp_path / "new"])
    assert [answer.picture.name for answer in answers] == ["0.png", "1.png"]
    alone = whole.ask(tmp_path / "new" / "1.png")
    assert (answers[1].name, answers[1].nearest) == (alone.name, alone.nearest)
    assert answers[1].probabilities == pytest.approx(alone.probabilities, abs=1e-4)  # sums have another order


def test_mistakes_teach_nothing(loaded, paths):
    learner = taught(loaded, paths)
    before = learner.pictures.copy()
    for named, sentence in (
        (["a.png"], "teach takes names with their pictures"),
        ({1: paths[0][0]}, "a name must be a string. Write '1'"),
        ({"d": "https://example.org/d.png"}, "never fetched"),
        ({"d": [paths[0][5], None]}, "picture 2 of 'd' is of the type NoneType"),
        ({"d": b"not a picture"}, "picture 1 of 'd': not a picture"),
        (
            {"d": [pillow(paths[0][5])], "e": [paths[0][5]]},
            r"has the name 'd' \(in picture 1 of 'd'\) and the name 'e'",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            learner.teach(named)
        assert learner.pictures.by_name == before.by_name
    with pytest.raises(InputError, match=r"picture 2 is of the type int"):
        learner.ask([paths[0][5], 5])


def test_a_pack_of_pictures_without_files_is_asked_by_its_model_alone(loaded, paths, tmp_path):
    learner = taught(loaded, paths, pillow)
    learner.teach({"c": paths[2][3]})  # a file among them
    learner.save(tmp_path / "zoo.pack")
    pack = linkcontext.Pack.open(tmp_path / "zoo.pack")
    assert [path.resolve() for path in pack.paths.values()] == [paths[2][3].resolve()]
    again = pack.learner(LocalModel(loaded))
    query = paths[1][6]
    assert again.ask(query).probabilities == pytest.approx(learner.ask(query).probabilities, abs=1e-5)
    again.save(tmp_path / "again.pack")  # it is not made to have files
    assert linkcontext.Pack.open(tmp_path / "again.pack").header.paths == pack.header.paths
    with pytest.raises(InputError, match=r"taught to another model.* 9 of 10 were taught without a file. Teach them"):
        pack.learner(linkcontext.load("mini-base").model)
    again.teach({"c": pillow(paths[2][0])})  # given again
    assert isinstance(again.pictures.paths[again.pictures.id_of(picture_source(paths[2][0]))], Upload)


def test_a_pack_without_files_needs_features(loaded, paths, tmp_path):
    learner = taught(loaded, paths, pillow, engine="reference")
    with pytest.raises(InputError, match=r"9 pictures were taught without a file, and a pack holds no pictures"):
        learner.save(tmp_path / "zoo.pack")
    assert not (tmp_path / "zoo.pack").exists()
