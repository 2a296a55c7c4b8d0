import dataclasses
import json

import pytest

from linkcontext.data import manifest
from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import MANIFEST, Dataset, annotation_digest, digest, read_manifest, write_manifest
from linkcontext.errors import InputError, first_few
from linkcontext.records import Item, Question
from linkcontext.storage import cache_dir


def item(path, class_id="cat", **more):
    values = {"name": class_id, "sha256": "0" * 64} | more
    return Item(path, path, class_id, **values)


def written(root, *items):
    """The data set of these items, its files and its manifest on disk."""
    for one in items:
        (root / one.path).parent.mkdir(parents=True, exist_ok=True)
        (root / one.path).touch()
    dataset = Dataset(root, items)
    write_manifest(dataset)
    return dataset


def test_lookups(tmp_path):
    items = (item("z/2", "z"), item("a/1", "a", name="ape"), item("z/1", "z"))
    dataset = Dataset(tmp_path, items)
    assert list(dataset.by_class().items()) == [("a", (items[1],)), ("z", (items[0], items[2]))]
    assert list(dataset.names().items()) == [("a", "ape"), ("z", "z")]
    assert dataset.item("z/1") is items[2]
    assert dataset.path("a/1") == tmp_path / "a" / "1"
    with pytest.raises(InputError, match="no picture 'a/9'"):
        dataset.item("a/9")


def test_what_is_written_is_read(tmp_path):
    facts = {"colour": "röt", "parts": [1, 2.5]}
    dataset = written(tmp_path, item("b/ö.png", split="val", group="w1", facts=facts), item("a/1.png"))
    assert read_manifest(tmp_path) == dataset
    header, first, _ = map(json.loads, (tmp_path / MANIFEST).read_text(encoding="utf-8").splitlines())
    assert header == {"format": "linkcontext.manifest/1"}
    assert (first["path"], first["class"], first["facts"]) == ("b/ö.png", "cat", facts)


def test_a_manifest_of_another_format_is_refused_and_one_of_none_is_read(tmp_path):
    dataset = written(tmp_path, item("a/1.png"), item("b/1.png"))
    _, *lines = (tmp_path / MANIFEST).read_text().splitlines()
    (tmp_path / MANIFEST).write_text("\n".join(lines))
    assert read_manifest(tmp_path) == dataset
    (tmp_path / MANIFEST).write_text("\n".join(['{"format": "linkcontext.manifest/2"}', *lines]))
    with pytest.raises(InputError, match=r"manifest\.jsonl:1: its format is linkcontext\.manifest/2, and this version"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../b.png", "a/../b.png", "a//b.png", "./a.png", "a/", ""])
def test_paths_that_could_lead_elsewhere_are_neither_read_nor_written(tmp_path, path):
    with pytest.raises(InputError, match="id and path must be the same path below the folder"):
        write_manifest(Dataset(tmp_path, (item(path),)))
    line = json.dumps({"id": path, "path": path, "class": "cat", "name": "cat", "sha256": ""})
    (tmp_path / MANIFEST).write_text(line + "\n")
    with pytest.raises(InputError, match=r"manifest\.jsonl:1: id and path"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": "other"}, "must be the same path"),
        ({"name": ""}, "must not be empty"),
        ({"class": ""}, "must not be empty"),
        ({"class": 3}, "must be a text"),
        ({"facts": []}, "facts must be an object"),
        ({"colour": "red"}, "unknown colour"),
    ],
)
def test_lines_that_are_no_items_are_named(tmp_path, change, sentence):
    written(tmp_path, item("a.png"), item("b.png"))
    lines = (tmp_path / MANIFEST).read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    (tmp_path / MANIFEST).write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"manifest\.jsonl:2: .*{sentence}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"answer": "green"}, "the answer 'green' is not one of the candidates"),
        (
            {"answer": "red", "candidates": ["red", "red", "blue"]},
            "there must be at least two candidates, all different",
        ),
        ({"answer": "red", "candidates": ["red"]}, "there must be at least two candidates, all different"),
        ({"question": ""}, "must be texts that are not blank"),
        ({"answer": " ", "candidates": ()}, "must be texts that are not blank"),
        (
            {"answer": "caf\u00e9", "candidates": ("caf\u00e9", "cafe\u0301")},
            "must be at least two candidates, all different",
        ),
        ({"answer": 3, "candidates": ()}, "must be texts that are not blank"),
        ({"others": (3,)}, "must be texts that are not blank"),
    ],
)
def test_questions_are_kept_and_checked(tmp_path, more, sentence):
    good = Question("attribute", "colour", "What colour?", "red", ("red", "blue"))
    assert read_manifest(written(tmp_path, item("a.png", questions=(good,))).root).items[0].questions == (good,)
    with pytest.raises(InputError, match=rf"manifest\.jsonl:2: .*{sentence}"):
        written(tmp_path, item("a.png", questions=(dataclasses.replace(good, **more),)))


