"""The public surface: its names, and its examples."""

import doctest
import inspect
import json

import pytest

import linkcontext
from linkcontext import api
from linkcontext.errors import InputError
from linkcontext.evaluation.compare import compare

PUBLIC = {
    "Answer",
    "Learner",
    "Pack",
    "__version__",
    "compare",
    "draw_episodes",
    "evaluate",
    "load",
    "open_data",
    "push_to_hub",
}


def test_the_public_names_are_these_and_documented():
    assert set(linkcontext.__all__) == PUBLIC
    assert set(dir(linkcontext)) >= PUBLIC
    for name in PUBLIC - {"__version__"}:
        documented = getattr(linkcontext, name)
        assert inspect.getdoc(documented), name
        for parameter in inspect.signature(documented).parameters.values():
            assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name} has no type"
    assert linkcontext.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        linkcontext.lod  # noqa: B018 - the attribute is asked for


@pytest.mark.parametrize(
    "documented",
    [linkcontext, api.load, api.draw_episodes, api.evaluate, compare],
    ids=["linkcontext", "load", "draw_episodes", "evaluate", "compare"],
)
def test_the_examples_run(documented, tmp_path):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    (examples,) = finder.find(documented, globs={"tmp": tmp_path, "linkcontext": linkcontext})
    assert examples.examples
    assert runner.run(examples).failed == 0


def test_a_loaded_learner_is_evaluated_as_its_name_is(nano, pictures, tmp_path):
    options = {"data": pictures, "shots": (1,), "episodes": 2}
    by_name = linkcontext.evaluate(nano, out=tmp_path / "name", device="cpu", **options)
    loaded = linkcontext.evaluate(linkcontext.load(nano, device="cpu"), out=tmp_path / "loaded", **options)
    assert by_name.rows[0]["accuracy"] == loaded.rows[0]["accuracy"]
    assert (tmp_path / "loaded" / "report.html") == loaded.report
    assert loaded.report.is_file()


def test_a_loaded_model_is_not_loaded_otherwise_and_keeps_its_prompting(nano, pictures, tmp_path):
    learner = linkcontext.load(nano, device="cpu", max_new_tokens=5)
    with pytest.raises(InputError, match=r"dtype: the model .* is already loaded"):
        linkcontext.evaluate(learner, pictures, dtype="float16", out=tmp_path / "run")
    linkcontext.evaluate(learner, pictures, shots=(1,), episodes=1, out=tmp_path / "run")
    model = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["model"]
    assert (model["model"], model["max_new_tokens"]) == (str(nano), 5)


def test_paths_and_texts_name_the_same_pictures(nano, pictures):
    episodes = linkcontext.draw_episodes(linkcontext.open_data(pictures), episodes=2)
    assert episodes == linkcontext.draw_episodes(str(pictures), episodes=2)
    folder = sorted(path for path in pictures.iterdir() if path.is_dir())[0]
    learner = linkcontext.load(nano, device="cpu")
    learner.teach({"one": str(sorted(folder.iterdir())[0])})  # a single picture, not a list of letters
    assert [len(ids) for ids in learner.pictures.by_name.values()] == [1]


def test_an_option_that_is_none_is_a_sentence(nano, tmp_path):
    with pytest.raises(InputError, match="episode: no such option"):
        linkcontext.draw_episodes("digits", episode=2)
    with pytest.raises(InputError, match="engine: no such option"):  # of an evaluation, where nothing is evaluated
        linkcontext.draw_episodes("digits", engine="tree")
    with pytest.raises(InputError, match="shotz: no such option"):
        linkcontext.evaluate(nano, shotz=(1,), out=tmp_path / "run")


def test_what_a_learner_saves_a_pack_opens(nano, pictures, tmp_path):
    learner = linkcontext.load(nano, device="cpu")
    folders = sorted(folder for folder in pictures.iterdir() if folder.is_dir())[:2]
    learner.teach({folder.name: sorted(folder.iterdir())[:2] for folder in folders})
    learner.save(tmp_path / "zoo.pack")
    again = linkcontext.Pack.open(tmp_path / "zoo.pack").learner(learner.model)
    query = sorted(folders[0].iterdir())[3]
    assert again.ask(query).probabilities == pytest.approx(learner.ask(query).probabilities, abs=1e-5)
