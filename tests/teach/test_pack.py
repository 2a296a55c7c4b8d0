"""Concept packs: what was taught, in one file."""

import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from linkcontext.cli import main
from linkcontext.episodes.scaffold import build_messages
from linkcontext.errors import InputError
from linkcontext.inference import vision
from linkcontext.jsonl import to_json
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach import support
from linkcontext.teach.class_pictures import pictures_by_class_name
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_learner import _shown
from linkcontext.teach.pack_writing import write_pack
from linkcontext.teach.rejection import OperatingPoint, RejectionThreshold
from linkcontext.teach.support import interleave
from linkcontext.teach.taught_pictures import TaughtPictures

NAMES = ("lum", "dax", "tove")


@pytest.fixture(scope="module")
def model(nano):
    return LocalModel(load_model(str(nano)))


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def fill(tmp_path):
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
    found.teach(pictures_by_class_name(open_data(str(folder / "zoo"))))
    return found


def read_metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


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
    monkeypatch.setattr(LocalModel, "prefill", lambda *_: pytest.fail("the support was run again"))
    for name, earlier in zip(NAMES, before, strict=True):
        same(found.ask(folder / f"{name}.png"), earlier)
    assert found.model.eyes.calls == len(NAMES)
    assert found.estimate_rejection_threshold() == learner.estimate_rejection_threshold() == pack.rejection_threshold
    assert all(data.startswith(b"\x89PNG") for data in found.pictures.thumbnails.values())


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
    whole.pictures.merge(learner.pictures)
    with pytest.raises(InputError, match="tove: taught in both"):
        whole.pictures.merge(again.pictures)
    again.forget("tove")
    again.pictures.by_name["axo"] = again.pictures.by_name["wug"]
    with pytest.raises(InputError, match="is 'lum' here and"):
        whole.pictures.merge(again.pictures)
    with pytest.raises(InputError, match=r"'dax' was not taught\. .*The names are: wug"):
        again.forget("dax")
    whole.rename("lum", "dax")  # one thing under two names
    assert {name: len(own) for name, own in whole.pictures.by_name.items()} == {"dax": 16, "tove": 8}
    assert len(set(whole.pictures.by_name["dax"])) == 16


def test_another_model_is_taught_from_the_pictures_if_they_are_there(model, folder, learner):
    write_pack(learner, folder / "zoo.pack")
    other = LocalModel(load_model("mini-base"))
    taught = Learner(other)
    taught.teach(pictures_by_class_name(open_data(str(folder / "zoo"))))
    same(read_pack(folder / "zoo.pack").learner(other).ask(folder / "lum.png"), taught.ask(folder / "lum.png"))
    (folder / "zoo" / "lum" / "0000.png").unlink()
    with pytest.raises(InputError, match=r"1 of 24 are gone or have changed: .*0000.png.* Put them back"):
        read_pack(folder / "zoo.pack").learner(other)


