"""Dialogues: what was taught holds to the end, whatever else is said."""

import pytest

import linkcontext
from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach import vocabulary
from linkcontext.teach.dialogue import Dialogue


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.fixture(scope="module")
def mini():
    return linkcontext.load("mini").model


def dialogue(model, **options):
    return Dialogue(linkcontext.teach.learner.Learner(model), **options)


def test_what_was_taught_holds_through_twenty_turns(mini, paths):
    """After every turn each name is asked again, with pictures that were never shown or asked about."""
    hog, plim, tav = paths[0], paths[7], paths[22]
    talk = dialogue(mini, budget=420)
    script = [
        ("this is a cactihog", hog[:2]),
        ("And this is a plimbo.", plim[:2]),
        ("what is this?", hog[4:5]),
        ("What colour is it?", ()),
        ("this is a cactihog", plim[2:3]),
        ("no, that is a plimbo", ()),
        ("", plim[5:6]),
        ("Describe this.", ()),
        ("How many bumps does it have?", hog[6:7]),
        ("these are called tavork", tav[:3]),
        ("What's that?", tav[6:7]),
        ("What kind of thing is it?", ()),
        ("What texture is it?", plim[7:8]),
        ("how would you tell it from a cactihog?", ()),
        ("What is it called?", ()),
        ("Describe the picture.", tav[7:8]),
        ("it's a TAVORK!", ()),
        ("What colour is it?", hog[7:8]),
        ("What shape is the body?", ()),
        ("Who is this?", plim[8:9]),
    ]
    assert len(script) == 20
    unseen = {"cactihog": hog[20:22], "plimbo": plim[20:22], "tavork": tav[20:22]}
    right, left_out = [], 0
    for said, pictures in script:
        reply = talk.say(said, pictures)
        left_out += any("are dropped" in note for note in reply.notes)
        taught = talk.learner.pictures.by_name
        assert talk.tokens()[0] <= 420
        if len(taught) > 1:
            right += [talk.learner.ask(p).name == name for name in taught for p in unseen[name]]
    assert all(right)
    assert len(right) == 2 * 2 * 8 + 11 * 3 * 2
    assert left_out > 0
    counts = {name: len(items) for name, items in talk.learner.pictures.by_name.items()}
    assert counts == {
        "cactihog": 2,
        "plimbo": 3,
        "tavork": 4,
    }


def test_a_correction_moves_the_picture_and_takes_the_wrong_answer_back(nano, paths):
    talk = dialogue(linkcontext.load(str(nano)).model)
    talk.say("this is a Plimbo", paths[0][:1])
    assert talk.say("no, it's a cactihog").notes == ("Plimbo has no picture left and is forgotten.",)
    talk.teach("plimbo", paths[7][:2])
    talk.ask(paths[0][3])
    assert [turn.question for turn in talk.history] == [""]
    reply = talk.say("No! A CACTIHOG.")
    assert reply.text == "cactihog: 2 pictures."
    assert not talk.history
    moved = talk.say("actually, plimbo")
    assert (moved.text, moved.notes) == (
        "plimbo: 3 pictures.",
        ('1 picture was called "cactihog" before, and "plimbo" from now on.',),
    )
    assert talk.ask().answer.name == "plimbo"  # at once, and the model is not asked
    assert talk.ask().text == "plimbo (this picture was taught)"
    assert talk.say("that's wrong, it is a cactihog").text == "cactihog: 2 pictures."
    assert talk.ask().text == "cactihog (this picture was taught)"
    talk.say("no, a plimbo")
    talk.say("no, thank you")
    assert list(talk.learner.pictures.by_name) == ["cactihog", "plimbo"]
    assert talk.say("forget the plimbo").text == "plimbo is forgotten."
    assert list(talk.learner.pictures.by_name) == ["cactihog"]


