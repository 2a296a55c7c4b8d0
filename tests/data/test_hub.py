import sys

import numpy as np
import pytest
from PIL import Image

from linkcontext.data.hub import open_huggingface
from linkcontext.data.images import open_image
from linkcontext.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    """The package's own cache is the test's, and it draws no bars."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def pictures(count):
    return [Image.fromarray(np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)) for i in range(count)]


def parquet(path, columns, **features):
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(str(path))
    return str(path)


def test_image_folder(tmp_path, picture):
    root = tmp_path / "set"
    paths = ("train/cat/w_1.png", "train/ice_bear/2.jpg", "validation/cat/3.png", "validation/ice_bear/4.png")
    for number, path in enumerate(paths):
        picture(root / path, number)
    dataset = open_huggingface(str(root))
    assert dataset.problems == ()
    assert {(i.split, i.class_id, i.name, i.group) for i in dataset.items} == {
        ("train", "cat", "cat", "w"),
        ("train", "ice_bear", "ice bear", "2"),
        ("val", "cat", "cat", "3"),
        ("val", "ice_bear", "ice bear", "4"),
    }
    assert {dataset.path(i.id).read_bytes() for i in dataset.items} == {(root / p).read_bytes() for p in paths}
    assert open_huggingface(str(root)) == dataset
    assert len(list((dataset.root.parent).iterdir())) == 1
    picture(root / "train/cat/w_2.png", 8)
    assert len(open_huggingface(str(root)).items) == 5  # other data, another folder


def test_parquet_with_awkward_labels(tmp_path):
    labels = ["../up", "train", "a/b_c", "../up"]
    values = {"img": pictures(4), "text": ["x"] * 4, "label": labels}
    string = datasets.Value("string")
    path = parquet(tmp_path / "a.parquet", values, img=datasets.Image(), text=string, label=string)
    dataset = open_huggingface(path)
    assert [item.class_id for item in dataset.items] == ["../up", "../up", "train", "a/b_c"]
    assert dataset.names() == {"../up": "../up", "a/b_c": "a/b c", "train": "train"}
    assert [item.path for item in dataset.items] == [
        "train/0000_up/0000000.png",
        "train/0000_up/0000003.png",
        "train/0001_train/0000001.png",
        "train/0002_a-b_c/0000002.png",
    ]
    third = open_image(dataset.path("train/0002_a-b_c/0000002.png"))
    assert np.array_equal(np.asarray(third), np.asarray(pictures(4)[2]))
    assert len({item.group for item in dataset.items}) == 4


def test_rows_without_label_or_picture_are_reported(tmp_path):
    values = {"image": [*pictures(4), None], "label": [0, 1, -1, None, 0]}
    label = datasets.ClassLabel(names=["cat", "dog"])
    path = parquet(tmp_path / "a.parquet", values, image=datasets.Image(), label=label)
    dataset = open_huggingface(path)
    assert [item.class_id for item in dataset.items] == ["cat", "dog"]
    assert dataset.problems[0].endswith("left out of the split train because they have no label: 2.")
    assert "0000004.png: the file is empty" in dataset.problems[1]
    with pytest.raises(InputError, match="the file is empty"):
        open_huggingface(path, strict=True)


def test_class_labels_win_over_texts_and_preferred_names_over_others(tmp_path):
    two = {"fine_label": [0, 1], "coarse_label": [0, 0], "label": ["x", "y"], "image": pictures(2)}
    path = parquet(
        tmp_path / "a.parquet",
        two,
        fine_label=datasets.ClassLabel(names=["oak", "elm"]),
        coarse_label=datasets.ClassLabel(names=["tree"]),
        label=datasets.Value("string"),
        image=datasets.Image(),
    )
    assert open_huggingface(path).names() == {"elm": "elm", "oak": "oak"}


def test_columns_that_cannot_be_told(tmp_path):
    number, string = datasets.Value("int64"), datasets.Value("string")
    none = parquet(
        tmp_path / "none.parquet", {"image": pictures(1), "label": [3]}, image=datasets.Image(), label=number
    )
    many = {"left": pictures(1), "right": pictures(1), "label": ["a"]}
    two = parquet(tmp_path / "two.parquet", many, left=datasets.Image(), right=datasets.Image(), label=string)
    for path, found in ((none, "image, label"), (two, "left, right, label")):
        with pytest.raises(InputError, match=f"one column of pictures and one of labels .*It has {found}"):
            open_huggingface(path)


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "broken.parquet").write_text("no parquet")
    (tmp_path / "empty").mkdir()
    for name in (
        str(tmp_path / "broken.parquet"),
        str(tmp_path / "empty"),
        "nobody/nothing",
        "nobody/nothing:en",
    ):
        with pytest.raises(InputError, match="the data set cannot be loaded") as caught:
            open_huggingface(name)
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)


def test_the_configuration_follows_a_colon(tmp_path, monkeypatch, picture):
    asked = []

    def refuse(*names, **_):
        asked.append(names)
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    (tmp_path / "a:b").mkdir()
    for name in ("user/set:german", "user/set", str(tmp_path / "a:b")):
        with pytest.raises(InputError, match="no network"):
            open_huggingface(name)
    assert asked == [("user/set", "german"), ("user/set", None), (str(tmp_path / "a:b"), None)]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'linkcontext\[hub\]'"):
        open_huggingface("anything")