def test_a_pack_that_was_cut_or_edited_is_refused(folder, learner):
    path = folder / "zoo.pack"
    write_pack(learner, path)
    whole = path.read_bytes()
    for bytes_, why in (
        (whole[: len(whole) // 2], "or damaged"),
        (whole.replace(b'\\"lum\\"', b'\\"lam\\"', 1), "not what was written"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "not what was written"),
        (b"", "or damaged"),
        (b"\x89PNG\r\n", "or damaged"),
    ):
        path.write_bytes(bytes_)
        with pytest.raises(InputError, match=why):
            read_pack(path)
    with pytest.raises(InputError, match="no such pack"):
        read_pack(folder / "nowhere.pack")


def test_bad_names_teach_nothing(learner, folder):
    shown = {name: list(items) for name, items in learner.pictures.by_name.items()}
    picture = folder / "lum.png"
    (folder / "text.png").write_text("no picture")
    for named, why in (
        ({"a" * 500: [picture]}, "at most 100 letters"),
        ({"a\x1b[31m": [picture]}, "printable"),
        ({"LUM": [picture]}, "differ only in case"),
        ({"l\u200dum": [picture]}, "differ only in case or in invisible"),
        ({"\u3164": [picture]}, "the name is blank"),
        ({"\u200d": [picture]}, "the name is blank"),
        ({"new": [picture], "newer": [picture]}, "has the name 'new' and the name 'newer'"),
        ({"new": [picture], "bad": [folder / "text.png"]}, "not a picture"),
    ):
        with pytest.raises(InputError, match=why):
            learner.teach(named)
        assert learner.pictures.by_name == shown
    learner.teach({"<b>wug</b>": [picture]})
    learner.teach({"lum": [picture]})  # the last word counts, and a name without pictures is gone
    assert list(learner.pictures.by_name) == sorted(NAMES)
    assert len(learner.pictures.by_name["lum"]) == 9


def test_what_is_like_none_of_them_is_said_so(model, folder, learner):
    """By hand: ten pictures at e1 but for one at 60 degrees towards e3, and ten at e2. Nineteen of twenty are kept."""
    by_name = {name: [f"{name}{i}" for i in range(10)] for name in "ab"}
    vectors = {**dict.fromkeys(by_name["a"], (1.0, 0.0, 0.0)), **dict.fromkeys(by_name["b"], (0.0, 1.0, 0.0))}
    vectors["a7"] = (0.5, 0.0, 0.75**0.5)
    rows = {item: {"tokens": torch.tensor([vector])} for item, vector in vectors.items()}
    found = Learner(model, pictures=TaughtPictures(by_name, vectors=rows))
    # Left out, nineteen have a copy of themselves among the others, and the one aside a cosine of .5.
    assert found.estimate_rejection_threshold() == RejectionThreshold(0.75, 0.95, 1.0, 20)
    found.point = OperatingPoint(accept=1.0)
    assert found.estimate_rejection_threshold() == RejectionThreshold(0.25, 1.0, 1.0, 20)
    learner.forget("dax")
    assert learner.estimate_rejection_threshold() is None  # 16 pictures are too few
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
    out, notes = capsys.readouterr()
    assert "With each of the 24 pictures left out in turn" in notes
    assert "wug: 8 pictures" in out
    main(["ask", pack, str(folder / "zoo" / "tove"), str(folder / "lum.png"), "--json", "--quiet"])
    out, notes = capsys.readouterr()
    pictures = [Path(json.loads(line)["picture"]).name for line in out.splitlines()]
    assert pictures == [*(f"{number:04}.png" for number in range(8)), "lum.png"]  # of a folder all
    assert notes == ""
    for given, sentence in (
        (folder / "nowhere.png", "nowhere.png: no such picture."),
        (folder / "lumm.png", f"lumm.png: no such picture. Did you mean {folder / 'lum.png'}?"),
        (folder / "zoo", f"a folder without pictures in it. Name the folders in it: {folder}/zoo/*\n"),
        ("https://example.org/lum.png", "an address. Pictures are never fetched: save the picture"),
    ):
        with pytest.raises(SystemExit):
            main(["ask", pack, str(given)])
        assert sentence in capsys.readouterr().err


@pytest.fixture
def zoo(learner, folder):
    return write_pack(learner, folder / "zoo.pack")


@pytest.fixture(scope="module")
def base(model, tmp_path_factory):
    """A pack that no test changes."""
    folder, learner = fill(tmp_path_factory.mktemp("base")), Learner(model)
    learner.teach(pictures_by_class_name(open_data(str(folder / "zoo"))))
    return write_pack(learner, folder / "zoo.pack")


def forge(pack, path, tensors=None, text=None, seal=None, **changes):
    """A pack with a valid digest that says something else."""
    tensors = pack.tensors if tensors is None else tensors
    text = json.dumps(json.loads(to_json(pack.header)) | changes) if text is None else text
    metadata = {"pack": text, "digest": fingerprint(tensors, text)} | ({} if seal is None else {"seal": seal})
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": "linkcontext.pack/9"}, "its format is"),
        ({"text": "{"}, "not JSON"),
        ({"text": "[]"}, "its format is"),
        ({"text": "[" * 100_000}, "nested too deeply"),
        ({"text": '{"format": ' + "9" * 5_000 + "}"}, "a number is too long"),
        ({"held": None}, "held must be"),
        ({"surprise": 1}, "unknown surprise"),
        ({"concepts": {"lum": ["/etc/passwd"], "dax": ["x"]}}, "not one of 64 digits"),
        ({"concepts": {"lum": [], "dax": []}}, "has no picture"),
        ({"concepts": []}, "concepts must be an object"),
        ({"shots_per_class": -1}, "shots_per_class must be at least 1"),
        ({"shots_per_class": True}, "shots_per_class must be a whole number"),
        ({"shots_per_class": 10**400}, "shots_per_class must be a whole number"),
        ({"select": "best"}, "select must be one of"),
        ({"select": "rices"}, "select is rices, which needs shots_per_class"),
        ({"rounds": [["x", "lum"]]}, "rounds has pictures under other names"),
        ({"leaning": [0.0]}, "leaning does not have one number for each name"),
        ({"leaning": ["x", 0, 0]}, "leaning must be a finite number"),
        ({"point": {"fit": 2, "kept": 1, "refused": 1, "pictures": 24}}, "point has impossible values"),
        ({"point": [1]}, "point must be an object"),
        ({"licence": "x" * 200_000}, "longer than"),
        ({"licence": "\x1b[31m"}, "control characters"),
        (
            {"model": {"name": "openai:http://127.0.0.1:9/v1#x", "identity": "0" * 64}},
            "not one that this machine can load",
        ),
        ({"model": {"name": "mini", "identity": "0"}}, "not one of 64 digits"),
        ({"model": "mini"}, "model must be an object"),
        ({"scaffold": "turns"}, "scaffold must be an object"),
        ({"pixels": {}}, "not have the same pictures"),
        ({"paths": {"0" * 64: "a.png"}}, "paths has pictures that the pack does not have"),
    ],
)
def test_a_forged_pack_is_a_sentence(base, tmp_path, changes, why):
    with pytest.raises(InputError, match=why):
        read_pack(forge(base, tmp_path / "forged.pack", **changes))