def test_small_talk_goes_oldest_first_and_what_was_taught_stays(nano, paths, monkeypatch):
    monkeypatch.setattr(vocabulary, "SMALL", 0)  # as if the model could write any word
    talk = dialogue(linkcontext.load(str(nano)).model)
    monkeypatch.setattr(talk.learner, "say", lambda *_: "yes")
    talk.teach("a", paths[0][:2])
    talk.teach("b", paths[1][:2])
    questions = [f"is it number {n}?" for n in range(6)]
    for n in range(3):
        talk.ask(paths[0][5 + n], questions[n])
    talk.budget = talk.tokens()[0] + 30
    gone = sum(len(talk.ask(paths[0][8], question).notes) for question in questions[3:])
    assert gone >= 2
    kept = [turn.question for turn in talk.history]
    assert kept == questions[-len(kept) :]
    before = dict(talk.learner.pictures.by_name), list(talk.history)
    with pytest.raises(InputError, match="never dropped"):
        talk.teach("c", paths[2][:30])
    assert (dict(talk.learner.pictures.by_name), list(talk.history)) == before


def test_what_cannot_be_taught_is_a_sentence_and_changes_nothing(nano, paths, tmp_path):
    talk = dialogue(linkcontext.load(str(nano)).model)
    (tmp_path / "text.png").write_text("not a picture")
    for said, pictures, sentence in (
        ("what is this?", (), "which picture is meant"),
        ("this is a plimbo", (), "which picture is meant"),
        ("this is a plimbo", [*paths[0][:2], tmp_path / "text.png"], "not a picture"),
        ("this is not a plimbo", paths[0][:1], "no name that can be taught"),
        ("this is a picture that my aunt took", paths[0][:1], "at most 4 words"),
        (f"this is a {'x' * 500}", paths[0][:1], "at most 100 letters"),
        ("this is an <image>", paths[0][:1], "a special token"),
        ("is it an <image>?", paths[0][:1], "a special token"),
        ("what are these?", paths[0][:2], "one picture at a time"),
        ("forget plimbo", (), "was not taught"),
    ):
        with pytest.raises(InputError, match=sentence):
            talk.say(said, pictures)
        assert (talk.learner.pictures.by_name, talk.history, talk.last) == ({}, [], ())


def test_names_that_look_alike_are_one(nano, paths):
    talk = dialogue(LocalModel(load_model(str(nano))))
    talk.teach("\ufb01sh", paths[0][:1])  # with a ligature
    talk.teach("fish", paths[0][1:2])
    talk.teach("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", paths[1][:1])  # Persian, with a joiner
    assert [len(items) for items in talk.learner.pictures.by_name.values()] == [2, 1]
    with pytest.raises(InputError, match="the name is blank"):
        talk.teach("\u3164", paths[2][:1])  # a letter that nobody sees


def test_a_model_of_few_words_invents_none(nano, paths):
    talk = dialogue(LocalModel(load_model(str(nano))))
    for sentence in ("hello", "What do you know?", "thanks!"):
        assert "Nothing is taught yet." in talk.say(sentence).text
    assert talk.say("", paths[0][:1]).text.startswith("Nothing is taught yet, so I know no name for it.")
    talk.say("this is a fox")
    assert talk.say("", paths[0][1:2]).text == (
        "Only fox is taught, so there is nothing to choose from. Teach a second name."
    )
    talk.say("these are owls", paths[1][:2])
    for sentence in ("what is the capital of France?", "Is it ripe?", "how would you tell it from a fox?"):
        reply = talk.say(sentence)
        assert reply.text.startswith("I do not know th"), sentence
        assert (reply.answer, reply.own_words) == (None, None)
    assert "fox" not in talk.say("how would you tell it from a fox?").text
    assert talk.say("What do you know?").text.endswith("I know: fox, owls.")
    assert talk.history == []


