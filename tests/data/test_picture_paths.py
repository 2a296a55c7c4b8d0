import unicodedata

import pytest

from linkcontext.data.picture_paths import PictureFinder, possible_paths
from linkcontext.data.problems import Problems
from linkcontext.errors import InputError


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("a.png", ["a.png", "images/a.png"]),
        ("b\\a.png", ["b\\a.png", "images/b\\a.png", "b/a.png", "images/b/a.png"]),
        ("caf\u00e9.png", ["caf\u00e9.png", "images/caf\u00e9.png", "cafe\u0301.png", "images/cafe\u0301.png"]),
    ],
)
def test_paths_that_are_tried(name, paths):
    assert possible_paths(name) == paths


def test_pictures_are_found_under_any_of_their_names(tmp_path, picture):
    picture(tmp_path / "vg" / "1.png")
    picture(tmp_path / "images" / unicodedata.normalize("NFD", "caf\u00e9.png"))
    finder = PictureFinder("f.json", tmp_path, Problems(strict=True))
    assert finder.find([("1.png", "vg/1.png"), ("caf\u00e9.png",)], "f.json:1") == ["vg/1.png", "images/cafe\u0301.png"]
    finder.report()
    assert finder.problems.sentences == []


def test_missing_pictures_are_counted_and_the_first_named(tmp_path, picture):
    picture(tmp_path / "1.png")
    (tmp_path / "notes").write_text("words")
    finder = PictureFinder("f.json", tmp_path, Problems(strict=False))
    for number in range(7):
        assert finder.find([("1.png",), (f"gone{number}.png",)], "f.json:1") is None
    assert finder.find([("notes",)], "f.json:2") is None
    finder.report()
    assert "f.json:2: " in finder.problems.sentences[0]
    assert "notes: not a picture" in finder.problems.sentences[0]
    assert ": 7 times (gone0.png, gone1.png, gone2.png, gone3.png, gone4.png, ...)" in finder.problems.sentences[1]
    with pytest.raises(InputError, match=r"f\.json:1: its picture gone\.png is not below"):
        PictureFinder("f.json", tmp_path, Problems(strict=True)).find([("gone.png",)], "f.json:1")
