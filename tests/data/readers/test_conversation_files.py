import json

import pytest
from conversation_records import chat, image, talk, text, turn

from linkcontext.data.conversation import Conversation
from linkcontext.data.problems import Problems
from linkcontext.data.readers.conversations import conversation_from_record, read_conversations
from linkcontext.errors import InputError


def test_llava_by_hand():
    record = {"id": 7, "image": "a.png", "conversations": talk("<image>\nWhat?\n", "A cat.", "Where?", "There.")}
    assert conversation_from_record(record, "f:1", 0) == Conversation(
        "7",
        ("a.png",),
        (
            turn("user", image("a.png"), text("What?\n")),
            turn("assistant", text("A cat.")),
            turn("user", text("Where?")),
            turn("assistant", text("There.")),
        ),
    )


def test_messages_and_trl_columns_by_hand():
    turns = [{"role": "system", "content": "S"}, *chat("One <image>\nand<image>", "A", "B?", "B")]
    turns[4]["loss"] = True
    conversation = conversation_from_record({"messages": turns, "images": ["a", "b"]}, "f:1", 3)
    assert conversation.id == "record 3"
    assert conversation.messages[:2] == (
        turn("system", text("S")),
        turn("user", text("One "), image("a"), text("\nand"), image("b")),
    )
    assert conversation.messages[4] == turn("assistant", text("B"), loss=True)
    parts = [{"type": "image", "text": None}, text("One "), text("two")]
    columns = {"prompt": [{"role": "user", "content": parts}], "completion": chat("", "A")[1:], "images": ["a"]}
    assert conversation_from_record(columns, "f:1", 0).messages == (
        turn("user", image("a"), text("One two")),
        turn("assistant", text("A"), loss=True),
    )
    own = {"messages": [turn("user", image("own.png"), text("Q")), turn("assistant", text("A"))], "system": "S"}
    assert conversation_from_record(own, "f:1", 0).pictures == ("own.png",)
    assert conversation_from_record(own, "f:1", 0).messages[0] == turn("system", text("S"))


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"image": "a", "conversations": talk("<image><image>?", "a")}, r"2 <image> marks and the record 1 pictures"),
        ({"image": ["a", "b"], "conversations": talk("<image>?", "a")}, r"1 <image> marks and the record 2 pictures"),
        ({"messages": chat("<image>?", "a")}, "1 <image> marks and the record 0 pictures. Make them agree"),
        (
            {"id": "x", "conversations": [{"from": "cat", "value": "m"}]},
            r"f:1 \(id x\): the role 'cat' is not one of human, gpt",
        ),
        (
            {"messages": [*chat("q", "a"), {"role": "tool", "content": "42"}]},
            "the role 'tool' is not one of human, gpt",
        ),
        ({"conversations": []}, "f:1: `conversations` is missing, empty or not a list. Correct the record"),
        ({"conversations": [{"value": "q"}, *talk("q", "a")]}, "`from` is missing"),
        ({"conversations": [{"from": "human"}]}, "`value` is missing"),
        ({"messages": [{"role": "user"}]}, "`content` is missing"),
        ({"prompt": chat("q"), "images": []}, "`completion` is missing"),
        ({"messages": chat("q", " ")}, "a turn is empty"),
        ({"image": "a", "conversations": talk("q", "<image>")}, "gpt shows <image>"),
        ({"conversations": talk("q", "a", "q")}, "must take turns, human first, gpt last"),
        ({"image": 3, "conversations": talk("q", "a")}, "`image` must be a path or a list of paths"),
        ({"id": [1], "conversations": talk("q", "a")}, "`id` is missing or neither a number nor a text"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "neither a text nor an image"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "about a video or a sound"),
        ({"messages": chat("<audio>What is said?", "Hello."), "audios": ["x.wav"]}, r"a sound \(`audios`\)"),
        ({"video": "x.mp4", "conversations": talk("<image>\nWhat?", "A.")}, r"a sound \(`video`\)"),
        ({"conversations": talk("<video>\nWhat?", "A.")}, "a sound \\(<video>\\)"),
        ({"image": "x.MP4", "conversations": talk("<image>\nWhat?", "A.")}, r"a sound \(x.MP4\)"),
        ({"image": "a", "images": ["b"], "conversations": talk("<image>", "A.")}, "name different pictures"),
        ({"image": "https://x.org/a.png", "conversations": talk("<image>", "A.")}, "is given as a URL"),
        ({"image": {"bytes": "x" * 10_000}, "conversations": talk("<image>", "A.")}, "an object of 1 values"),
        ({"messages": [*chat("q"), {"role": "assistant", "content": "a", "loss": 0.5}]}, "`loss` of an answer must be"),
        ({"messages": [*chat("q"), {"role": "assistant", "content": "a", "weight": "maybe"}]}, "`weight` of an answer"),
        ({"messages": [*chat("q"), {"role": "assistant", "content": "a", "weight": 0, "loss": 1}]}, "contradict"),
        (
            {"messages": [*chat("q"), {"role": "assistant", "content": "a", "weight": ""}]},
            "true or false, but is ''\\.",
        ),
        ({"conversations": talk("What is in <video> here?", "A."), "videos": []}, "a sound \\(<video>\\)"),
        ({"conversations": talk("<speech>\nWhat is said?", "A."), "speech": "x.m4a"}, r"a sound \(`speech`\)"),
        ({"image": "x.m4a", "conversations": talk("<image>\nWhat?", "A.")}, r"a sound \(x.m4a\)"),
        (
            {"conversations": talk("Picture 1: <img>a.png</img>\nWhat?", "A.")},
            "a text holds a picture .<img>a.png</img>.. Write",
        ),
        (
            {"messages": chat("![](data:image/png;base64,AAAA) What?", "A.")},
            "a text holds a picture .data:image/png;base64,.",
        ),
        ({"system": ["S"], "conversations": talk("q", "a")}, "`system` is missing, empty or not a text"),
        ("text", "f:1: str where an object is expected"),
    ],
)
def test_wrong_records_get_a_sentence(record, sentence):
    with pytest.raises(InputError, match=sentence):
        conversation_from_record(record, "f:1", 0)


