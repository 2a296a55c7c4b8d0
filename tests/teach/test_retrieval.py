"""More names than the context holds: each query is asked after the taught pictures most similar to it."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from linkcontext.data.images import Upload
from linkcontext.episodes.scaffold import build_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.name_scores import name_log_probabilities
from linkcontext.models.loading import load_model
from linkcontext.scoring.connection import connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.remote import RemoteModel
from linkcontext.serve.served_prompt import ServedPrompt
from linkcontext.source import open_data
from linkcontext.teach import support
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


def context_of(model, count=3):
    probe = Learner(model)
    dataset = open_data("world:3")
    items = [items[0] for items in dataset.by_class().values()][:count]
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


def test_a_picture_that_is_left_out_is_scored_as_one_that_is_asked_about(narrow, pictures):
    """By oracle: a learner that was never shown it."""
    learner, without = taught(narrow, pictures, head="lm"), taught(narrow, pictures, head="lm")
    (picture, *others) = pictures["thing 0"]
    without.forget("thing 0")
    without.teach({"thing 0": others})
    assert without.pictures.similarity_kind == learner.pictures.similarity_kind
    asked = without.ask(picture).probabilities
    scores = left_out_by_model(learner)[0]
    assert scores.tolist() == pytest.approx([np.log(asked[name]) for name in learner.pictures.names], abs=1e-4)


def test_a_prompt_is_as_long_as_the_support_of_its_query(nano, pictures, monkeypatch):
    """One picture of each of two names fits, and three pictures that are similar."""
    model = LocalModel(load_model(str(nano)))
    text = model.loaded.network.config.get_text_config()
    monkeypatch.setattr(text, "max_position_embeddings", context_of(model, 4))
    learner = Learner(LocalModel(model.loaded))
    learner.teach({name: pictures[name] for name in ("thing 0", "thing 1")})
    query = learner.query(pictures["thing 2"][0])
    turns = learner.support_for(query).turns
    assert (len(learner.choose_support()), len(turns)) == (2, 3)
    expected = learner.model.length(build_messages(turns, learner.scaffold, query))
    assert learner.prompt_length(query) == expected
    assert learner.prompt_length(query, with_support=False) < learner.prompt_length() < expected


def test_a_served_pack_names_by_what_is_similar(narrow, pictures, tmp_path):
    learner = taught(narrow, pictures, head="lm")
    served = ServedPrompt.of(learner, tmp_path / "zoo.pack")
    asked = [{"type": "image", "image": "x"}, {"type": "text", "text": "What is this?"}]
    picture = Upload("x", pictures[f"thing {NAMES}"][0].read_bytes())
    chat = SimpleNamespace(ending="none", stops=(), logprobs=False, prompt_logprobs=None)
    messages = [*served.messages, {"role": "user", "content": asked}]
    assert served.picture_to_name(chat, messages, {"x": ("x", picture)}) is picture


def test_a_server_is_not_shown_a_part_of_the_names(narrow, mini_url, pictures, tmp_path):
    taught(narrow, pictures, head="lm").save(tmp_path / "zoo.pack")
    with pytest.raises(InputError, match=f"its {NAMES} names do not fit one prompt"):
        read_pack(tmp_path / "zoo.pack").learner(RemoteModel(connect(f"openai:{mini_url}#mini")))


def test_a_pack_of_an_earlier_version_answers_as_it_did(narrow, pictures, tmp_path, monkeypatch):
    """Then one picture of each name was shown to all queries, where no more fit."""
    learner = Learner(narrow, head="lm")
    learner.teach({name: pictures[name] for name in ("thing 0", "thing 1")})
    with monkeypatch.context() as earlier:
        earlier.setattr(support, "FEWEST", 1)
        before = learner.ask(pictures["thing 2"][0])
        learner.save(tmp_path / "zoo.pack")
    again = read_pack(tmp_path / "zoo.pack").learner(learner.model)
    assert not retrieves(again)
    assert again.ask(pictures["thing 2"][0]).probabilities == pytest.approx(before.probabilities)


def test_the_largest_pictures_must_fit(narrow, pictures, monkeypatch):
    learner = taught(narrow, pictures)
    large, tried = learner.pictures.by_name["thing 4"][3], []
    features = learner.pictures.features
    monkeypatch.setitem(features, large, replace(features[large], image_tokens=SimpleNamespace(ids=range(99))))

    def check(learner, turns):
        tried.append(turns)
        if len(turns) > 2:
            raise InputError("too long")

    monkeypatch.setattr(support, "_check", check)
    assert shown_pictures(learner).retrieved == 2
    assert tried[-1][0].item == large
