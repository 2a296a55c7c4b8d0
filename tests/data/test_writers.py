import json

import pytest
from conversation_records import chat, image, talk, text, turn

from linkcontext.data.conversation import make_conversation
from linkcontext.data.problems import Problems
from linkcontext.data.readers.conversations import read_conversations
from linkcontext.data.writers import write_conversations
from linkcontext.errors import InputError

CONVERSATIONS = (
    make_conversation(
        "one",
        [turn("user", image("/a.png"), text("Q? "), text("A\n"), image("/b.png")), turn("assistant", text("é"))],
        "",
    ),
    make_conversation(
        "two", [turn("user", text("\n Q?\n"), image("/a.png"), text("\nmore ")), turn("assistant", text(" A "))], ""
    ),
    make_conversation(
        "none",
        [turn("user", text("Q")), turn("assistant", text("A")), turn("user", text("Q")), turn("assistant", text("B"))],
        "",
    ),
)
SYSTEM = make_conversation(
    "s", [turn("system", text("S")), turn("user", text("Q"), image("/a")), turn("assistant", text("A"))], ""
)
LAST = make_conversation(
    "l",
    [
        turn("user", image("/a")),
        turn("assistant", text("A"), loss=False),
        turn("user", text("Q")),
        turn("assistant", text("B"), loss=True),
    ],
    "",
)


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize("layout", ["llava", "messages", "trl"])
def test_what_is_written_is_read(tmp_path, layout, name):
    conversations = CONVERSATIONS if layout == "llava" else (*CONVERSATIONS, SYSTEM, LAST)
    write_conversations(conversations, tmp_path / name, layout)
    assert tuple(read_conversations(tmp_path / name, Problems(strict=True))) == conversations
    assert (tmp_path / name).read_text()[0] == ("[" if name == "t.json" else "{")


def test_layouts_by_hand(tmp_path):
    def written(conversation, layout):
        write_conversations([conversation], tmp_path / "t.json", layout)
        return json.loads((tmp_path / "t.json").read_text())[0]

    one = make_conversation("1", [turn("user", image("/a"), text("Q")), turn("assistant", text("A"))], "")
    assert written(one, "llava") == {"id": "1", "image": "/a", "conversations": talk("<image>\nQ", "A")}
    assert written(one, "messages") == {"id": "1", "messages": chat("<image>Q", "A"), "images": ["/a"]}
    parts = [{"type": "image"}, text("Q")]
    whole = [turn("user", *parts), turn("assistant", text("A"))]
    assert written(one, "trl") == {"id": "1", "messages": whole, "images": ["/a"]}
    last = written(LAST, "trl")
    assert (len(last["prompt"]), last["completion"], last["images"]) == (3, [turn("assistant", text("B"))], ["/a"])
    assert [m.get("loss") for m in written(LAST, "messages")["messages"]] == [None, False, None, True]
    write_conversations([], tmp_path / "none.json", "llava")
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize(
    ("conversation", "layout", "sentence"),
    [
        (SYSTEM, "llava", "s: LLaVA's layout has neither system messages"),
        (LAST, "llava", "nor answers without loss. Use --export messages"),
        (
            make_conversation("m", [turn("user", text("<image>?")), turn("assistant", text("A"))], ""),
            "messages",
            "Use --export trl",
        ),
        (
            make_conversation("f", [*LAST.messages[:3], turn("assistant", text("B"), loss=False)], ""),
            "trl",
            "every answer or on the last",
        ),
    ],
)
def test_what_a_layout_cannot_say_is_refused_and_nothing_is_left(tmp_path, conversation, layout, sentence):
    with pytest.raises(InputError, match=sentence):
        write_conversations([CONVERSATIONS[2], conversation], tmp_path / "t.json", layout)
    assert list(tmp_path.iterdir()) == []