@pytest.mark.parametrize("value", ["data:image/png;base64," + "A" * 5000, "/9j/" + "A" * 5000, "A" * 5000])
def test_a_picture_in_the_record_is_named_and_not_repeated(value):
    for record in ({"image": value}, {"images": [{"url": value}]}):
        with pytest.raises(InputError, match="the record holds the picture itself") as error:
            conversation_from_record({**record, "conversations": talk("<image>", "a")}, "f:1", 0)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("marks", "learnt"),
    [({key: value}, learnt) for key in ("loss", "weight") for value, learnt in ((0, False), ("0", False))]
    + [({"loss": value}, False) for value in (False, "false", "False", 0.0)]
    + [({"loss": value}, True) for value in (True, 1, "true", "1")]
    + [({}, None), ({"loss": None}, None), ({"loss": 0, "weight": 0}, False)],
)
def test_marks_of_answers_that_are_not_learnt(marks, learnt):
    turns = [*chat("q"), {"role": "assistant", "content": "a", **marks}]
    assert conversation_from_record({"messages": turns}, "f:1", 0).messages[1].get("loss") is learnt


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_the_line_break_after_a_picture_goes_however_lines_end(ending):
    record = {"image": "a", "conversations": talk(f"<image>{ending}What?{ending}", "A.")}
    assert conversation_from_record(record, "f:1", 0).messages[0]["content"] == [image("a"), text(f"What?{ending}")]


def test_words_about_html_are_no_video():
    assert (
        conversation_from_record(
            {"conversations": talk("What does the tag <video> do?", "It plays.")}, "f:1", 0
        ).pictures
        == ()
    )
    assert (
        conversation_from_record({"conversations": talk("And <img src='a.png'>?", "It shows.")}, "f:1", 0).pictures
        == ()
    )


def test_wrong_records_copies_and_ids_of_two_are_named_and_the_others_come(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [{"id": "a", "conversations": talk("q", "a")}, {"id": "a", "conversations": talk("q", "b")}]
    rows += [{"id": "a", "conversations": talk("q", "b")}, {"conversations": talk("q")}, {"messages": chat("q", "a")}]
    path.write_text("\n".join(map(json.dumps, rows)))
    problems = Problems(strict=False)
    assert [conversation.id for conversation in read_conversations(path, problems)] == ["a", "a#1", "a#2", "record 4"]
    assert [sentence.partition(": ")[0] for sentence in problems.sentences] == [f"{path}:4", f"{path}"]
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[0]])))
    problems = Problems(strict=False)
    assert [conversation.id for conversation in read_conversations(path, problems)] == ["a"]
    assert "another record has the id a. Give each one of its own" in problems.sentences[0]
    with pytest.raises(InputError, match=r"t\.jsonl:2: record 1: another record has the id a"):
        list(read_conversations(path, Problems(strict=True)))
