"""How learners, answers and packs look in a terminal and in a notebook, and where a learner is."""

import numpy as np
import pytest
import torch
from PIL import Image

import linkcontext
from linkcontext.errors import InputError
from linkcontext.teach.answer import Answer
from linkcontext.teach.notebook import PICTURES_SHOWN, taught_html


@pytest.fixture
def learner(nano, pictures):
    made = linkcontext.load(nano, device="cpu")
    first, second = sorted(folder for folder in pictures.iterdir() if folder.is_dir())[:2]
    made.teach({"<b>": sorted(first.iterdir())[:3], "dax": sorted(second.iterdir())[:3]})
    return made


@pytest.fixture
def query(pictures):
    return sorted(sorted(folder for folder in pictures.iterdir() if folder.is_dir())[1].iterdir())[6]


def test_what_is_printed_is_short(learner, query, tmp_path):
    assert repr(learner).startswith("Learner(model=LocalModel(")
    assert "TaughtPictures({'<b>': 3, 'dax': 3})" in repr(learner)
    assert len(repr(learner)) < 400
    answer = learner.ask(query)
    assert repr(answer).startswith(f"Answer(name={answer.name!r}, probabilities={{")
    assert len(repr(answer)) < 200
    assert str(answer.nearest[0].path) in repr(answer.nearest[0])
    many = Answer("n0", {f"n{number}": 1 / 40 for number in range(40)})
    assert "37 more" in repr(many)
    learner.save(tmp_path / "zoo.pack")
    pack = linkcontext.Pack.open(tmp_path / "zoo.pack")
    assert repr(pack) == f"Pack('{tmp_path / 'zoo.pack'}', {{'<b>': 3, 'dax': 3}}, model={learner.model.card.name!r})"


def test_a_notebook_shows_pictures_and_escapes_names(learner, query, tmp_path):
    answer = learner.ask(query)
    html = answer._repr_html_()
    assert html.count("<img") == 1 + len(answer.nearest)
    assert "&lt;b&gt;" in html
    assert "<b><b>" not in html
    learner.save(tmp_path / "zoo.pack")
    for shown in (learner, linkcontext.Pack.open(tmp_path / "zoo.pack")):
        assert shown._repr_html_().count("<img") == 6
        assert "&lt;b&gt;" in shown._repr_html_()
    assert "Nothing is taught yet" in linkcontext.load(learner.model.loaded.source, device="cpu")._repr_html_()


def test_an_answer_is_shown_after_its_picture_is_gone(learner, query, tmp_path):
    copy = tmp_path / "query.png"
    copy.write_bytes(query.read_bytes())
    answer, in_memory = learner.ask(copy), learner.ask(np.asarray(Image.open(query).convert("RGB")))
    copy.unlink()
    assert answer._repr_html_().count("<img") == len(answer.nearest)
    assert in_memory._repr_html_().count("<img") == 1 + len(answer.nearest)


def test_many_pictures_are_counted_and_not_shown():
    html = taught_html("t", {"a": [b"png"] * 20} | {f"n{i}": [b"png"] for i in range(30)})
    assert html.count("<img") == PICTURES_SHOWN + 19
    assert "and 12 more" in html
    assert "11 more names" in html


def test_a_learner_is_saved_and_loaded_with_its_model(learner, query, tmp_path):
    learner.save(tmp_path / "zoo.pack")
    before = learner.ask(query).probabilities
    by_itself = linkcontext.Learner.load(tmp_path / "zoo.pack", device="cpu")
    for again in (
        by_itself,
        linkcontext.Learner.load(tmp_path / "zoo.pack", model=learner),
        linkcontext.Learner.load(str(tmp_path / "zoo.pack"), model=learner.model),
    ):
        assert again.ask(query).probabilities == pytest.approx(before, abs=1e-5)
    with pytest.raises(InputError, match="is loaded already"):
        linkcontext.Learner.load(tmp_path / "zoo.pack", model=learner, device="cpu")
    with pytest.raises(InputError, match="no such pack"):
        linkcontext.Learner.load(tmp_path / "nowhere.pack")


def test_a_learner_moves_with_what_it_was_taught(learner, query):
    before = learner.ask(query)
    assert learner.to("cpu") is learner
    assert learner.to(torch.device("cpu")).ask(query).probabilities == pytest.approx(before.probabilities, abs=1e-5)
    with pytest.raises(InputError, match=r"^device=cuda:99: "):
        learner.to("cuda:99")
