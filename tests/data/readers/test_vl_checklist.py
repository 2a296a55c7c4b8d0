from pathlib import Path

import pytest

from linkcontext.data.problems import Problems
from linkcontext.data.readers.vl_checklist import WHICH, read_vl_checklist
from linkcontext.errors import InputError


def test_files_are_read_from_the_folder_they_lie_in(read, icl, tmp_path, monkeypatch):
    asked = {"question": "What?", "image": ["a.png"]}
    icl("clevr", [{"id": 1, **asked, "answer": 3}], [{"id": 1, **asked, "answer": 2}])
    read(read_vl_checklist, [["1.jpg", {"POS": ["a"], "NEG": ["b"]}]], "Attribute/vg/color.json")
    monkeypatch.chdir(tmp_path / "Attribute" / "vg")
    (imported,) = read_vl_checklist(Path("color.json"), Problems(strict=True))
    assert (imported.question.task, imported.pictures) == ("attribute", (("1.jpg", "vg/1.jpg"),))


def test_vl_checklist_by_hand(read, tmp_path):
    rows = [
        ["VG_100K/1.jpg", {"POS": ["key ON desk"], "NEG": ["key under desk"]}],
        ["x.jpg", {"POS": ["a"], "NEG": []}],
    ]
    imported, (problem,) = read(read_vl_checklist, rows, "data/Relation/vg/spatial.json")
    assert "spatial.json:1: record 1: `NEG` is missing, empty" in problem
    (asked,) = imported
    assert asked.pictures == (("VG_100K/1.jpg", "vg/VG_100K/1.jpg"),)
    q = asked.question
    assert (q.task, q.concept, q.question, q.answer) == ("relation", "spatial", WHICH, "key on desk")
    assert sorted(q.candidates) == ["key on desk", "key under desk"]
    read(read_vl_checklist, rows[:1], "data/Object/Size/hake_size/hake_obj_small.json")
    read(read_vl_checklist, rows[:1], "data/Attribute/vaw/color.json")
    imported = list(read_vl_checklist(tmp_path / "data", Problems(strict=False)))
    kinds = [(asked.question.task, asked.question.concept, asked.pictures[0][1].split("/")[0]) for asked in imported]
    assert kinds == [("attribute", "colour", "vg"), ("object size", "small", "hake"), ("relation", "spatial", "vg")]
    with pytest.raises(InputError, match="its path must name the task and the concept"):
        read(read_vl_checklist, rows, "other/x.json")


def test_which_description_stands_first_tells_nothing(read):
    rows = [[f"{n}.jpg", {"POS": [f"b {n}"], "NEG": [f"a {n}"]}] for n in range(400)]
    imported, _ = read(read_vl_checklist, rows, "Attribute/vg/state.json")
    first = sum(asked.question.candidates[0] == asked.question.answer for asked in imported)
    assert 160 < first < 240  # four standard deviations
    again, _ = read(read_vl_checklist, rows[::-1], "Attribute/vg/state.json")
    assert [asked.question for asked in again[::-1]] == [asked.question for asked in imported]