def test_items_that_contradict_each_other(tmp_path):
    with pytest.raises(InputError, match=r"listed more than once: a\.png"):
        written(tmp_path, item("a.png"), item("b.png"), item("a.png", "dog"))
    with pytest.raises(InputError, match="class 'cat' is called both 'cat' and 'tom'"):
        written(tmp_path, item("a.png"), item("b.png", name="tom"))
    asked = Question("match", "alike", "Same?", "yes", others=("c.png",))
    with pytest.raises(InputError, match=r"questions are about pictures that it does not list \(c\.png\)"):
        written(tmp_path, item("a.png", questions=(asked,)))
    assert not (tmp_path / MANIFEST).exists()


def test_missing_pictures_are_named_together(tmp_path):
    dataset = written(tmp_path, *(item(f"{number}.png") for number in range(8)))
    for number in range(7):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(InputError, match=r"missing pictures: 7 of 8 \(0.png, 1.png, 2.png, 3.png, 4.png and 2 more\)"):
        read_manifest(dataset.root)


def test_pictures_behind_a_closed_folder_are_not_called_missing(tmp_path, monkeypatch):
    dataset = written(tmp_path, item("a/1.png"))

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manifest.Path, "is_file", refuse)
    assert read_manifest(tmp_path) == dataset


def test_a_manifest_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.jsonl: cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"manifest\.jsonl:1: not UTF-8"):
        read_manifest(tmp_path)


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("LINKCONTEXT_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert str(cache_dir()) == "/one"
    monkeypatch.delenv("LINKCONTEXT_CACHE")
    assert str(cache_dir()) == "/two/linkcontext"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(cache_dir()) == "/three/.cache/linkcontext"


def test_first_few():
    assert first_few(["a"]) == "a"
    assert first_few(list("abcde")) == "a, b, c, d, e"
    assert first_few(list("abcdef")) == "a, b, c, d, e and 1 more"


def test_a_data_set_is_frozen(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Dataset(tmp_path, ()).items = ()


def test_a_path_that_no_disk_can_have_is_missing(tmp_path):
    line = json.dumps({"id": "a" * 5_000, "path": "a" * 5_000, "class": "cat", "name": "cat", "sha256": ""})
    (tmp_path / MANIFEST).write_text(line + "\n")
    with pytest.raises(InputError, match="missing pictures: 1 of 1"):
        read_manifest(tmp_path)


def test_digest_tells_class_and_content_and_nothing_else(zoo, picture):
    dataset = open_folder(zoo)
    known = digest(dataset)
    first, *others = dataset.items
    assert digest(Dataset(zoo.parent, dataset.items[::-1], ("a problem",))) == known
    assert digest(Dataset(zoo, (dataclasses.replace(first, name="tom", group="x"), *others))) == known
    for change in ({"class_id": "dog"}, {"sha256": "0"}, {"id": "cat/a_2.png"}):
        assert digest(Dataset(zoo, (dataclasses.replace(first, **change), *others))) != known
    assert digest(Dataset(zoo, tuple(others))) != known


def test_annotation_digest_tells_annotations_and_not_pixels(zoo):
    dataset = open_folder(zoo)
    known = annotation_digest(dataset)
    first, *others = dataset.items
    for change in ({"sha256": "0"}, {"pixels": "0"}):
        assert annotation_digest(Dataset(zoo, (dataclasses.replace(first, **change), *others))) == known
    for change in ({"name": "tom"}, {"split": "test"}, {"group": "x"}, {"facts": {"legs": 4}}):
        assert annotation_digest(Dataset(zoo, (dataclasses.replace(first, **change), *others))) != known
