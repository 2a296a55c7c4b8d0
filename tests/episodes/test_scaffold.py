"""Wording and labels, by hand."""

import json

import pytest

from linkcontext.episodes.render import IGNORE, Tokens, colour_labels, encode, expand_placeholders
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages, image_ids, load_scaffold, query_messages
from linkcontext.episodes.special_tokens import marks_pattern
from linkcontext.errors import InputError
from linkcontext.records import Candidate, Episode, Turn


class Letters:
    """A tokenizer of one character a token, with a template that marks the speakers."""

    marks = marks_pattern(["<|end|>", "<image>"])
    ends, end_mark, gap = {ord("."): "."}, ".", ""

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        assert not tokenize
        text = ""
        for message in messages:
            said = "".join("#" if part["type"] == "image" else part["text"] for part in message["content"])
            text += {"user": "U", "assistant": "A", "system": "S"}[message["role"]] + said
            text += "." if message["role"] == "assistant" else ""
        return text + ("A" if add_generation_prompt else "")

    def __call__(self, text, *, return_offsets_mapping):
        assert return_offsets_mapping
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}


SUPPORT = (
    Turn("one", "a", "xx"),
    Turn("two", "b", "yyy"),
    Turn("three", "b", "yyy"),
    Turn("four", "a", "xx"),
)
EPISODE = Episode(
    "e",
    "link",
    "pseudo",
    2,
    (0, 1, 2),
    (Candidate("a", "xx", "ant"), Candidate("b", "yyy", "bee")),
    SUPPORT,
    (Turn("q", "b", "yyy"),),
)


def text_of(ids):
    return "".join(map(chr, ids))


def test_turns_by_hand():
    messages = query_messages(EPISODE, 0, 1, SCAFFOLDS["turns"], "yyy")
    tokens = encode(messages, Letters(), "every")
    assert text_of(tokens.ids) == "U#What is this?Axx.U#What is this?Ayyy.U#What is this?Ayyy."
    labelled = "".join(chr(i) if i != IGNORE else "_" for i in tokens.labels)
    assert labelled == "________________xx.________________yyy.________________yyy."
    assert tokens.pictures == ("one", "two", "q")


def test_a_turn_without_an_item_has_no_picture():
    query = Turn("q", "", "")
    for words in SCAFFOLDS.values():
        seen, unseen = (build_messages([Turn(item, "", "lum")], words, query) for item in ("a", ""))
        assert (image_ids(seen), image_ids(unseen)) == (["a", "q"], ["q"])
        assert unseen == [{**m, "content": [p for p in m["content"] if p.get("image") != "a"]} for m in seen]


def test_single_turn_and_lcl_by_hand():
    single = encode(query_messages(EPISODE, 0, 1, SCAFFOLDS["single_turn"]), Letters(), "none", reply=True)
    assert text_of(single.ids) == "U#What is this? xx\n#What is this? yyy\n#What is this?A"
    lcl = encode(query_messages(EPISODE, 0, 1, SCAFFOLDS["lcl"], "yyy"), Letters(), "last")
    text = text_of(lcl.ids)
    assert "U[BEGIN EXAMPLE] What is in the image #?A" in text
    assert 'there is "xx" in the image. [END EXAMPLE].' in text
    assert "U[FINAL QUESTION]: Based on the previous examples, What is in the image #?A" in text
    assert text_of(i for i in lcl.labels if i != IGNORE) == 'there is "yyy" in the image..'


@pytest.mark.parametrize("name", list(SCAFFOLDS))
@pytest.mark.parametrize("shots_per_class", [0, 1, 2])
def test_the_prompt_is_the_beginning_of_the_conversation(name, shots_per_class):
    asked = encode(query_messages(EPISODE, 0, shots_per_class, SCAFFOLDS[name]), Letters(), "none", reply=True)
    for candidate in EPISODE.candidates:
        told = encode(query_messages(EPISODE, 0, shots_per_class, SCAFFOLDS[name], candidate.name), Letters())
        assert told.ids[: len(asked.ids)] == asked.ids
        assert set(told.labels[: len(asked.ids)]) == {IGNORE}
    assert len(asked.pictures) == 2 * shots_per_class + 1


def test_an_answer_that_stands_in_the_question_is_found_where_it_is_answered():
    turn = Turn("p", "a", "What", question="What is What?")
    tokens = encode(build_messages([turn], SCAFFOLDS["turns"]), Letters(), "every")
    assert [i for i, label in enumerate(tokens.labels) if label != IGNORE] == [16, 17, 18, 19, 20]


def test_an_answer_that_stands_in_the_template_is_found_where_it_is_answered():
    """`A` is how the template marks the assistant."""
    tokens = encode(build_messages([Turn("p", "a", "A"), Turn("q", "a", "U#")], SCAFFOLDS["turns"]), Letters(), "every")
    assert text_of(tokens.ids) == "U#What is this?AA.U#What is this?AU#."
    assert [i for i, label in enumerate(tokens.labels) if label != IGNORE] == [16, 17, 34, 35, 36]


def test_a_template_that_rewrites_what_is_said_is_refused():
    class Shouting(Letters):
        def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
            text = super().apply_chat_template(messages, tokenize=tokenize, add_generation_prompt=add_generation_prompt)
            return text.upper()

    with pytest.raises(InputError, match="chat template changes the texts"):
        encode(build_messages(SUPPORT, SCAFFOLDS["turns"]), Shouting(), "every")


def test_expand_by_hand():
    tokens = Tokens((1, 7, 2, 7), (IGNORE, IGNORE, 2, IGNORE), ("a", "b"))
    found = expand_placeholders(tokens, 7, {"a": 2, "b": 3}.__getitem__)
    assert found.ids == (1, 7, 7, 2, 7, 7, 7)
    assert found.labels == (IGNORE, IGNORE, IGNORE, 2, IGNORE, IGNORE, IGNORE)
    with pytest.raises(InputError, match="fewer placeholders"):
        expand_placeholders(Tokens((1, 7), (IGNORE, IGNORE), ("a", "b")), 7, lambda _: 1)


def test_the_hash_tells_pictures_and_words_apart():
    hashes = {Tokens(ids, ids, shown).sha256() for ids, shown in (((1, 2), ("a",)), ((1, 2), ("b",)), ((1, 3), ("a",)))}
    assert len(hashes) == 3


def test_pictures_in_order():
    assert image_ids(query_messages(EPISODE, 0, 2, SCAFFOLDS["single_turn"])) == ["one", "two", "three", "four", "q"]


def test_coloured_shows_what_carries_loss():
    shown = colour_labels(Tokens((65, 66), (IGNORE, 66), ()), text_of)
    assert shown == "[dim]A[/][bold green]B[/]"


def test_a_scaffold_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    fields = {
        "name": "mine",
        "support": "{image} {question}",
        "support_answer": "a {answer}",
        "query": "{image}",
        "query_answer": "a {answer}",
    }
    path.write_text(json.dumps(fields))
    assert load_scaffold(str(path)).support_answer == "a {answer}"
    path.write_text(json.dumps({**fields, "query": "no picture"}))
    with pytest.raises(InputError, match=r"`query` must contain \{image\} exactly once"):
        load_scaffold(str(path))
    for content, sentence in (("{", "not JSON"), ("[1]", "JSON object"), ("[" * 100_000, "nested too deeply")):
        path.write_text(content)
        with pytest.raises(InputError, match=sentence):
            load_scaffold(str(path))
    with pytest.raises(InputError, match="neither one of turns"):
        load_scaffold("nowhere")
