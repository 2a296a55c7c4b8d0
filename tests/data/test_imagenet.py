"""ImageNet's split: facts of the package, and a small folder with real ids and drawn pictures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linkcontext.data import imagenet
from linkcontext.data.imagenet import class_names, open_imagenet, pairs
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.errors import InputError
from linkcontext.seeds import rng


def draw(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng("test", *names).integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(path, "JPEG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All hundred test classes with five training and two validation pictures each, as ImageNet names them."""
    root = tmp_path_factory.mktemp("ImageNet")
    for c, wnid in enumerate(class_names("imagenet-100")):
        for i in range(5):
            draw(root / "train" / wnid / f"{wnid}_{i}.JPEG", wnid, i)
        for i in range(2):
            draw(root / "val" / wnid / f"ILSVRC2012_val_{2 * c + i:08d}.JPEG", wnid, "val", i)
    return root


def test_facts():
    train, test = class_names("imagenet-900"), class_names("imagenet-100")
    assert (len(train), len(test), len(train.keys() | test.keys())) == (900, 100, 1000)
    assert next(iter(train.items())) == ("n02119789", "kit fox")
    assert train["n02100735"] == "English setter"
    assert pairs()[0] == ("n02091134", "n02092002")
    assert (test["n02091134"], test["n02092002"]) == ("whippet", "scottish deerhound")
    assert pairs()[-1] == ("n04336792", "n03729826")
    assert len({wnid for pair in pairs() for wnid in pair}) == 100


def test_facts_are_those_of_the_authors_list():
    data = os.environ.get("LINKCONTEXT_DATA")
    if not data:
        pytest.skip("LINKCONTEXT_DATA is not set: the authors' list lies outside the repository")
    listed = json.loads((Path(data) / "lcl" / "imagenet100_pairs.json").read_text())
    assert pairs() == tuple((pair["a"]["wnid"], pair["b"]["wnid"]) for pair in listed)
    assert class_names("imagenet-100") == {p[k]["wnid"]: p[k]["name"] for p in listed for k in "ab"}
    lines = (Path(data) / "lcl" / "train900_pairs.jsonl").read_text().splitlines()
    train = [json.loads(line) for line in lines]
    found = {s.split("/")[1]: r["class_name"] for r in train for s in r["samples"] if s.startswith("train/")}
    assert class_names("imagenet-900") == found


def test_episodes_are_the_papers_pairs_with_supports_from_train_and_queries_from_val(folder):
    dataset = open_imagenet("imagenet-100", str(folder), strict=True)
    assert len(dataset.items) == 100 * 7
    assert dataset.problems == ()
    plan = EpisodePlan(
        shots_per_class=(0, 1, 5),
        episodes=100,
        names="real",
        negatives="neighbours",
        support_split="train",
        query_split="val",
    )
    episodes = sample_episodes(dataset, plan).episodes
    met = {frozenset(c.class_id for c in e.candidates) for e in episodes}
    assert met == {frozenset(pair) for pair in pairs()}
    assert all(turn.item.startswith("train/") for e in episodes for turn in e.support)
    assert all(turn.item.startswith("val/") for e in episodes for turn in e.queries)
    assert {c.name for e in episodes for c in e.candidates} == set(class_names("imagenet-100").values())


def test_no_validation_picture_is_trained_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "class_names", lambda _: {"n02091134": "whippet", "n02092002": "scottish deerhound"})
    for wnid in ("n02091134", "n02092002"):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "val" / wnid).mkdir(parents=True)
        for path in (*(folder / "train" / wnid).iterdir(), *(folder / "val" / wnid).iterdir()):
            (tmp_path / "train" / wnid / path.name).write_bytes(path.read_bytes())
    dataset = open_imagenet("imagenet-900", str(tmp_path))
    assert len(dataset.items) == 10
    assert {item.split for item in dataset.items} == {"train"}
    assert not any("val" in item.path for item in dataset.items)
    assert "validation pictures left out of train/: 4" in dataset.problems[0]
    with pytest.raises(InputError, match="validation pictures"):
        open_imagenet("imagenet-900", str(tmp_path), strict=True)


def test_a_class_gives_as_many_pictures_as_the_paper_had_drawn_by_their_names(folder, monkeypatch):
    monkeypatch.setattr(imagenet, "PICTURES", {"imagenet-100": {"train": 3, "val": 1}})
    dataset = open_imagenet("imagenet-100", str(folder))
    assert len(dataset.items) == 100 * 4
    assert [i.path for i in dataset.items] == sorted(i.path for i in dataset.items)
    assert dataset.items == open_imagenet("imagenet-100", str(folder)).items
    drawn = [{i.path for i in dataset.items if i.class_id == wnid} for wnid in class_names("imagenet-100")]
    assert len({frozenset(path[-6:] for path in paths if path.startswith("train")) for paths in drawn}) > 3


def test_a_bad_picture_is_named_and_a_mended_one_is_looked_at_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "class_names", lambda _: {"n02091134": "whippet", "n02092002": "scottish deerhound"})
    for wnid in ("n02091134", "n02092002"):
        draw(tmp_path / "train" / wnid / "a.JPEG", wnid, "a")
    bad = tmp_path / "train" / "n02091134" / "b.JPEG"
    bad.write_text("no picture")
    dataset = open_imagenet("imagenet-900", str(tmp_path))
    assert len(dataset.items) == 2
    assert str(bad) in dataset.problems[0]
    with pytest.raises(InputError, match=r"b\.JPEG"):
        open_imagenet("imagenet-900", str(tmp_path), strict=True)
    draw(bad, "mended")
    assert len(open_imagenet("imagenet-900", str(tmp_path), strict=True).items) == 3


def test_a_folder_that_is_not_there_or_lacks_classes_is_one_sentence(folder, tmp_path):
    for missing in ("", str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match=r"no such folder.*ILSVRC2012_img_train.tar.*DIR/train/nXXXXXXXX/"):
            open_imagenet("imagenet-100", missing)
    for wnid in ("n02091134", "n02092002"):
        draw(tmp_path / "train" / wnid / "a.JPEG", wnid)
    with pytest.raises(InputError) as caught:
        open_imagenet("imagenet-100", str(tmp_path))
    assert "98 in train/ (n02096051" in str(caught.value)
    assert "100 in val/ (n02091134" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"classes of imagenet-900 without a picture: 900 in train/"):
        open_imagenet("imagenet-900", str(folder))


def test_what_is_not_named_as_a_picture_is_named(folder):
    wnid = next(iter(class_names("imagenet-100")))
    strays = [
        folder / "train" / wnid / "notes.txt",
        Path(os.fsdecode(bytes(folder / "train" / wnid) + b"/caf\xe9.png")),
    ]
    for path in strays:
        path.write_bytes(b"x")
    try:
        (problem,) = open_imagenet("imagenet-100", str(folder)).problems
    finally:
        for path in strays:
            path.unlink()
    assert f"not named as pictures: 2 (train/{wnid}/b'caf\\xe9.png', train/{wnid}/notes.txt)" in problem