@pytest.mark.parametrize("name", ["l" * 500, "a\nb", "lum ", " lum", "e\u0301", "LUM", ""])
def test_names_of_a_pack_pass_as_names_of_a_lesson_do(base, tmp_path, name):
    renamed = {**base.header.concepts, name: base.header.concepts["tove"]}
    rounds = [[item, name if old == "tove" else old] for item, old in base.header.rounds]
    del renamed["tove"]
    with pytest.raises(InputError, match=r"forged\.pack"):
        read_pack(forge(base, tmp_path / "forged.pack", concepts=renamed, rounds=rounds))


def test_tensors_that_no_pack_has_are_a_sentence(base, tmp_path):
    item = base.header.items[0]
    png = base.tensors[f"thumbnail/{item}"]
    large = io.BytesIO()
    Image.new("1", (7000, 7000)).save(large, "PNG")
    for changes, why in (
        ({f"seen/{item}/tokens": torch.full_like(base.tensors[f"seen/{item}/tokens"], torch.nan)}, "not finite"),
        ({f"thumbnail/{item}": png.float()}, "no thumbnail"),
        ({f"thumbnail/{item}": png[:20]}, "damaged"),
        (
            {f"thumbnail/{item}": torch.frombuffer(bytearray(large.getvalue()), dtype=torch.uint8)},
            "more than the limit",
        ),
        ({f"seen/{item}/code": png.clone()}, "which no pack has"),
        ({"held/0/keys": torch.zeros(2, dtype=torch.complex64)}, "which no pack has"),
    ):
        with pytest.raises(InputError, match=why):
            read_pack(forge(base, tmp_path / "forged.pack", base.tensors | changes))


