"""Dialogues in lines of text."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

import linkcontext
from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach import vocabulary
from linkcontext.teach.chat import chat, input_lines, reply_lines, split_line
from linkcontext.teach.dialogue import Dialogue
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import Pack, read_pack
from linkcontext.teach.pack_file import stamp
from linkcontext.teach.pack_writing import write_pack


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


def dialogue(model):
    return Dialogue(Learner(model))


def test_a_line_begins_with_its_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my zoo").mkdir()
    for name in ("a.png", "b.PNG", "my zoo/1.png", "my zoo/2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    assert split_line("a.png") == ([Path("a.png")], "")
    assert split_line("a.png: it's a cactihog") == ([Path("a.png")], "it's a cactihog")
    assert split_line("a.png b.PNG these are mine") == ([Path("a.png"), Path("b.PNG")], "these are mine")
    assert split_line('"my zoo/1.png": what is this?') == ([Path("my zoo/1.png")], "what is this?")
    assert split_line("my zoo/1.png: what is this?") == ([Path("my zoo/1.png")], "what is this?")
    assert split_line('"my zoo/": these are mine')[0] == [Path("my zoo/1.png"), Path("my zoo/2.png")]
    assert split_line("[ab].*: these are mine") == ([], "[ab].*: these are mine")
    assert split_line("?.png: these are mine") == ([Path("a.png")], "these are mine")
    assert split_line("what is in b.png") == ([], "what is in b.png")  # no such file
    for line in ("what is in a.png", "what is in 'b.PNG'?"):
        with pytest.raises(InputError, match="a line begins with its picture"):
            split_line(line)


def test_lines_are_answered_until_quit(nano, paths, monkeypatch):
    monkeypatch.setattr(vocabulary, "SMALL", 0)  # as if the model could write any word
    talk, heard = dialogue(linkcontext.load(str(nano)).model), []
    monkeypatch.setattr(talk.learner, "say", lambda *_: "orange")
    lines = [f'/teach "red fox" {paths[0][0]} {paths[0][1]}', "/forget plimbo", "", "/dance", "/teach", "/teach 'a"]
    lines += [f"{paths[1][0].parent}/*2.png: these are mine", "/names", "/ask nowhere.png", "/help", "/quit", "/names"]
    chat(talk, [line + "\n" for line in lines], heard.append)
    assert heard[0] == "red fox: 2 pictures."
    assert heard[1].startswith("! 'plimbo' was not taught")
    assert heard[2] == "! /dance: no such command. /help lists them."
    assert heard[3].startswith("! the name is missing")
    assert heard[4].startswith("! 'a: a quote is not closed")
    assert heard[5].startswith("mine: ")
    assert heard[6] == "red fox: 2 pictures"
    assert "tokens of the context are used" in heard[8]
    assert heard[9].startswith("! nowhere.png: no such picture")
    assert "/forget NAME" in heard[10]
    assert len(heard) == 11
    (said,) = reply_lines(talk, "/forget red fox")
    assert said == "red fox is forgotten."
    for line in ("quit", "/exit", "Quit"):
        chat(talk, [line, "/dance"], lambda _: pytest.fail("the dialogue went on"))
    assert list(reply_lines(talk, "help")) == list(reply_lines(talk, "/help"))
    said, about = reply_lines(talk, f"{paths[0][3]}: what colour is it?")
    assert str(paths[0][3]) in about


def test_after_a_refused_line_no_older_picture_is_corrected(nano, paths):
    """The pictures that "no, it is a NAME" is about were refused; those of the line before are not meant."""
    talk, lines = dialogue(linkcontext.load(str(nano)).model), []
    right, wrong = f"{paths[0][0]}: this is a dax", f"{paths[0][1].parent}/nowhere.png"
    for refused in (wrong, f"{paths[0][1]} {paths[0][2]}", f"/teach dax {wrong}"):
        chat(talk, [right, refused, "no, it is a wug", "it is called raining"], lines.append)
        assert [line[:1] for line in lines[-3:]] == ["!"] * 3
        assert "which picture is meant" in lines[-1]
    assert list(talk.learner.pictures.by_name) == ["dax"]
    chat(talk, [right, "it is raining", "/dance", "no, it is called raining"], lines.append)  # lines without pictures
    assert list(talk.learner.pictures.by_name) == ["raining"]


def test_undo_is_a_line(nano, paths):
    talk, shown = dialogue(LocalModel(load_model(str(nano)))), []
    lines = [f"{paths[0][0]}: this is a cactihog", "/undo", "undo", "/undo now", "/names"]
    chat(talk, lines, shown.append)
    assert shown == [
        "cactihog: 1 picture.",
        "Undone. cactihog: not taught.",
        "! there is nothing to undo: nothing was taught, corrected or forgotten in this dialogue.",
        "! /undo takes nothing behind it: it takes back the last lesson, correction or /forget.",
        "No names are taught yet. Show a picture: 'cat.png: this is a cactihog'",
    ]


def test_words_without_a_slash_and_names_of_several_words_are_understood(nano, paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(paths[0][0].parent, tmp_path / "zoo" / "dax")
    talk = dialogue(linkcontext.load(str(nano)).model)
    assert next(reply_lines(talk, f"/teach ankle boot {paths[1][0]}")) == "ankle boot: 1 picture."
    assert next(reply_lines(talk, f"{paths[2][0]}, {paths[2][1]}: these are wugs")) == "wugs: 2 pictures."
    assert [*reply_lines(talk, "names")][:2] == ["ankle boot: 1 picture", "wugs: 2 pictures"]
    assert [*reply_lines(talk, "remove wugs")] == ["wugs is forgotten."]
    for line, sentence in (
        ("zoo/daxx/: these are mine", "zoo/daxx: no such picture. Did you mean zoo/dax?"),
        ("zoo/: these are mine", "zoo/: there are no pictures. Name a folder in it."),
        ("/save", "name the pack to write: /save zoo.pack"),
    ):
        with pytest.raises(InputError) as refused:
            [*reply_lines(talk, line)]
        assert str(refused.value).startswith(sentence)


def test_a_pack_that_a_dialogue_began_with_may_be_written_again(nano, paths, tmp_path):
    learner = linkcontext.load(str(nano))
    learner.teach({"dax": paths[0][:2], "wug": paths[1][:2]})
    learner.save(tmp_path / "zoo.pack")
    shutil.copy(tmp_path / "zoo.pack", tmp_path / "other.pack")
    talk = Dialogue(learner, packs={tmp_path / "zoo.pack": stamp(tmp_path / "zoo.pack")})
    talk.teach("tove", paths[2][:2])
    with pytest.raises(InputError, match="exists already"):
        [*reply_lines(talk, f"/save {tmp_path / 'other.pack'}")]
    for line in (f"/save {tmp_path / 'zoo.pack'}", "save"):
        assert "3 names, 6 pictures" in next(iter(reply_lines(talk, line)))
    assert Pack.open(tmp_path / "zoo.pack").concepts.keys() == {"dax", "wug", "tove"}
    write_pack(learner, tmp_path / "zoo.pack", keep_state=False)  # another program
    with pytest.raises(InputError, match="another program has changed it since"):
        [*reply_lines(talk, "/save")]
    talk.packs = {tmp_path / "zoo.pack": stamp(tmp_path / "zoo.pack")}
    assert "without the KV cache" in next(iter(reply_lines(talk, "/save")))  # a pack without state stays without


def test_what_was_taught_in_lines_is_kept_in_a_pack(nano, paths, tmp_path):
    talk, heard = dialogue(linkcontext.load(str(nano)).model), []
    talk.licence = "CC0"
    kept = tmp_path / "my zoo.pack"
    chat(talk, [f"/teach fox {paths[0][0]}", f'/save "{kept}"', "/save"], heard.append)
    assert heard[1].startswith("! ") and "at least two names" in heard[1]
    assert heard[2].startswith("! ")
    assert not list(tmp_path.iterdir())
    chat(talk, [f"/teach owl {paths[1][0]}", f'/save "{kept}"', f"/save {kept}"], heard.append)
    assert not any(line.startswith("! ") for line in heard[3:])  # written again: it is this dialogue's own
    pack = read_pack(kept)
    assert {name: len(items) for name, items in pack.concepts.items()} == {"fox": 1, "owl": 1}
    assert pack.licence == "CC0"
    again = pack.learner(talk.learner.model)
    assert again.ask(paths[0][1]).probabilities == pytest.approx(talk.learner.ask(paths[0][1]).probabilities, abs=1e-5)


def test_no_line_ends_the_dialogue(nano, paths, tmp_path, monkeypatch):
    """Words that are too long to be a path, patterns, zero bytes, bytes that are no text: an answer or a sentence."""
    monkeypatch.chdir(tmp_path)
    talk = dialogue(LocalModel(load_model(str(nano))))
    long, picture = "a" * 300, paths[0][0]
    replies = []
    chat(talk, [f"{picture}: this is a fox", f"{long}: what is this?", long], replies.append)
    assert not any(reply.startswith("!") for reply in replies)  # those are words
    lines = [
        *(f"/ask {long}.png", f"{long}.png: what?", f"/teach x {long}/*.png", f"/teach x {long}.png", f"/save {long}"),
        *("/teach x a**.png", "/teach x '**b/*.png'", "a\0b.png", "/teach x a\0/*.png", "/save a\0b"),
        *(f"{picture}: caf\udce9, what colour?", f"/teach caf\udce9 {picture}", "\udce9.png", "/forget \udce9"),
    ]
    for line in lines:
        replies.clear()
        chat(talk, [line], replies.append)
        assert replies[0].startswith("! "), line


def test_without_stdin_a_dialogue_ends(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert list(input_lines(lambda _: None)) == []
