import dataclasses
import os
import shutil

import pytest
from PIL import Image

from linkcontext.data import class_folders
from linkcontext.data.class_folders import open_folder
from linkcontext.data.images import open_image
from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.errors import InputError


def test_class_folders(zoo):
    dataset = open_folder(zoo)
    assert [item.id for item in dataset.items] == [
        "cat/a_1.png",
        "cat/b.jpg",
        "ice_bear/a_1.gif",
        "ice_bear/c.WEBP",
    ]
    assert all(item.id == item.path and item.split == "" and item.facts == {} for item in dataset.items)
    assert dataset.names() == {"cat": "cat", "ice_bear": "ice bear"}
    assert [item.group for item in dataset.items] == ["a", "b", "a", "c"]
    assert dataset.problems == ()
    assert open_image(dataset.path("cat/a_1.png")).size == (10, 8)


def test_split_folders_at_any_depth(tmp_path, picture):
    paths = ("train/cat/1.png", "Valid/cat/2.png", "dog/test/3.png", "big/train/dog/4.png", "dog/5.png")
    for number, path in enumerate(paths):
        picture(tmp_path / path, number)
    dataset = open_folder(tmp_path)
    assert {item.path: (item.split, item.class_id, item.name) for item in dataset.items} == {
        "train/cat/1.png": ("train", "cat", "cat"),
        "Valid/cat/2.png": ("val", "cat", "cat"),
        "dog/test/3.png": ("test", "dog", "dog"),
        "big/train/dog/4.png": ("train", "big/dog", "dog"),
        "dog/5.png": ("", "dog", "dog"),
    }


def test_a_class_folder_that_is_called_as_a_split_is_said(zoo, picture):
    picture(zoo / "train" / "1.png", 9)
    dataset = open_folder(zoo, strict=True)
    assert (dataset.item("train/1.png").class_id, dataset.item("train/1.png").split) == ("train", "")
    assert "could be splits or classes: train" in dataset.problems[-1]
    write_manifest(dataset)
    assert open_folder(zoo).problems == ()  # the manifest says what it is


def test_blank_names_of_folders_are_left_out_and_named(zoo, picture):
    picture(zoo / "_" / "1.png", 9)
    dataset = open_folder(zoo)
    assert len(dataset.items) == 4
    assert "is blank: 1 ('_/1.png')" in dataset.problems[0]


def test_a_name_that_another_encoding_wrote_is_doubted(zoo, picture):
    picture(zoo / os.fsdecode("\u5c0f\u732b".encode("gbk")) / "1.png", 9)
    picture(zoo / "\u041a\u043e\u0448\u043a\u0430" / "1.png", 10)
    picture(zoo / "1\u00ba a\u00f1o" / "1.png", 11)
    (problem,) = open_folder(zoo, strict=True).problems
    assert "class names of letters from several scripts: 1 (\u0421\u00e8)" in problem


def test_classes_that_share_a_name_are_named(zoo, picture):
    picture(zoo / "Cat" / "1.png", 9)
    picture(zoo / "pets" / "ice  bear" / "1.png", 10)
    (problem,) = open_folder(zoo, strict=True).problems
    assert "share a name, but for case and spaces: 'Cat' and 'cat', 'ice_bear' and 'pets/ice  bear'." in problem


def test_pictures_of_two_classes_are_named_with_their_number(zoo):
    Image.open(zoo / "cat" / "a_1.png").save(zoo / "ice_bear" / "again.bmp")  # the same pixels in other bytes
    (problem,) = open_folder(zoo).problems
    assert "two classes or more: 2, of 1 different ones (cat/a_1.png and ice_bear/again.bmp)" in problem
    with pytest.raises(InputError, match="two classes"):
        open_folder(zoo, strict=True)