def test_a_pack_from_elsewhere_answers_by_its_pictures_and_names(model, folder, zoo, learner):
    """Whatever else it says: features, keys and values, how names are preferred, when a picture is none of them."""
    lies = {
        name: torch.randn(row.shape, dtype=row.dtype) for name, row in zoo.tensors.items() if row.is_floating_point()
    }
    point = {"fit": 1.0, "kept": 1.0, "refused": 1.0, "pictures": 24}
    seal = read_metadata(zoo.path)["seal"]
    forged = read_pack(
        forge(zoo, folder / "forged.pack", zoo.tensors | lies, seal=seal, leaning=[9.0, 0.0, 0.0], point=point)
    )
    assert zoo.sealed
    assert not forged.sealed
    taught = forged.learner(model)
    assert taught.estimate_rejection_threshold() == learner.estimate_rejection_threshold()
    assert taught.pictures.by_name == learner.pictures.by_name
    for name in NAMES:
        same(taught.ask(folder / f"{name}.png"), learner.ask(folder / f"{name}.png"))
    (folder / "elsewhere").mkdir()
    outside = forge(zoo, folder / "elsewhere" / "forged.pack", paths={i: str(p) for i, p in zoo.paths.items()})
    with pytest.raises(InputError, match="24 of its 24 pictures are not in its folder"):
        read_pack(outside).learner(model)
    shutil.rmtree(folder / "zoo")
    with pytest.raises(InputError, match=r"24 of 24 are gone or have changed: .* --trust-pack"):
        forged.learner(model)


@pytest.mark.parametrize("place", ["a\0b.png", "a" * 300, "a/" * 1500 + "x.png", "", "\x1b[2J.png", "/dev/zero"])
def test_places_of_pictures_that_no_disk_has_are_a_sentence(model, folder, zoo, capsys, place):
    forged = forge(zoo, folder / "forged.pack", paths=dict.fromkeys(zoo.paths, place))
    with pytest.raises(SystemExit) as ended:
        main(["ask", str(forged), str(folder / "lum.png"), "--model", model.loaded.source])
    _, err = capsys.readouterr()
    assert ended.value.code == 2
    assert "linkcontext: " in err
    assert "Traceback" not in err
    assert "\x1b" not in err


def test_classes_are_named_as_they_are_shown_or_as_their_folders(folder, tmp_path):
    for name, picture in (("red_fox", "lum"), ("caf\u00e9", "dax")):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copyfile(folder / f"{picture}.png", tmp_path / "data" / name / "1.png")
    dataset = open_data(str(tmp_path / "data"))
    for given in ("red_fox", "red fox", " red  fox"):
        assert list(pictures_by_class_name(dataset, (given, "cafe\u0301"))) == ["red fox", "caf\u00e9"]
    with pytest.raises(InputError, match="--classes wolf"):
        pictures_by_class_name(dataset, ("wolf",))


def test_a_pack_that_is_trusted_needs_no_pictures(model, folder, zoo, learner):
    before = [learner.ask(folder / f"{name}.png") for name in NAMES]
    shutil.rmtree(folder / "zoo")
    received = forge(zoo, folder / "received.pack", leaning=[9.0, 0.0, 0.0])
    taught = read_pack(received, trust=True).learner(model)
    for name, earlier in zip(NAMES, before, strict=True):
        same(taught.ask(folder / f"{name}.png"), earlier)
    item = zoo.header.items[0]
    for changes, why in (
        ({f"seen/{item}/tokens": zoo.tensors[f"seen/{item}/tokens"][:, :7].clone()}, "tokens have another width"),
        ({f"seen/{item}/ids": torch.zeros(3, dtype=torch.int64)}, "differ in length"),
        ({f"seen/{item}/ids": zoo.tensors[f"seen/{item}/ids"] + 10**6}, "out of range"),
        ({f"seen/{item}/slots": zoo.tensors[f"seen/{item}/slots"].float()}, "another type"),
    ):
        forged = forge(zoo, folder / "forged.pack", zoo.tensors | changes)
        with pytest.raises(InputError, match=why):
            read_pack(forged, trust=True).learner(model)


