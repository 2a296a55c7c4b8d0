import json

import pytest

from linkcontext.data.readers.isekai import IsekaiRecord, isekai_file, isekai_items, read_isekai
from linkcontext.errors import InputError

RECORD = {
    "image_name": "a/9.png",
    "positive_list": ["a/0.png", "a/1.png"],
    "negative_list": ["b/0.png", "b/1.png"],
    "positive_promt": "icemic",
    "negative_promt": "polar bear",
    "label_name": "Icemic",
}


@pytest.fixture
def benchmark(tmp_path, picture):
    """The records file of a benchmark with one record."""
    for number, name in enumerate(("a/9.png", "a/0.png", "a/1.png", "b/0.png", "b/1.png")):
        picture(tmp_path / "images" / name, number)
    (tmp_path / "ISEKAI-10.json").write_text(json.dumps(RECORD) + "\n")
    return tmp_path / "ISEKAI-10.json"


def test_a_record_by_hand(benchmark):
    assert isekai_file(str(benchmark.parent)) == isekai_file(str(benchmark)) == benchmark
    (record,) = read_isekai(benchmark, 2)
    lists = (("a/0.png", "a/1.png"), ("b/0.png", "b/1.png"))
    assert record == IsekaiRecord("a/9.png", *lists, "icemic", "polar bear", "icemic")  # the label is spelt as the name
    assert record.lists == dict(zip(("icemic", "polar bear"), lists, strict=True))


def test_pictures_may_be_in_a_folder_that_no_record_mentions(benchmark):
    items = isekai_items(benchmark, read_isekai(benchmark, 2))
    assert {path: (item.path, item.name) for path, item in items.items()} == {
        "a/9.png": ("images/a/9.png", "icemic"),
        "a/0.png": ("images/a/0.png", "icemic"),
        "a/1.png": ("images/a/1.png", "icemic"),
        "b/0.png": ("images/b/0.png", "polar bear"),
        "b/1.png": ("images/b/1.png", "polar bear"),
    }
    (benchmark.parent / "images" / "b" / "0.png").unlink()
    with pytest.raises(InputError, match=r"pictures missing: 1 of 5 \(b/0\.png\)"):
        isekai_items(benchmark, read_isekai(benchmark, 2))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label_name": "dog"}, "ISEKAI-10.json:1: label_name 'dog' must be one of two"),
        ({"negative_promt": "ICEMIC"}, "ISEKAI-10.json:1: label_name 'Icemic' must be one of two different names"),
        ({"image_name": ""}, "ISEKAI-10.json:1: pictures and names must be non-empty texts"),
        ({"negative_list": ["b/0.png"]}, "ISEKAI-10.json:1: 2 shots per class need more pictures than the 1"),
    ],
)
def test_wrong_records_are_named(benchmark, change, sentence):
    benchmark.write_text(json.dumps(RECORD | change) + "\n")
    with pytest.raises(InputError, match=sentence):
        read_isekai(benchmark, 2)
