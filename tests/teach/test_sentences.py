"""What sentences of a dialogue do."""

import pytest

from linkcontext.errors import InputError
from linkcontext.teach.names import is_same_thing
from linkcontext.teach.sentences import understand

TAUGHT = ("lime", "banana", "red fox")


def taught(given):
    return next((name for name in TAUGHT if is_same_thing(name, given)), None)


def kinds(sentence, has_pictures=False):
    intent = understand(sentence, has_pictures, taught)
    return intent.kind, intent.name


@pytest.mark.parametrize(
    "sentence",
    [
        "that's wrong, it is a lime",
        "this is a lime",
        "it's a lime!",
        "no, a lime",
        "no, lime",
        "No! it is lime.",
        "nope, it's not a banana, it's a lime",
        "it isn't a banana, it's a lime",
        "not a banana, a lime",
        "it is a lime, not a banana",
        "you are wrong, it's a lime",
        "that was wrong. It should be a lime",
        "actually, lime",
        "I meant lime",
        "another lime",
        "here is a lime",
        "this one is also a lime",
        "it is called lime",
        'the name is "lime"',
    ],
)
def test_sentences_that_teach_or_correct(sentence):
    for has_pictures in (False, True):
        assert kinds(sentence, has_pictures) == ("teach", "lime")


def test_names_are_taken_without_what_surrounds_them():
    assert kinds("they are all limes") == ("teach", "limes")
    assert kinds("these are limes too", True) == ("teach", "limes")
    assert kinds("this is Rex", True) == ("teach", "Rex")
    assert kinds("call it Rex") == ("teach", "Rex")
    assert kinds('it\'s called "blue owl"') == ("teach", "blue owl")
    assert kinds("this is a 小猫") == ("teach", "小猫")


@pytest.mark.parametrize(
    "sentence",
    [
        *("", "?", "what is this?", "What's that", "and this one?", "this?", "what about this one?", "who is that?"),
        *("which one is this?", "what do you see?", "Name it.", "do you know this?", "tell me what this is", "now?"),
        *("what's on the picture?", "what is it called?", "try again", "what do you think it is?", "这？"),
    ],
)
def test_questions_for_the_name(sentence):
    assert kinds(sentence.replace("这", "this")) == ("name", "")


def test_a_question_about_a_taught_name_checks_it():
    assert kinds("is it a lime?") == ("check", "lime")
    assert kinds("And is this one really a red fox?") == ("check", "red fox")
    assert kinds("is it a melon?") == ("ask", "")
    assert kinds("is it ripe?") == ("ask", "")


@pytest.mark.parametrize(
    "sentence",
    [
        *("hello", "Hi there!", "thanks!", "thank you very much", "no, thank you", "ok", "yes", "that's right", "bye"),
        *("What do you know?", "who are you", "what can you do?", "which names do you know?", "help", "Good morning"),
        *("how does this work?", "Hello! How are you today?", "no problem", "never mind"),
    ],
)
def test_small_talk_asks_and_teaches_nothing(sentence):
    assert kinds(sentence) == ("talk", "")
    assert kinds(sentence, True) == ("name", "")  # a picture with it is what the sentence is about


def test_an_unclear_sentence_is_answered_with_how_to_word_it():
    for sentence in ("no", "wrong!", "that's wrong", "no, it isn't", "it's not", "that is not right", "no, not a lime"):
        assert understand(sentence, False, taught).reply.startswith("What is it, then?"), sentence
    assert 'say "it is called apple"' in understand("no, apple", False, taught).reply
    for has_pictures in (False, True):
        assert 'say "it is called Cactihog"' in understand("Cactihog", has_pictures, taught).reply
    assert 'say "it is called lime"' in understand("a lime", False, taught).reply


def test_other_sentences_are_questions():
    for sentence in ("what colour is it", "Describe the picture.", "what is the capital of France?", "how many?"):
        assert kinds(sentence) == ("ask", "")
    assert kinds("the weather is rather nice here today") == ("ask", "")


def test_forgetting():
    assert kinds("forget the lime") == ("forget", "lime")
    assert kinds("Forget about red foxes.") == ("forget", "red foxes")


def test_lessons_without_a_usable_name_are_errors():
    for sentence in ("this is not a lime", "this is a", "this is a picture that my aunt took"):
        with pytest.raises(InputError, match="no name that can be taught"):
            understand(sentence, True, taught)
    with pytest.raises(InputError, match="'it is called raining'"):
        understand("it is raining", False, taught)


def test_number_article_and_case_make_no_other_thing():
    same = [("lime", "limes"), ("a lime", "Limes"), ("glass", "glasses"), ("berry", "berries"), ("shoe", "the shoes")]
    assert all(is_same_thing(*pair) and is_same_thing(*reversed(pair)) for pair in [*same, ("box", "boxes")])
    other = [("lime", "lemon"), ("a", "as"), ("gas", "ga"), ("cactus", "cacti"), ("小猫", "小狗")]
    assert not any(is_same_thing(*pair) for pair in other)
