"""Concept packs: what was taught, in one file."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from linkcontext.cli import main
from linkcontext.episodes.prompt import conversation
from linkcontext.errors import InputError
from linkcontext.models import vision
from linkcontext.models.features import fingerprint
from linkcontext.models.load import load
from linkcontext.models.score import Scorer
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner, Point
from linkcontext.teach.pack import merge, named_pictures, read_pack, write_pack

NAMES = ("lum", "dax", "tove")


@pytest.fixture(scope="module")
def model(nano):
    return load(str(nano))


@pytest.fixture
def folder(tmp_path):
    """Three classes of eight pictures, and one picture of each to ask about."""
    dataset = open_data("world:3")
    for name, items in zip(NAMES, list(dataset.by_class().values())[::5], strict=False):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for item in items[:8]:
            shutil.copy(dataset.path(item.id), tmp_path / "zoo" / name)
        shutil.copy(dataset.path(items[9].id), tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def learner(model, folder):
    found = Learner(model)
    found.teach(named_pictures(open_data(str(folder / "zoo"))))
    return found


def same(a, b):
    assert a.probabilities == pytest.approx(b.probabilities, rel=0, abs=1e-5)
    assert (a.name, a.nearest) == (b.name, b.nearest)


def test_a_pack_answers_as_the_learner_did_without_its_pictures(model, folder, learner, monkeypatch):
    before = [learner.ask(folder / f"{name}.png") for name in NAMES]
    write_pack(learner, folder / "zoo.pack", licence="CC0")
    shutil.rmtree(folder / "zoo")
    pack = read_pack(folder / "zoo.pack")
    assert pack.licence == "CC0"
    assert list(pack.concepts) == sorted(NAMES)
    found = pack.learner(model)
    monkeypatch.setattr(Scorer, "hold", lambda *_: pytest.fail("the support was run again"))
    for name, earlier in zip(NAMES, before, strict=True):
        same(found.ask(folder / f"{name}.png"), earlier)
    assert found.scorer.eyes.calls == len(NAMES)
    assert found.point == learner.point == pack.point
    assert all(data.startswith(b"\x89PNG") for data in found.thumbnails.values())


def test_names_are_taken_away_changed_and_put_together_in_place(model, folder, learner):
    write_pack(learner, folder / "zoo.pack")
    shutil.rmtree(folder / "zoo")
    found = read_pack(folder / "zoo.pack").learner(model)
    found.forget("dax")
    found.rename("lum", "wug")
    assert list(found.ask(folder / "lum.png").probabilities) == ["wug", "tove"]
    write_pack(found, folder / "zoo.pack")
    again = read_pack(folder / "zoo.pack").learner(model)
    same(again.ask(folder / "dax.png"), found.ask(folder / "dax.png"))
    whole = Learner(model)
    merge(whole, learner)
    with pytest.raises(InputError, match="tove: taught in both"):
        merge(whole, again)
    again.forget("tove")
    again.shown["axo"] = again.shown["wug"]
    with pytest.raises(InputError, match="is 'lum' here and"):
        merge(whole, again)
    with pytest.raises(InputError, match=r"'dax' was not taught\. The names are: wug"):
        again.forget("dax")
    with pytest.raises(InputError, match="is taught already"):
        whole.rename("lum", "dax")


def test_another_model_is_taught_from_the_pictures_if_they_are_there(model, folder, learner):
    write_pack(learner, folder / "zoo.pack")
    other = load("mini-base")
    taught = Learner(other)
    taught.teach(named_pictures(open_data(str(folder / "zoo"))))
    same(read_pack(folder / "zoo.pack").learner(other).ask(folder / "lum.png"), taught.ask(folder / "lum.png"))
    (folder / "zoo" / "lum" / "0000.png").unlink()
    with pytest.raises(InputError, match=r"1 of 24 are gone or have changed: .*0000.png. Put them back"):
        read_pack(folder / "zoo.pack").learner(other)


def test_a_pack_that_was_cut_or_edited_is_refused(folder, learner):
    path = folder / "zoo.pack"
    write_pack(learner, path)
    whole = path.read_bytes()
    for bytes_, why in (
        (whole[: len(whole) // 2], "damaged one"),
        (whole.replace(b'\\"lum\\"', b'\\"lam\\"', 1), "not what was written"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "not what was written"),
        (b"", "damaged one"),
        (b"\x89PNG\r\n", "damaged one"),
    ):
        path.write_bytes(bytes_)
        with pytest.raises(InputError, match=why):
            read_pack(path)
    with pytest.raises(InputError, match="no such pack"):
        read_pack(folder / "nowhere.pack")


def test_bad_names_teach_nothing(learner, folder):
    shown = {name: list(items) for name, items in learner.shown.items()}
    picture = folder / "lum.png"
    (folder / "text.png").write_text("no picture")
    for named, why in (
        ({"a" * 500: [picture]}, "at most 100 letters"),
        ({"a\x1b[31m": [picture]}, "can be printed"),
        ({"LUM": [picture]}, "differ in case alone"),
        ({"new": [picture], "newer": [picture]}, "is shown as 'new' and as 'newer'"),
        ({"new": [picture], "bad": [folder / "text.png"]}, "not a picture"),
    ):
        with pytest.raises(InputError, match=why):
            learner.teach(named)
        assert learner.shown == shown
    learner.teach({"<b>wug</b>": [picture]})
    learner.teach({"lum": [picture]})  # the last word counts, and a name without pictures is gone
    assert list(learner.shown) == sorted(NAMES)
    assert len(learner.shown["lum"]) == 9


def test_what_is_like_none_of_them_is_said_so(model, folder, learner):
    """By hand: ten pictures at e1 but for one at 60 degrees towards e3, and ten at e2. Nineteen of twenty are kept."""
    found = Learner(model, shown={"a": [f"a{i}" for i in range(10)], "b": [f"b{i}" for i in range(10)]})
    vectors = {**dict.fromkeys(found.shown["a"], (1.0, 0.0, 0.0)), **dict.fromkeys(found.shown["b"], (0.0, 1.0, 0.0))}
    vectors["a7"] = (0.5, 0.0, 0.75**0.5)
    seen = next(iter(learner.seen.values()))
    found.seen = {item: replace(seen, pooled=torch.tensor(vector)) for item, vector in vectors.items()}
    # The others of an e1: eight at e1 and the one aside, whose mean has the cosine 8.5 / sqrt(8.5^2 + .75) with it.
    beside = 8.5 / (8.5**2 + 0.75) ** 0.5
    assert found.point == Point(pytest.approx((0.5 + beside) / 2), 0.95, 1.0, 20)
    learner.forget("dax")
    assert learner.point is None  # 16 pictures are too few
    assert learner.ask(folder / "dax.png").name is not None


def test_the_command_line_teaches_asks_and_changes(nano, folder, capsys):
    pack = str(folder / "zoo.pack")
    main(["teach", "--data", str(folder / "zoo"), "--model", str(nano), "--out", pack, "--classes", "dax", "lum"])
    assert "2 names, 16 pictures" in capsys.readouterr().out
    main(["teach", "--data", str(folder / "zoo"), "--out", pack, "--classes", "tove", "--licence", "CC0"])
    main(["ask", pack, str(folder / "lum.png"), str(folder / "dax.png"), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [set(line["probabilities"]) for line in lines] == [set(NAMES)] * 2
    assert all(near["path"].startswith(str(folder)) for near in lines[0]["nearest"])
    main(["ask", pack, str(folder / "lum.png")])
    main(["pack", pack, "--rename", "lum", "wug", "--remove", "dax"])
    out = capsys.readouterr().out
    assert "Of the 24 pictures, each left out in turn" in out
    assert "wug: 8 pictures" in out
    with pytest.raises(SystemExit):
        main(["ask", pack, str(folder / "nowhere.png")])
    assert "nowhere.png: no such picture." in capsys.readouterr().err


def test_a_forged_pack_is_a_sentence(folder, learner):
    pack = write_pack(learner, folder / "zoo.pack")
    kept, told = pack.tensors, pack.told
    for forged in (
        "{",
        "[]",
        json.dumps({**told, "format": "linkcontext.pack/9"}),
        json.dumps({key: value for key, value in told.items() if key != "held"}),
        json.dumps({**told, "concepts": {"lum": ["/etc/passwd"]}}),
        json.dumps({**told, "concepts": {"l" * 500: told["concepts"]["lum"]}}),
        json.dumps({**told, "shots_per_class": -1}),
        json.dumps({**told, "select": "best"}),
    ):
        save_file(kept, folder / "forged.pack", {"pack": forged, "digest": fingerprint(kept, forged)})
        with pytest.raises(InputError, match="a damaged one"):
            read_pack(folder / "forged.pack")


def test_what_was_taught_stays_at_hand_however_much_is_seen(model, folder, learner, monkeypatch):
    before = learner.ask(folder / "lum.png")
    write_pack(learner, folder / "zoo.pack")
    shutil.move(folder / "zoo", folder / "moved")
    monkeypatch.setattr(vision, "MEMORY", 1)
    found = read_pack(folder / "zoo.pack").learner(model)
    for name in ("dax", "tove", "lum"):
        answer = found.ask(folder / f"{name}.png")
    same(answer, before)
    found.teach(named_pictures(open_data(str(folder / "moved"))))  # pictures that moved are known where they are now
    assert all(found.path(item).is_file() for items in found.shown.values() for item in items)


def test_a_longer_name_leaves_room_for_fewer_pictures(model, folder, learner, monkeypatch):
    most = learner.scorer.length(conversation(learner.rounds, learner.scaffold, learner.query(folder / "lum.png")))
    network = replace(model)
    monkeypatch.setattr(type(network), "context", property(lambda self: most + 12))  # and an answer
    fresh = Learner(network)
    fresh.teach(named_pictures(open_data(str(folder / "zoo"))))
    assert len(fresh.rounds) == 24
    fresh.rename("lum", "a name that winds and winds")
    assert len(fresh.rounds) < 24
    assert set(fresh.ask(folder / "lum.png").probabilities) == set(fresh.shown)


def test_packs_keep_how_they_were_written(nano, folder, capsys):
    pack, other = str(folder / "zoo.pack"), str(folder / "other.pack")
    base = ["teach", "--data", str(folder / "zoo"), "--model", str(nano)]
    main([*base, "--out", pack, "--classes", "dax", "lum", "--no-state"])
    main(["pack", pack, "--licence", "CC0"])
    assert "without keys and values" in capsys.readouterr().out.splitlines()[-5]
    main([*base, "--out", pack, "--classes", "lum"])
    assert "without keys and values" in capsys.readouterr().out
    for arguments, why in (
        ([*base, "--out", pack, "--select", "random"], "--select: .* is settled"),
        ([*base, "--out", other, "--classes", "dax"], "at least two are needed"),
        ([*base, "--out", other, "--shots-per-class", "-1"], "at least one picture of each name"),
        ([*base, "--out", other, "--select", "rices"], "say with --shots-per-class"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert re.search(why, " ".join(capsys.readouterr().err.split()))
    other_zoo = folder / "others"
    shutil.copytree(folder / "zoo" / "tove", other_zoo / "axo")
    (other_zoo / "yex").mkdir()
    shutil.copy(folder / "lum.png", other_zoo / "yex")
    main(["teach", "--data", str(other_zoo), "--model", str(nano), "--out", other, "--licence", "CC-BY-NC"])
    with pytest.raises(SystemExit):
        main(["pack", pack, "--merge", other])
    assert "'CC-BY-NC', 'CC0'. Say with --licence" in " ".join(capsys.readouterr().err.split())
    main(["pack", pack, "--merge", other, "--licence", "CC-BY-NC"])
    assert set(read_pack(folder / "zoo.pack").concepts) == {"dax", "lum", "axo", "yex"}


def test_models_are_loaded_as_the_flags_say(nano, folder, capsys):
    pack, base = str(folder / "zoo.pack"), ["--model", str(nano)]
    main(["teach", "--data", str(folder / "zoo"), *base, "--out", pack, "--dtype", "bfloat16"])
    kept = read_pack(folder / "zoo.pack")
    assert torch.bfloat16 in {row.dtype for name, row in kept.tensors.items() if name.startswith("held/")}
    shutil.move(folder / "zoo", folder / "moved")
    main(["ask", pack, str(folder / "lum.png"), "--dtype", "bfloat16"])  # the model it was taught to
    capsys.readouterr()
    with pytest.raises(SystemExit):  # in float32 it is another, which has to see the pictures again
        main(["ask", pack, str(folder / "lum.png")])
    assert "are gone or have changed" in " ".join(capsys.readouterr().err.split())
    for arguments in (
        ["teach", "--data", str(folder / "moved"), *base, "--out", str(folder / "other.pack")],
        ["ask", pack, str(folder / "lum.png")],
        ["pack", pack, "--remove", "lum"],
        ["chat", "--pack", pack],
        ["app", *base],
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--device", "cuda:99"])
        assert stopped.value.code == 2
        assert "--device cuda:99" in capsys.readouterr().err


def test_a_mark_of_the_model_is_no_name(learner, folder):
    with pytest.raises(InputError, match="one of the model's own marks"):
        learner.teach({"<image>": [folder / "lum.png"]})