def test_no_pack_decides_which_model_is_loaded(folder, zoo, capsys, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "linkcontext.evaluation.open_model.load_model", lambda name, *more: loaded.append((name, more[-3])) or nothing()
    )
    ask = ["ask", str(forge(zoo, folder / "forged.pack")), str(folder / "lum.png")]

    def nothing():
        raise InputError("loaded")

    for arguments, expected, why in (
        (ask, [], "name it with --model"),
        ([*ask, "--trust-remote-code"], [], "a pack never decides whose code is run"),
        ([*ask, "--trust-pack"], [(zoo.model, False)], "loaded"),
        (["ask", str(zoo.path), ask[2]], [(zoo.model, False)], "loaded"),
        (["ask", str(zoo.path), ask[2], "--model", "a/b"], [("a/b", True)], "loaded"),
        (["pack", ask[1], "--remove", "lum"], [], "name it with --model"),
        (["chat", "--pack", ask[1]], [], "name it with --model"),
    ):
        loaded.clear()
        with pytest.raises(SystemExit):
            main(arguments)
        assert loaded == expected
        assert why in " ".join(capsys.readouterr().err.split())


def test_a_model_of_the_hub_is_downloaded_only_if_it_is_named(monkeypatch):
    asked = []

    def config(name, **options):
        asked.append(options["local_files_only"])
        raise OSError("not there")

    monkeypatch.setattr("linkcontext.models.loading.AutoConfig.from_pretrained", config)
    monkeypatch.setattr("linkcontext.models.hub.hub_failure", lambda: None)
    with pytest.raises(InputError, match="is only downloaded from the Hugging Face hub if --model names it"):
        load_model("somebody/model", download=False)
    with pytest.raises(InputError, match="not found on the Hugging Face hub"):
        load_model("somebody/model")
    assert asked == [True, False]


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o027])
def test_a_pack_has_the_permissions_that_umask_says(learner, folder, mask):
    before = os.umask(mask)
    try:
        write_pack(learner, folder / "zoo.pack")
    finally:
        os.umask(before)
    assert (folder / "zoo.pack").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_pack_keeps_the_permissions_and_the_place_it_has(learner, folder):
    write_pack(learner, folder / "zoo.pack")
    (folder / "zoo.pack").chmod(0o600)
    (folder / "link.pack").symlink_to(folder / "zoo.pack")
    write_pack(learner, folder / "link.pack", licence="CC0")
    assert (folder / "zoo.pack").stat().st_mode & 0o777 == 0o600
    assert (folder / "link.pack").is_symlink()
    assert read_pack(folder / "zoo.pack").licence == "CC0"


