import pytest

from linkcontext.data.problems import Problems
from linkcontext.data.readers.true_micl import read_true_micl
from linkcontext.errors import InputError


def test_tasks_are_read_as_those_of_vl_icl(icl, tmp_path):
    asked = {"question": "What is the result?", "image": ["images/a.png"]}
    icl(
        "operator_induction",
        [{"id": 1, **asked, "operator": "x", "answer": 6}],
        [{"id": 1, **asked, "answer": [5, 1, 6]}],
    )
    icl("shapes_count", [{"id": 1, **asked, "answer": 2}], [{"id": 1, "image": "b.png", "question": "Q", "answer": 3}])
    imported = list(read_true_micl(tmp_path, Problems(strict=True)))
    assert [(i.question.task, i.question.concept, i.split, i.question.answer) for i in imported] == [
        ("operator_induction", "x", "query", "6"),
        ("operator_induction", "+", "support", "5"),
        ("operator_induction", "-", "support", "1"),
        ("operator_induction", "x", "support", "6"),
        ("shapes_count", "shapes_count", "query", "2"),
        ("shapes_count", "shapes_count", "support", "3"),
    ]
    assert imported[0].pictures == (("images/a.png", "operator_induction/images/a.png"),)


def test_other_keys_are_named(icl, tmp_path):
    icl("sudoku", [{"image": "a.png", "question": "Q", "answer": 1}], [{"img": "a.png", "q": "Q", "answer": 1}])
    with pytest.raises(
        InputError, match=r"support\.json: its records have the keys img, q, answer, without image, que"
    ):
        list(read_true_micl(tmp_path / "sudoku", Problems(strict=False)))
    (tmp_path / "sudoku" / "support.json").unlink()
    with pytest.raises(InputError, match=r"support\.json: cannot be read"):
        list(read_true_micl(tmp_path, Problems(strict=False)))
    with pytest.raises(InputError, match=r"no query\.json"):
        list(read_true_micl(tmp_path / "gone", Problems(strict=False)))
