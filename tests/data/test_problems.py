import pytest

from linkcontext.data.problems import Problems
from linkcontext.errors import InputError


def test_what_is_left_out_is_collected_or_raised():
    problems = Problems(strict=False)
    problems.add("one")
    with problems.leaving_out():
        raise InputError("two")
    problems.note("three")
    assert problems.sentences == ["one", "two", "three"]
    with pytest.raises(ZeroDivisionError), problems.leaving_out():  # no other error is caught
        1 / 0  # noqa: B018


def test_strict_problems_raise_the_first_and_notes_never_do():
    problems = Problems(strict=True)
    problems.note("a note")
    with pytest.raises(InputError, match=r"^one$"):
        problems.add("one")
    with pytest.raises(InputError, match=r"^two$"), problems.leaving_out():
        raise InputError("two")
    assert problems.sentences == ["a note"]


def test_a_source_without_anything_usable_has_the_reasons():
    problems = Problems(strict=False)
    assert str(problems.nothing_usable("f.json", "question")) == "f.json: holds no question that can be used."
    problems.add("record 0: wrong.")
    assert str(problems.nothing_usable("f.json", "question")).endswith("can be used. Left out: record 0: wrong.")
