import random

import pytest

from linkcontext.data.readers.question_checks import check_question, folded, unique_id
from linkcontext.data.readers.seed_bench import read_seed_bench
from linkcontext.data.readers.visual_genome import read_visual_genome
from linkcontext.data.readers.vl_checklist import read_vl_checklist
from linkcontext.data.readers.vl_icl import read_vl_icl
from linkcontext.errors import InputError
from linkcontext.records import Question


def test_questions_are_compared_without_case_spaces_and_composition():
    assert folded(" Cafe\u0301  au LAIT") == folded("caf\u00e9 au lait")


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (Question("t", "c", "Q?", "D", ("A", "B")), "f:1: `answer` 'D' is not one of the options A, B"),
        (Question("t", "c", "Q?", "A", ("A", "a ")), "f:1: two options are the same"),
        (Question("t", "c", " ", "A"), "f:1: the question, its answer or an option is blank"),
    ],
)
def test_wrong_questions_are_named(question, sentence):
    with pytest.raises(InputError, match=sentence):
        check_question(question, "f:1", question.answer)


def test_an_id_stands_once():
    ids = set()
    assert [unique_id("id", {"id": value}, ids, "f:1") for value in (1, "2")] == ["1", "2"]
    with pytest.raises(InputError, match="f:2: an earlier record has the `id` 1"):
        unique_id("id", {"id": "1"}, ids, "f:2")


JUNK = (None, 5, -1.5, True, "", "x", [], {}, [1], ["a"], {"a": 1}, [[]], [{}])


def spoilt(value, chance):
    """The value with keys missing and junk in places."""
    if chance.random() < 0.12:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {key: spoilt(each, chance) for key, each in value.items() if chance.random() > 0.05}
    return [spoilt(each, chance) for each in value] if isinstance(value, list) else value


def test_whatever_stands_in_a_record_there_is_a_sentence(read, icl, tmp_path):
    own = {"d": {"images": ["d"]}, "w": {"images": ["w"]}}
    asked = {"question": "Q", "image": ["a", "b"]}
    rows = [{"id": 1, **asked, "answer": [1, 2, 3], "operator": "+"}]
    rows += [{"id": 4, **asked, "classes": ["d", "w"], "support": own, "answer": "w"}]
    rows += [{"same": {**asked, "answer": "yes"}, "diff": {**asked, "answer": "no"}}]
    choices = {f"choice_{letter}": letter for letter in "abcd"}
    seed = {"question_id": 1, "question_type_id": 5, "data_id": "p", "question": "Q", "answer": "C", **choices}
    thing = {"names": ["cup"], "attributes": ["red"], "object_id": 1}
    relation = {"predicate": "on", "subject": {"name": "a"}, "object": {"names": ["b"]}}
    contents = (
        (read_seed_bench, {"questions": [seed | {"data_type": "image"}], "question_type": {"T": 5}}, "s.json"),
        (read_vl_checklist, [["p.jpg", {"POS": ["a"], "NEG": ["b"]}]], "Attribute/vg/size.json"),
        (read_visual_genome, [{"image_id": 1, "attributes": [thing]}], "a.json"),
        (read_visual_genome, [{"image_id": 1, "relationships": [relation]}], "r.json"),
        (read_vl_icl, rows, "t/query.json"),
    )
    icl("t", [], rows)
    chance = random.Random(0)
    outcomes = set()
    for reader, content, name in contents * 60:
        try:
            imported, problems = read(
                reader, spoilt(content, chance), name, tmp_path / "t" if reader is read_vl_icl else None
            )
            outcomes.add((bool(imported), bool(problems)))
        except InputError:
            outcomes.add("refused")
    assert outcomes >= {(True, False), (False, True), (True, True), "refused"}
