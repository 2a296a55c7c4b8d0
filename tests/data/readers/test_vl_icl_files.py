import pytest

from linkcontext.data.problems import Problems
from linkcontext.data.readers.vl_icl import read_vl_icl
from linkcontext.errors import InputError


def test_words_in_pictures_are_chosen_among_four(icl, tmp_path):
    def asked(n, answer):
        return {"id": n, "question": "What is written?", "image": [f"{n}.png"], "answer": answer}

    words = ["Stop", "STOP", "exit", "north", "11", "cafe"]
    icl("textocr", [asked(n, word) for n, word in enumerate(words)], [asked(9, "open")])
    imported = list(read_vl_icl(tmp_path / "textocr", Problems(strict=True)))
    assert [a.question.answer for a in imported] == [*words, "open"]
    for question in (a.question for a in imported):
        assert question.answer in question.candidates
        assert len({c.casefold() for c in question.candidates}) == len(question.candidates) == 4
        assert {*question.candidates} <= {*words, "open"}
    assert len({a.question.candidates.index(a.question.answer) for a in imported}) > 1
    assert imported == list(read_vl_icl(tmp_path / "textocr", Problems(strict=True)))


def test_vl_icl_by_hand(icl, tmp_path):
    asked = {"question": "What?", "image": ["a.png"]}
    icl("clevr", [{"id": 1, **asked, "answer": 3}], [{"id": 1, **asked, "answer": 2}])
    icl(
        "operator_induction_interleaved",
        [{"id": 1, "question": "Q", "image": ["q1", "q2"], "operator": "-", "answer": 1}],
        [{"id": 1, "question": "Q", "image": ["s1", "s2"], "answer": [3, 1, 2]}],
    )
    own = {"dax": {"images": ["d.png"]}, "wug": {"images": ["w.png"]}}
    icl("open_mi", [{"id": 4, **asked, "classes": ["dax", "wug"], "support": own, "answer": "wug"}], [{"any": "thing"}])
    pair = {"question": "Q", "image": ["x", "y"]}
    icl(
        "matching_mi",
        [{"id": 1, **pair, "answer": "yes"}],
        [{"same": {**pair, "answer": "yes"}, "diff": {**pair, "answer": "no"}}],
    )
    icl("cobsat", [{"id": 1}], [])
    problems = Problems(strict=False)
    imported = list(read_vl_icl(tmp_path, problems))
    assert [problem.partition(": ")[0] for problem in problems.sentences] == [str(tmp_path / "cobsat")]
    told = [(a.question.concept, a.split, a.question.answer, len(a.pictures)) for a in imported]
    assert [(a.question.task, a.question.context) for a in imported if a.question.context] == [("open_mi", "4")] * 3
    assert told == [
        ("clevr", "query", "3", 1),
        ("clevr", "support", "2", 1),
        ("matching_mi", "query", "yes", 2),
        ("matching_mi", "support", "yes", 2),
        ("matching_mi", "support", "no", 2),
        ("open_mi", "support", "dax", 1),
        ("open_mi", "support", "wug", 1),
        ("open_mi", "query", "wug", 1),
        ("-", "query", "1", 2),
        ("+", "support", "3", 2),
        ("-", "support", "1", 2),
        ("x", "support", "2", 2),
    ]
    assert imported[0].pictures == (("a.png", "clevr/a.png"),)
    assert imported[5].question.candidates == ("dax", "wug")


def test_wrong_records_of_vl_icl(icl, tmp_path):
    asked = {"question": "What?", "image": "a.png"}
    rows = [{"id": 1, **asked, "answer": "x", "classes": ["y", "z"]}, {"id": 2, **asked}, {"id": 3, "question": "Q"}]
    rows += [
        {"id": 4, **asked, "answer": [1, 2]},
        {"id": 5, **asked, "answer": "ok"},
        {"id": 5, **asked, "answer": "ok"},
    ]
    icl("textocr", rows, [])
    problems = Problems(strict=False)
    assert len(list(read_vl_icl(tmp_path / "textocr", problems))) == 1
    assert [p.partition(": record ")[2][:22] for p in problems.sentences] == [
        "0: `answer` 'x' is not",
        "1: `answer` is missing",
        "2: `image` is missing,",
        "3: `answer` must be on",
        "5: an earlier record h",
    ]
    with pytest.raises(InputError, match=r"no query\.json"):
        list(read_vl_icl(tmp_path / "gone", Problems(strict=False)))
