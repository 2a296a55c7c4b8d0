import pytest

from linkcontext.data.conversation import make_conversation
from linkcontext.errors import InputError


def message(role, *parts):
    return {"role": role, "content": [{"type": "text", "text": p} if p[0] != "/" else _image(p) for p in parts]}


def _image(path):
    return {"type": "image", "image": path}


def test_texts_that_follow_each_other_are_joined_and_pictures_are_listed():
    turns = [message("user", "a ", "b", "/1", "c", "/2"), message("assistant", "d")]
    conversation = make_conversation("x", turns, "f:1")
    assert conversation.pictures == ("/1", "/2")
    assert [part.get("text") for part in conversation.messages[0]["content"]] == ["a b", None, "c", None]
    assert len(turns[0]["content"]) == 5  # what is given is not changed


@pytest.mark.parametrize("roles", ["", "u", "a", "au", "uu", "ua u", "s", "usa", "uas"])
def test_turns_out_of_order_are_refused(roles):
    names = {"u": "user", "a": "assistant", "s": "system"}
    with pytest.raises(InputError, match="f:1: human and gpt must take turns"):
        make_conversation("x", [message(names[role], "t") for role in roles if role != " "], "f:1")


def test_a_system_message_may_stand_first():
    turns = [message("system", "s"), message("user", "q"), message("assistant", "a")]
    assert make_conversation("x", turns, "f:1").messages == tuple(turns)