def test_the_order_of_writing_and_the_place_change_nothing(zoo, tmp_path):
    twin = tmp_path / "elsewhere"
    for path in reversed(open_folder(zoo).items):
        (twin / path.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(zoo / path.path, twin / path.path)
    assert open_folder(twin).items == open_folder(zoo).items


def test_the_manifest_has_the_last_word(zoo, picture):
    plain = open_folder(zoo)
    changes = {"class_id": "c1", "name": "cactihog", "split": "test", "group": "g", "facts": {"legs": 4}}
    listed = [dataclasses.replace(i, **changes) for i in plain.items if i.class_id == "cat"]
    write_manifest(Dataset(zoo, tuple(listed)))
    picture(zoo / "c1" / "new.png", 9)
    dataset = open_folder(zoo)
    assert dataset.items[:1] == (dataset.item("c1/new.png"),)
    assert dataset.item("c1/new.png").name == "cactihog"  # a class has one name, listed or not
    assert dataset.items[1:] == (*listed, *plain.items[2:])
    assert dataset.problems == ()


def test_pictures_without_a_class_folder(zoo, picture):
    picture(zoo / "sheet.png", 9)
    dataset = open_folder(zoo)
    assert len(dataset.items) == 4
    assert "no class folder: 1 (sheet.png)" in dataset.problems[0]
    with pytest.raises(InputError, match="no class folder: 1"):
        open_folder(zoo, strict=True)
    in_root = dataclasses.replace(dataset.items[0], id="sheet.png", path="sheet.png")
    write_manifest(Dataset(zoo, (in_root,)))
    assert open_folder(zoo).item("sheet.png").class_id == "cat"


def test_where_manifest_and_folder_differ(zoo, picture):
    write_manifest(open_folder(zoo))
    picture(zoo / "cat" / "a_1.png", 50)
    (zoo / "cat" / "b.jpg").write_bytes(b"")
    picture(zoo / "cat" / "c.png", 51)
    dataset = open_folder(zoo)
    assert "cat/c.png" in {item.id for item in dataset.items}
    assert "0 bytes" in dataset.problems[0]
    assert "left out of those it lists: 1 (cat/b.jpg)" in dataset.problems[1]
    assert "changed since they were listed, so that their facts may be wrong: 1 (cat/a_1.png)" in dataset.problems[2]
    assert len(dataset.problems) == 3
    (zoo / "cat" / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"missing pictures: 1 of 4 \(cat/b\.jpg\)"):
        open_folder(zoo)


def test_folders_that_cannot_be_a_data_set(tmp_path, picture):
    layout = r"Expected FOLDER/CLASS/picture\.png or FOLDER/train/CLASS/picture\.png, with two classes or more"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    picture(tmp_path / "one" / "cat" / "1.png")
    picture(tmp_path / "flat" / "1.png")
    for name, reason in {
        "empty": "no picture in a class folder",
        "file": "not a folder",
        "absent": "no such folder",
        "one": r"only one class \('cat'\)",
        "flat": r"no picture in a class folder. If flat is one class, give the folder that it lies in \(\S+\)",
    }.items():
        with pytest.raises(InputError, match=f"{name}: {reason}. {layout}"):
            open_folder(tmp_path / name)


def test_a_root_without_permission(zoo, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as denied:
        denied.setattr(os, "access", lambda *_: False)
        with pytest.raises(InputError, match=r"zoo: no permission to read the folder\. Expected FOLDER"):
            open_folder(zoo)
    with monkeypatch.context() as denied:
        denied.setattr(class_folders.Path, "stat", refuse)
        with pytest.raises(InputError, match=r"zoo: the folder cannot be read \(Permission denied\)\. Expected"):
            open_folder(zoo)


def test_one_class_because_the_other_is_bad_says_why(tmp_path, picture):
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.png").write_text("text")
    with pytest.raises(InputError, match=r"only one class \('cat'\).* Left out: .*dog/1\.png: not a picture"):
        open_folder(tmp_path)


def test_one_bad_picture_is_reported_or_fails(zoo):
    (zoo / "cat" / "bad.png").write_bytes(b"")
    dataset = open_folder(zoo)
    assert len(dataset.items) == 4
    assert len(dataset.problems) == 1
    with pytest.raises(InputError, match=r"bad\.png: the file is empty"):
        open_folder(zoo, strict=True)