def test_a_place_that_takes_nothing_is_a_sentence(learner, folder, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    write_pack(learner, folder / "zoo.pack", licence="CC0")
    monkeypatch.setattr("linkcontext.teach.pack_writing.save_file", full)
    with pytest.raises(InputError, match=r"could not be written .No space left on device."):
        write_pack(learner, folder / "zoo.pack")
    (folder / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        write_pack(learner, folder / "file" / "zoo.pack")
    assert read_pack(folder / "zoo.pack").licence == "CC0"
    assert sorted(p.name for p in folder.glob(".*")) == [".zoo.pack.lock"]


def test_a_key_that_others_can_read_is_no_key(learner, folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "cache"))
    pack = write_pack(learner, folder / "zoo.pack")
    assert read_pack(pack.path).sealed
    (key,) = (path for path in (tmp_path / "cache").glob("pack-key-*") if path.suffix != ".lock")
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert not read_pack(pack.path).sealed
    assert "others may have read" in caplog.text
    key.unlink()
    assert not read_pack(pack.path).sealed
    assert read_pack(write_pack(learner, folder / "zoo.pack").path).sealed


def test_what_was_taught_stays_at_hand_however_much_is_seen(model, folder, learner, monkeypatch):
    before = learner.ask(folder / "lum.png")
    write_pack(learner, folder / "zoo.pack")
    shutil.move(folder / "zoo", folder / "moved")
    monkeypatch.setattr(vision, "MEMORY", 1)
    found = read_pack(folder / "zoo.pack").learner(model)
    for name in ("dax", "tove", "lum"):
        answer = found.ask(folder / f"{name}.png")
    same(answer, before)
    found.teach(
        pictures_by_class_name(open_data(str(folder / "moved")))
    )  # pictures that moved are known where they are now
    assert all(found.pictures.paths[item].is_file() for items in found.pictures.by_name.values() for item in items)


def test_a_longer_name_leaves_room_for_fewer_pictures(model, folder, learner, monkeypatch):
    most = learner.model.length(
        build_messages(learner.choose_support(), learner.scaffold, learner.query(folder / "lum.png"))
    )
    monkeypatch.setattr(type(model.loaded), "context", property(lambda self: most + 12))  # and an answer
    fresh = Learner(LocalModel(replace(model.loaded)))
    fresh.teach(pictures_by_class_name(open_data(str(folder / "zoo"))))
    assert len(fresh.choose_support()) == 24
    fresh.rename("lum", "a name that winds and winds")
    assert len(fresh.choose_support()) < 24
    assert set(fresh.ask(folder / "lum.png").probabilities) == set(fresh.pictures.by_name)


def test_packs_keep_how_they_were_written(nano, folder, capsys):
    pack, other = str(folder / "zoo.pack"), str(folder / "other.pack")
    base = ["teach", "--data", str(folder / "zoo"), "--model", str(nano)]
    main([*base, "--out", pack, "--classes", "dax", "lum", "--no-state"])
    main(["pack", pack, "--licence", "CC0"])
    assert "without the KV cache" in capsys.readouterr().out.splitlines()[-6]
    main([*base, "--out", pack, "--classes", "lum"])
    assert "without the KV cache" in capsys.readouterr().out
    for arguments, why in (
        ([*base, "--out", pack, "--select", "random"], "--select: can be given for new packs"),
        ([*base, "--out", other, "--classes", "dax"], "needs at least two"),
        (
            [*base, "--out", other, "--shots-per-class", "-1"],
            r"shots_per_class -1 \(--shots-per-class\): must be at least 1",
        ),
        ([*base, "--out", other, "--select", "rices"], "needs shots_per_class"),
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
    assert "'CC-BY-NC', 'CC0'. Give one for all with --licence" in " ".join(capsys.readouterr().err.split())
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
    with pytest.raises(InputError, match="a special token"):
        learner.teach({"<image>": [folder / "lum.png"]})


def test_a_pack_whose_disk_went_away_is_a_sentence(learner, folder):
    write_pack(learner, folder / "zoo.pack")
    pack = read_pack(folder / "zoo.pack")
    (folder / "zoo.pack").unlink()
    with pytest.raises(InputError, match=r"zoo.pack"):
        pack.describe()


def test_a_place_where_no_lock_can_be_made_is_a_sentence(learner):
    """filelock takes it for a lock that another process holds, and would wait for ever."""
    with pytest.raises(InputError, match=r"^/proc/zoo\.pack: could not be written"):
        write_pack(learner, Path("/proc/zoo.pack"))


def test_a_pack_whose_names_are_not_shown_equally_often_answers_as_it_did(model, folder, monkeypatch):
    """Earlier versions showed no picture twice."""

    def once(by_name):
        return [*dict.fromkeys(interleave(by_name))]

    monkeypatch.setattr(support, "interleave", once)
    learner, pictures = Learner(model, head="lm"), pictures_by_class_name(open_data(str(folder / "zoo")))
    learner.teach({name: own[: at + 1] for at, (name, own) in enumerate(pictures.items())})
    before = learner.ask(folder / "lum.png")
    pack = write_pack(learner, folder / "uneven.pack")
    monkeypatch.undo()
    again = read_pack(pack.path).learner(model)
    same(again.ask(folder / "lum.png"), before)
    assert again.choose_support() == learner.choose_support()
    assert len(_shown(replace(pack, sealed=False))) == 6


def test_a_description_of_many_names_is_short(learner, tmp_path, monkeypatch):
    monkeypatch.setattr("linkcontext.teach.pack.LISTED", 1)
    lines = write_pack(learner, tmp_path / "zoo.pack").describe()
    first, count = learner.pictures.names[0], len(learner.pictures.names)
    assert [line for line in lines if line.startswith("  ")] == [
        f"  {first}: 8 pictures",
        f"  and {count - 1} more names",
    ]
