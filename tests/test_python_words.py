"""Errors in the words of Python, the signatures that editors show, and thirty mistakes' share of Python."""

import dataclasses
import inspect
import typing

import numpy as np
import pytest

import linkcontext
from linkcontext import api
from linkcontext.config import EpisodeConfig, EvalConfig, ModelConfig
from linkcontext.errors import InputError
from linkcontext.models.prompting import Prompting
from linkcontext.python_words import in_python_words, without_flags
from linkcontext.teach.answer import Answer
from linkcontext.teach.learner import Learner


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            "--choose-from 2: fewer than the 4 that --shots-per-class shows.",
            "choose_from=2: fewer than the 4 that shots shows.",
        ),
        ("--model mimi: neither a folder nor on the Hub.", "model=mimi: neither a folder nor on the Hub."),
        (
            "First run `linkcontext data X --layout seed`, and give --data DIR.",
            "First run `linkcontext data X --layout seed`, and give data DIR.",
        ),
        ("--select rices needs image features.", "select rices needs image features."),
        ("a -- b, x--y and -v stay", "a -- b, x--y and -v stay"),
    ],
)
def test_flags_become_keyword_arguments(sentence, words):
    assert without_flags(sentence, ("shots", "choose_from", "model", "data", "select")) == words


def test_an_error_keeps_its_class_and_its_place():
    class Special(InputError):
        pass

    @in_python_words
    def fail(shots_per_class: int = 0) -> None:
        raise Special(f"--shots-per-class {shots_per_class}: too few.")

    with pytest.raises(Special, match=r"^shots_per_class=3: too few\.$"):
        fail(shots_per_class=3)
    assert str(inspect.signature(fail)) == "(shots_per_class: int = 0) -> None"


def of(config):
    return {field.name: field for field in dataclasses.fields(config)}


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (api.load, of(ModelConfig)),
        (api.draw_episodes, of(EpisodeConfig)),
        (api.evaluate, of(EvalConfig) | of(ModelConfig) | of(EpisodeConfig) | {"benchmark": None}),
    ],
)
def test_every_option_is_in_the_signature_with_its_default(function, options):
    parameters = inspect.signature(function).parameters
    assert set(parameters) == set(options) - ({"episodes"} if function is api.load else set())
    assert all(one.kind is not one.VAR_KEYWORD and one.annotation is not one.empty for one in parameters.values())
    other = {"shots": (1,)} if function is api.draw_episodes else {}
    for name, field in options.items():
        if field is not None and name in parameters and name not in ("model", "data"):
            default = other.get(name, field.default)
            if default is not dataclasses.MISSING:
                assert parameters[name].default == default, name
    assert {field.name for field in api.LOADING} == set(of(ModelConfig)) - set(of(Prompting)) - {"model"}


def test_the_type_of_an_answer_depends_on_what_is_asked():
    for method, one, many in ((Learner.ask, Answer, list[Answer]), (Learner.say, str, list[str])):
        single, several = (typing.get_type_hints(overload) for overload in typing.get_overloads(method))
        assert (single["return"], several["return"]) == (one, many)
        assert typing.get_args(several["picture"]) == (single["picture"],)


@pytest.fixture(scope="module")
def learner(nano, pictures):
    made = linkcontext.load(nano, device="cpu")
    first, second = sorted(folder for folder in pictures.iterdir() if folder.is_dir())[:2]
    made.teach({"lime": sorted(first.iterdir())[:2], "banana": second})
    return made


MISTAKES = {
    "a misspelt model": (lambda **_: linkcontext.load("mimi"), r"mimi: .*Did you mean mini\?"),
    "a pack as a model": (
        lambda file, **_: linkcontext.load(file),
        r"is a file, but a model is a folder. If it is a pack, use linkcontext.Learner.load",
    ),
    "a misspelt dtype": (
        lambda **_: linkcontext.load("mini", dtype="float23"),
        r"dtype='float23': not one of .*Did you mean float32\?",
    ),
    "a device that is not there": (lambda nano, **_: linkcontext.load(nano, device="gpu"), r"^device=gpu: "),
    "an unknown option": (
        lambda **_: linkcontext.load("mini", devise="cpu"),
        r"devise: no such option. Did you mean device\?",
    ),
    "a negative number of shots": (lambda nano, pictures, **_: linkcontext.evaluate(nano, pictures, shots=-1), "shots"),
    "shots as a text": (
        lambda nano, **_: linkcontext.evaluate(nano, shots="1"),
        r"shots='1': has the type str, not int",
    ),
    "another name of shots": (
        lambda nano, **_: linkcontext.evaluate(nano, shots_per_class=1),
        r"shots_per_class: no such option. Did you mean shots\?",
    ),
    "an open data set": (
        lambda nano, pictures, **_: linkcontext.evaluate(nano, linkcontext.open_data(pictures)),
        "Give its name or folder",
    ),
    "a misspelt scoring": (
        lambda nano, **_: linkcontext.evaluate(nano, scoring="generated"),
        r"scoring='generated': not one of .*Did you mean generate\?",
    ),
    "a data set that is none": (
        lambda **_: linkcontext.open_data("wrld:3"),
        r"^data=wrld:3: no such folder, and wrld is not a data set",
    ),
    "a model's name to a learner": (lambda **_: Learner("mini"), r"linkcontext.load\('mini'\) returns it"),
    "a misspelt head": (
        lambda learner, **_: Learner(learner.model, head="centre"),
        r"head='centre': not one of .*Did you mean",
    ),
    "no pictures shown": (
        lambda learner, **_: Learner(learner.model, shots_per_class=0),
        "shots_per_class 0 .*: must be at least 1",
    ),
    "an address": (
        lambda learner, **_: learner.ask("https://example.org/a.png"),
        "an address. Pictures are never fetched",
    ),
    "a folder for a picture": (
        lambda learner, pictures, **_: learner.ask(str(pictures)),
        r"For all pictures in it give \[",
    ),
    "a misspelt picture": (
        lambda learner, file, **_: learner.ask(file.with_name("zoo.pak")),
        r"no such picture. Did you mean .*zoo.pack\?",
    ),
    "pictures without names": (lambda learner, **_: learner.teach(["a.png"]), "teach takes names with their pictures"),
    "floats of 0 to 255": (lambda learner, **_: learner.ask(np.full((8, 8, 3), 200.0)), "Give floats from 0 to 1"),
    "channels first": (lambda learner, **_: learner.ask(np.zeros((3, 8, 8), np.uint8)), r"array.transpose\(1, 2, 0\)"),
    "an unknown name": (lambda learner, **_: learner.forget("limes"), r"'limes' was not taught. Did you mean lime\?"),
    "a question before teaching": (
        lambda learner, pictures, **_: Learner(learner.model).ask(next(pictures.glob("*/*.png"))),
        "teach at least two names before asking",
    ),
    "a pack that is none": (lambda file, **_: linkcontext.Pack.open(file), "not a pack, or damaged"),
    "a folder as a pack": (lambda learner, pictures, **_: learner.save(pictures), "a folder. Give the name of a file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_python_is_a_sentence_that_says_what_to_type(
    mistake, learner, nano, pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "zoo.pack"
    file.write_text("no pack")
    call, sentence = MISTAKES[mistake]
    with pytest.raises(InputError, match=sentence) as error:
        call(learner=learner, nano=nano, pictures=pictures, file=file)
    assert "--" not in str(error.value).replace("(--shots-per-class)", "")
    assert not list(tmp_path.glob("runs/*"))
