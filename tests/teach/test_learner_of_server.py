"""A learner whose model is behind a server: taught by pictures or a pack, in a chat and on the page."""

import json
import shutil

import pytest

import linkcontext
from linkcontext.app import html
from linkcontext.app.packs import save_pack
from linkcontext.app.session import Session
from linkcontext.cli import main
from linkcontext.errors import InputError
from linkcontext.records import Turn
from linkcontext.scoring.connection import connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.remote import RemoteModel
from linkcontext.source import open_data
from linkcontext.teach.dialogue import UNCOUNTED_TURNS, Dialogue
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack


@pytest.fixture
def named():
    """Pictures of two things, two to teach and the others to ask about."""
    dataset = open_data("world:3")
    classes = list(dataset.by_class().values())
    return {name: [dataset.path(item.id) for item in classes[at][:12]] for name, at in (("lum", 0), ("dax", 5))}


def test_a_dialogue_on_a_server_teaches_asks_and_corrects(mini, mini_url, named):
    here = Dialogue(Learner(LocalModel(mini), head="lm"))
    far = Dialogue(linkcontext.load(f"openai:{mini_url}#mini"))
    for name, pictures in named.items():
        for dialogue in (here, far):
            dialogue.teach(name, pictures[:2])
    assert far.tokens() is None
    assert here.tokens()[1] == mini.context
    replies = {name: far.ask(pictures[5]) for name, pictures in named.items()}
    for name, reply in replies.items():
        here.learner.computed.restore(here.learner.pictures.key, name_bias=[0.0, 0.0])  # a server is not asked for it
        assert reply.answer.probabilities == pytest.approx(here.ask(named[name][5]).answer.probabilities, abs=1e-3)
    assert far.say("no, that is a lum", [named["dax"][5]]).text == "lum: 3 pictures."
    assert far.say("what is this?", [named["dax"][5]]).answer.name == "lum"
    assert far.say("How many are there?", [named["lum"][7]]).text


def test_a_limit_of_tokens_is_refused_where_a_server_counts_them(mini_url):
    with pytest.raises(InputError, match=r"--context 200: openai:.* does not tell how many tokens"):
        Dialogue(linkcontext.load(f"openai:{mini_url}#mini"), 200)


def test_old_turns_are_dropped_where_a_server_counts_the_tokens(mini_url, named):
    far = Dialogue(linkcontext.load(f"openai:{mini_url}#mini"))
    far.history = [Turn("x", "", "one", "How many?")] * (UNCOUNTED_TURNS + 3)
    assert far._excess_history(Turn("y", "", "")) == 3


def test_a_page_serves_a_model_behind_a_server(mini_url, named, tmp_path):
    session = Session(linkcontext.load(f"openai:{mini_url}#mini").model, tmp_path)
    for name, pictures in named.items():
        session.choose(pictures[:2])
        session.teach(name)
    session.ask([named["lum"][5]])
    assert [*session.answer()] == []
    assert session.answers[0].answer.name in named
    assert "tokens" not in html.concept_cards(session)
    with pytest.raises(InputError, match="a pack needs token ids, and openai:"):
        save_pack(session)


def test_a_reply_is_matched_where_a_server_gives_no_likelihoods(mini_url, named, monkeypatch):
    learner = linkcontext.load(f"openai:{mini_url}#mini")
    learner.teach({name: pictures[:2] for name, pictures in named.items()})
    refusal = {"log-probabilities": "it says so"}
    monkeypatch.setattr(RemoteModel, "lacks", lambda self, capability: refusal.get(capability, "a server"))
    monkeypatch.setattr(RemoteModel, "generate", lambda *_: ["A dax."])
    assert learner.ask(named["lum"][5]).probabilities == {"lum": 0.0, "dax": 1.0}
    monkeypatch.setattr(RemoteModel, "generate", lambda *_: ["A lum or a dax."])
    with pytest.raises(InputError, match="has none of the names, or several"):
        learner.ask(named["lum"][6])


def test_a_pack_is_not_written_for_a_server(mini_url, named, tmp_path, capsys):
    for name, pictures in named.items():
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for picture in pictures[:2]:
            shutil.copy(picture, tmp_path / "zoo" / name)
    out = tmp_path / "zoo.pack"
    with pytest.raises(SystemExit) as end:
        main(["teach", "--data", str(tmp_path / "zoo"), "--out", str(out), "--model", f"openai:{mini_url}#mini"])
    assert end.value.code == 2
    assert "a pack needs token ids" in capsys.readouterr().err
    assert not out.exists()


def test_a_server_answers_as_the_model_does_here(mini, mini_url, tmp_path, capsys):
    dataset = open_data("world:3")
    classes = list(dataset.by_class().values())
    named = {"lum": classes[0], "dax": classes[5]}
    for name, items in named.items():
        for item in items[:2]:
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(dataset.path(item.id), tmp_path / name)
    learner = Learner(LocalModel(mini), head="lm")
    learner.teach({name: sorted((tmp_path / name).iterdir()) for name in named})
    pack = write_pack(learner, tmp_path / "two.pack")
    picture = dataset.path(classes[0][9].id)
    server = RemoteModel(connect(f"openai:{mini_url}#mini"))
    far, here = pack.learner(server), read_pack(pack.path).learner(LocalModel(mini))
    here.computed.restore(here.pictures.key, name_bias=[0.0, 0.0])  # a server is not asked for it
    assert far.ask(picture).probabilities == pytest.approx(here.ask(picture).probabilities, abs=1e-3)
    assert far.say(picture) == here.say(picture)
    main(["ask", str(pack.path), str(picture), "--model", f"openai:{mini_url}#mini", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["nearest"]) == (far.ask(picture).name, [])
    with pytest.raises(SystemExit):
        main(["ask", str(pack.path), str(picture), "--model", f"openai:{mini_url}#mini", "--dtype", "float16"])
    assert "--dtype: the server of" in capsys.readouterr().err
    next((tmp_path / "lum").iterdir()).unlink()
    with pytest.raises(InputError, match="1 of 4 are gone or have changed"):
        pack.learner(server)


def test_a_pack_of_rices_shows_a_server_no_support_that_all_queries_have(mini, mini_url, named, tmp_path):
    learner = Learner(LocalModel(mini), head="lm", select="rices", shots_per_class=1)
    learner.teach({name: pictures[:2] for name, pictures in named.items()})
    pack = write_pack(learner, tmp_path / "two.pack")
    far = pack.learner(RemoteModel(connect(f"openai:{mini_url}#mini")))
    with pytest.raises(InputError, match="select rices: this model's engine computes no image features"):
        far.ask(named["lum"][5])
