"""The bias of names, and probabilities corrected by it."""

import numpy as np
import pytest

from linkcontext.evaluation.heads import log_softmax
from linkcontext.evaluation.name_scores import name_log_probabilities
from linkcontext.models.loading import load_model
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.naming import left_out_by_model


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.mark.parametrize("select", ["medoid", "rices"])
def test_probabilities_are_calibrated_whatever_is_shown(nano, paths, select):
    """By oracle: the log-probabilities of the names, less their mean over pictures that are shown."""
    model = Learner(LocalModel(load_model(str(nano))), shots_per_class=2, select=select, head="lm")
    model.teach({"a": paths[0][:3], "a longer name": paths[1][:3]})
    query, picture = model.query(paths[2][0]), paths[2][0]
    turns = model.choose_support()
    if select == "rices":
        own = [model.similar_support(turn.item, without_itself=True) for turn in turns]
        assert all(turn.item not in {t.item for t in support} for turn, support in zip(turns, own, strict=True))
        support = model.similar_support(query.item)
    else:
        own, support = [turns] * len(turns), turns

    def scores(turn, support):
        names = model.pictures.names
        return name_log_probabilities(model.model, model.scaffold, [turn], support, names)[0]

    mean = sum(scores(Turn(t.item, "", ""), s) for t, s in zip(turns, own, strict=True)) / len(turns)
    expected = log_softmax((scores(query, support) - mean)[None])[0]
    assert any(abs(value) > 0.1 for value in model.estimate_name_bias())
    assert list(model.ask(picture).probabilities.values()) == pytest.approx(np.exp(expected).tolist(), abs=1e-4)


def test_calibration_follows_every_picture_that_rices_can_show(nano, paths):
    """By oracle: a learner that was asked in between answers as one that was not."""
    lessons = {"a": paths[0][:3], "a longer name": paths[1][:3]}, {"a": paths[0][3:8]}
    model, fresh = (Learner(LocalModel(load_model(str(nano))), shots_per_class=1, select="rices") for _ in range(2))
    model.teach(lessons[0])
    assert model.estimate_name_bias()
    for lesson in lessons[1:]:
        model.teach(lesson)
    for lesson in lessons:
        fresh.teach(lesson)
    assert model.estimate_name_bias() == pytest.approx(fresh.estimate_name_bias(), abs=1e-4)


def test_a_name_with_fewer_pictures_is_shown_as_often(nano, paths):
    """By hand: its pictures come again, and no picture is left out while a copy of it is shown."""
    model = Learner(LocalModel(load_model(str(nano))), head="lm")
    model.teach({"a": paths[0][:3], "b": paths[1][:1], "c": paths[2][:2]})
    turns = model.choose_support()
    (a, b, c) = model.pictures.by_name.values()
    assert [turn.item for turn in turns] == [a[0], b[0], c[0], a[1], b[0], c[1], a[2], b[0], c[0]]
    rest = [turn for turn in turns if turn.item not in (a[0], c[0])]
    expected = name_log_probabilities(model.model, model.scaffold, [Turn(c[0], "", "")], rest, model.pictures.names)
    scores = left_out_by_model(model)
    assert scores[4] == pytest.approx(expected[0], abs=1e-4)  # not corrected: b has no picture that is left out
    assert np.isnan(scores[3]).all()
    assert any(abs(value) > 0.01 for value in model.estimate_name_bias())