def test_invented_words_are_not_shown(nano, paths, monkeypatch):
    talk = dialogue(LocalModel(load_model(str(nano))))
    for reply, shown in (("orange", "orange"), ("snouzux", "I have no words for that."), ("", "I have no words")):
        monkeypatch.setattr(talk.learner, "say", lambda *_, reply=reply: reply)
        assert talk.say("What colour is it?", paths[0][:1]).text.startswith(shown)
    assert [turn.answer for turn in talk.history] == ["orange"]


def test_a_thing_in_the_plural_or_with_an_article_is_the_same_thing(nano, paths):
    talk = dialogue(LocalModel(load_model(str(nano))))
    talk.say("these are foxes", paths[0][:2])
    reply = talk.say("a fox", paths[0][2:3])
    assert 'say "it is called foxes"' in reply.text
    reply = talk.say("it is a fox")
    assert reply.text == "foxes: 3 pictures."
    assert reply.notes[0].startswith('"fox" is taken for "foxes".')
    assert talk.teach("fox", paths[1][:1]).notes == (
        "foxes and fox are two names. If they are one thing, give their pictures one name.",
    )
    assert talk.teach("fox", paths[1][1:2]).notes == ()  # said once
    assert talk.say("this is a fox", paths[1][2:3]).text == "fox: 3 pictures."
    assert talk.say("forget the Fox").text == "fox is forgotten."


def test_a_correction_changes_the_next_answers(mini, paths):
    """With 4, 3 and 1 pictures of the names: a picture is given another name, and others of its kind follow."""
    talk = dialogue(mini)
    talk.say("these are cactihogs", paths[0][:4])
    talk.say("these are plimbos", paths[7][:3])
    first, *others = paths[22][:8]
    wrong = talk.say("", [first]).answer.name
    assert wrong in ("cactihogs", "plimbos")
    assert talk.say("that's wrong, it is a tavork").text == "tavork: 1 picture."
    assert talk.say("").answer.name == "tavork"
    before = talk.say("", others[:1]).answer.probabilities["tavork"]
    for other in others[1:3]:
        talk.say("no, a tavork", [other])
    assert talk.say("", others[:1]).answer.probabilities["tavork"] > before
    assert all(talk.say("", [path]).answer.name == "tavork" for path in others)
    assert talk.say("is it a tavork?").text.startswith("yes: tavork")
    assert talk.say("is it a cactihog?").text.startswith("no: tavork")


def test_the_head_that_names_pictures_is_told_once(mini, paths):
    talk = dialogue(mini)
    talk.teach_all({"cactihog": paths[0][:4], "plimbo": paths[7][:4]})
    (note,) = talk.say("", paths[0][5:6]).notes
    assert note == talk.learner.choose_head().describe()
    assert talk.say("", paths[0][6:7]).notes == ()


def test_undo_takes_back_lessons_corrections_and_forgotten_names(mini, paths):
    talk = dialogue(mini)
    with pytest.raises(InputError, match="nothing to undo"):
        talk.undo()
    talk.say("these are cactihogs", paths[0][:2])
    talk.say("this is a plimbo", paths[7][:1])
    talk.say("this is a plimbo", paths[7][:1])  # known already: nothing to undo
    talk.say("what is this?", paths[7][5:6])
    answered = [*talk.history]
    taught = talk.learner.pictures.copy()

    talk.say("no, it is a cactihog")
    assert talk.undo().text == "Undone. cactihogs: 2 pictures."
    assert talk.learner.pictures.by_name == taught.by_name
    assert talk.history == answered
    assert talk.last == tuple(paths[7][5:6])

    talk.say("forget the plimbo")
    assert talk.undo().text == "Undone. plimbo: 1 picture."
    assert talk.learner.pictures.by_name == taught.by_name

    with pytest.raises(InputError):
        talk.teach("plimbo", [paths[0][0].with_name("nowhere.png")])
    assert talk.undo().text == "Undone. plimbo: not taught."  # a refused lesson changed nothing
    assert talk.history == []
    assert talk.undo().text == "Undone. cactihogs: not taught."
    assert talk.last == ()
    with pytest.raises(InputError, match="nothing to undo"):
        talk.undo()
