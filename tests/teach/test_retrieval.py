"""More names than the context holds: each query is asked after the taught pictures most similar to it."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from linkcontext.errors import InputError
from linkcontext.evaluation.name_scores import name_log_probabilities
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.serve.served_prompt import ServedPrompt
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.lesson_notes import lesson_notes
from linkcontext.teach.naming import UNSHOWN, left_out_by_model
from linkcontext.teach.pack import read_pack
from linkcontext.teach.support import largest_fitting, retrieves, shown_pictures

NAMES = 6


@pytest.fixture(scope="module")
def pictures():
    dataset = open_data("world:3")
    classes = [*dataset.by_class().values()][: NAMES + 1]
    return {f"thing {n}": [dataset.path(item.id) for item in items[:4]] for n, items in enumerate(classes)}


@pytest.fixture
def narrow(nano, monkeypatch):
    """A model whose context holds three pictures with a question."""
    model = LocalModel(load_model(str(nano)))
    text = model.loaded.network.config.get_text_config()
    monkeypatch.setattr(text, "max_position_embeddings", context_of(model))
    return LocalModel(model.loaded)


def context_of(model):
    probe = Learner(model)
    dataset = open_data("world:3")
    items = [items[0] for items in dataset.by_class().values()][:3]
    probe.teach({f"thing {n}": [dataset.path(item.id)] for n, item in enumerate(items)})
    query = probe.choose_support()[0]
    return probe.prompt_length(replace(query, answer="thing 0"))


def taught(narrow, pictures, **options):
    learner = Learner(narrow, **options)
    learner.teach(dict([*pictures.items()][:NAMES]))
    return learner


def test_each_query_sees_the_pictures_most_similar_to_it(narrow, pictures, caplog):
    with caplog.at_level(logging.WARNING, "linkcontext"):
        learner = taught(narrow, pictures, head="lm")
        assert retrieves(learner)
    assert f"no more than 0 of each of {NAMES} names fit" in caplog.text
    count = shown_pictures(learner).retrieved
    assert 1 < count < NAMES
    query = learner.query(pictures[f"thing {NAMES}"][0])
    turns = learner.support_for(query).turns
    assert turns == learner.similar_support(query.item)
    assert len(turns) == count
    assert learner.prefill_support() is None
    assert any(f"the {count} that are most similar to each query" in note for note in lesson_notes(learner, {}))


def test_names_of_similar_pictures_share_all_but_a_hundredth(narrow, pictures):
    """By oracle: scored by themselves."""
    learner = taught(narrow, pictures, head="lm")
    query = learner.query(pictures[f"thing {NAMES}"][0])
    turns = learner.support_for(query).turns
    shown = [*dict.fromkeys(turn.answer for turn in turns)]
    expected = np.exp(name_log_probabilities(learner.model, learner.scaffold, [query], turns, shown)[0])
    found = learner.ask(pictures[f"thing {NAMES}"][0]).probabilities
    assert sum(found.values()) == pytest.approx(1)
    assert [found[name] for name in shown] == pytest.approx(((1 - UNSHOWN) * expected).tolist(), rel=1e-4)
    others = [value for name, value in found.items() if name not in shown]
    assert sum(others) == pytest.approx(UNSHOWN)


def test_pictures_are_left_out_of_what_is_retrieved(narrow, pictures):
    learner = taught(narrow, pictures)
    scores = left_out_by_model(learner)
    assert scores.shape == (4 * NAMES, NAMES)
    assert np.isfinite(scores).all()
    assert learner.choose_head().pictures == 4 * NAMES
    assert learner.estimate_name_bias() == [0.0] * NAMES


def test_a_pack_remembers_nothing_that_no_query_shares(narrow, pictures, tmp_path):
    learner = taught(narrow, pictures, head="lm")
    asked = pictures[f"thing {NAMES}"]
    before = learner.ask(asked)
    learner.save(tmp_path / "zoo.pack")
    again = read_pack(tmp_path / "zoo.pack").learner(narrow)
    assert [each.probabilities for each in again.ask(asked)] == [pytest.approx(each.probabilities) for each in before]
    served = ServedPrompt.of(again, tmp_path / "zoo.pack")
    assert sum(message["role"] == "assistant" for message in served.messages) == shown_pictures(learner).retrieved


def test_without_features_too_many_names_are_refused(nano, pictures, narrow):
    model = LocalModel(narrow.loaded, requested="reference")
    learner = taught(model, pictures, head="lm")
    with pytest.raises(InputError, match="context"):
        learner.ask(pictures[f"thing {NAMES}"][0])


def test_dialogues_reply_after_similar_pictures(narrow, pictures):
    learner = taught(narrow, pictures)
    replies = learner.say(pictures[f"thing {NAMES}"][:2], new_tokens=2)
    assert len(replies) == 2


@pytest.mark.parametrize("most", [0, 1, 2, 3, 8, 9])
def test_the_largest_number_that_fits_is_found(most):
    def check(limit):
        def refuse(count):
            assert 1 <= count <= most
            if count > limit:
                raise InputError("too many")

        return refuse

    for limit in range(1, most + 3):
        assert largest_fitting(most, check(limit)) == min(limit, most)
    if most:
        with pytest.raises(InputError, match="too many"):
            largest_fitting(most, check(0))
