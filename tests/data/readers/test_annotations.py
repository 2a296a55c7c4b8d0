import json
import random
from pathlib import Path

import pytest

from linkcontext.data.readers import annotations
from linkcontext.data.readers.vl_icl import vl_icl
from linkcontext.data.scan import Problems
from linkcontext.errors import InputError
from linkcontext.records import Question

COLOURS, ACTIONS = annotations.KINDS[0][2], annotations.KINDS[-1][2]


@pytest.fixture
def read(tmp_path):
    """Write a file and read it: what is asked, and the problems."""

    def run(reader, content, name="x.json", of=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        problems = Problems(strict=False)
        return list(reader(of or path, problems)), problems.sentences

    return run


def seed(number, **more):
    choices = {f"choice_{letter}": word for letter, word in zip("abcd", ("One", "Two", "Three", "Four"), strict=True)}
    told = {
        "question_id": number,
        "question_type_id": 5,
        "data_id": f"p{number}",
        "question": "How many?",
        "answer": "C",
    }
    return {**told, "data_type": "image", **choices, **more}


def seeds(*questions):
    return {"questions": list(questions), "question_type": {"Instances Counting": 5, "Action Recognition": 10}}


def test_seed_bench_by_hand(read):
    found, problems = read(
        annotations.seed, seeds(seed("1"), seed(2, data_type="video"), seed(3, choice_a=1, answer="A"))
    )
    assert problems[0].endswith("about no single picture (video): 1.")
    assert [asked.pictures for asked in found] == [(("p1",),), (("p3",),)]
    task = "Instances Counting"
    assert found[0].question == Question(task, task, "How many?", "Three", ("One", "Two", "Three", "Four"))
    assert found[1].question.answer == "1"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"answer": "E"}, r"x.json:1: record 1 \(question_id 2\): `answer` 'E' is none of the options One, Two, Three"),
        ({"choice_b": "one "}, "two options are the same"),
        ({"choice_a": "cafe\u0301", "choice_b": "caf\u00e9"}, "two options are the same"),
        ({"choice_b": " "}, "an option is blank"),
        ({"question": " \u200b"}, "the question, its answer or an option is blank"),
        ({"choice_d": None}, "`choice_d` is missing"),
        ({"question": ""}, "`question` is missing"),
        ({"question_type_id": 6}, "`question_type_id` is none of 5, 10"),
        ({"data_id": None}, "`data_id` is missing"),
        ({"data_type": None}, "record 1: `data_type` is missing"),
        ({"question_id": 1}, "record 1: `question_id` 1 stood there before. Keep one record of it"),
        ({"question_id": None}, "`question_id` is missing"),
    ],
)
def test_wrong_questions_of_seed_bench(read, tmp_path, more, sentence):
    content = seeds(seed(1), seed(2, **more), seed(3))
    found, problems = read(annotations.seed, content)
    assert [asked.pictures[0] for asked in found] == [("p1",), ("p3",)]
    assert len(problems) == 1
    with pytest.raises(InputError, match=sentence):
        list(annotations.seed(tmp_path / "x.json", Problems(strict=True)))
    with pytest.raises(InputError, match="`question_type` is missing"):
        read(annotations.seed, {"questions": []})


def test_words_in_pictures_are_chosen_among_four(icl, tmp_path):
    def asked(n, answer):
        return {"id": n, "question": "What is written?", "image": [f"{n}.png"], "answer": answer}

    words = ["Stop", "STOP", "exit", "north", "11", "cafe"]
    icl("textocr", [asked(n, word) for n, word in enumerate(words)], [asked(9, "open")])
    found = list(vl_icl(tmp_path / "textocr", Problems(strict=True)))
    assert [a.question.answer for a in found] == [*words, "open"]
    for question in (a.question for a in found):
        assert question.answer in question.candidates
        assert len({c.casefold() for c in question.candidates}) == len(question.candidates) == 4
        assert {*question.candidates} <= {*words, "open"}
    assert len({a.question.candidates.index(a.question.answer) for a in found}) > 1
    assert found == list(vl_icl(tmp_path / "textocr", Problems(strict=True)))


def test_files_are_read_from_the_folder_they_lie_in(read, icl, tmp_path, monkeypatch):
    asked = {"question": "What?", "image": ["a.png"]}
    icl("clevr", [{"id": 1, **asked, "answer": 3}], [{"id": 1, **asked, "answer": 2}])
    read(annotations.vl_checklist, [["1.jpg", {"POS": ["a"], "NEG": ["b"]}]], "Attribute/vg/color.json")
    monkeypatch.chdir(tmp_path / "Attribute" / "vg")
    (found,) = annotations.vl_checklist(Path("color.json"), Problems(strict=True))
    assert (found.question.task, found.pictures) == ("attribute", (("1.jpg", "vg/1.jpg"),))


def test_vl_checklist_by_hand(read, tmp_path):
    rows = [
        ["VG_100K/1.jpg", {"POS": ["key ON desk"], "NEG": ["key under desk"]}],
        ["x.jpg", {"POS": ["a"], "NEG": []}],
    ]
    found, (problem,) = read(annotations.vl_checklist, rows, "data/Relation/vg/spatial.json")
    assert "spatial.json:1: record 1: `NEG` is missing, empty" in problem
    (asked,) = found
    assert asked.pictures == (("VG_100K/1.jpg", "vg/VG_100K/1.jpg"),)
    q = asked.question
    assert (q.task, q.concept, q.question, q.answer) == ("relation", "spatial", annotations.WHICH, "key on desk")
    assert sorted(q.candidates) == ["key on desk", "key under desk"]
    read(annotations.vl_checklist, rows[:1], "data/Object/Size/hake_size/hake_obj_small.json")
    read(annotations.vl_checklist, rows[:1], "data/Attribute/vaw/color.json")
    found = list(annotations.vl_checklist(tmp_path / "data", Problems(strict=False)))
    kinds = [(asked.question.task, asked.question.concept, asked.pictures[0][1].split("/")[0]) for asked in found]
    assert kinds == [("attribute", "colour", "vg"), ("object size", "small", "hake"), ("relation", "spatial", "vg")]
    with pytest.raises(InputError, match="its path must say what it asks"):
        read(annotations.vl_checklist, rows, "other/x.json")


def test_which_description_stands_first_tells_nothing(read):
    rows = [[f"{n}.jpg", {"POS": [f"b {n}"], "NEG": [f"a {n}"]}] for n in range(400)]
    found, _ = read(annotations.vl_checklist, rows, "Attribute/vg/state.json")
    first = sum(asked.question.candidates[0] == asked.question.answer for asked in found)
    assert 160 < first < 240  # four standard deviations
    again, _ = read(annotations.vl_checklist, rows[::-1], "Attribute/vg/state.json")
    assert [asked.question for asked in again[::-1]] == [asked.question for asked in found]


def things(*pairs):
    return [{"names": [name], "attributes": list(said), "object_id": 1} for name, *said in pairs]


def test_visual_genome_attributes_by_hand(read):
    one = things(("clock", "green", "tall"), ("Car", "Gray", "parked"), ("man", "walking"), ("bird",))
    two = things(
        ("cup", "red", "white"), ("dog", "big"), ("dog", "little"), ("door", "open"), ("door", "open", "wooden")
    )
    old = [{"object_names": ["sky"], "attributes": ["blue"]}]
    content = [{"image_id": 1, "attributes": one}, {"image_id": 2, "attributes": two}, {"id": 3, "attributes": old}]
    found, problems = read(annotations.visual_genome, content)
    assert problems == []
    assert [asked.question for asked in found] == [
        Question("attribute", "colour", "What colour is the clock?", "green", COLOURS),
        Question("attribute", "colour", "What colour is the car?", "grey", COLOURS),
        Question("attribute", "action", "What is the man doing?", "walking", ACTIONS),
        Question("attribute", "state", "Is the door open or closed?", "open", ("open", "closed")),
        Question("attribute", "material", "What is the door made of?", "wood", annotations.KINDS[1][2]),
        Question("attribute", "colour", "What colour is the sky?", "blue", COLOURS),
    ]
    assert found[0].pictures == (("VG_100K/1.jpg", "VG_100K_2/1.jpg", "1.jpg"),)


def relation(one, said, other):
    return {"predicate": said, "subject": {"name": one}, "object": {"names": [other]}}


def test_visual_genome_relations_by_hand_and_where_pictures_lie(read, tmp_path):
    told = [relation("key", "ON", "board"), relation("man", "wears", "hat"), relation("cup", "near", "jug")]
    told += [relation("a", "on", "b"), relation("a", "under", "b"), relation("x", "made of", "y")]
    place = {"image_id": 7, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/9.jpg"}
    (tmp_path / "image_data.json").write_text(json.dumps([place]))
    found, problems = read(
        annotations.visual_genome, [{"image_id": 7, "relationships": told}], "relationships.json", tmp_path
    )
    assert problems == []
    assert [asked.question for asked in found] == [
        Question("relation", "spatial", "Is the key on or under the board?", "on", ("on", "under")),
        Question("relation", "action", "What is the man doing with the hat?", "wearing", annotations.DOING),
        Question("relation", "spatial", "Is the cup next to or far from the jug?", "next to", ("next to", "far from")),
    ]
    assert {asked.pictures for asked in found} == {(("VG_100K_2/9.jpg",),)}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"attributes": []}, "record 1: `image_id` is missing"),
        ({"image_id": 1, "attributes": []}, "`image_id` 1 stood there before"),
        ({"image_id": 2}, r"record 1 \(image_id 2\): `attributes` is missing or no list"),
        ({"image_id": 2, "attributes": [{"attributes": ["red"]}]}, "a thing has no `names`"),
        ({"image_id": 2, "attributes": things(("cup", 3))}, "3 is no text"),
        ({"image_id": 2, "relationships": [{"predicate": "on"}]}, "`subject` is missing"),
        ([], "record 1: `image_id` is missing"),
    ],
)
def test_wrong_records_of_visual_genome(read, tmp_path, record, sentence):
    found, problems = read(annotations.visual_genome, [{"image_id": 1, "attributes": things(("cup", "red"))}, record])
    assert len(found) == len(problems) == 1
    with pytest.raises(InputError, match=sentence):
        list(annotations.visual_genome(tmp_path / "x.json", Problems(strict=True)))


@pytest.fixture
def icl(tmp_path):
    def write(task, query, support):
        (tmp_path / task).mkdir()
        (tmp_path / task / "query.json").write_text(json.dumps(query))
        (tmp_path / task / "support.json").write_text(json.dumps(support))

    return write


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
    found = list(vl_icl(tmp_path, problems))
    assert [problem.partition(": ")[0] for problem in problems.sentences] == [str(tmp_path / "cobsat")]
    told = [(a.question.concept, a.split, a.question.answer, len(a.pictures)) for a in found]
    assert [(a.question.task, a.question.context) for a in found if a.question.context] == [("open_mi", "4")] * 3
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
    assert found[0].pictures == (("a.png", "clevr/a.png"),)
    assert found[5].question.candidates == ("dax", "wug")


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
    assert len(list(vl_icl(tmp_path / "textocr", problems))) == 1
    assert [p.partition(": record ")[2][:22] for p in problems.sentences] == [
        "0: `answer` 'x' is non",
        "1: `answer` is missing",
        "2: `image` is missing,",
        "3: `answer` must be on",
        "5: `id` 5 stood there ",
    ]
    with pytest.raises(InputError, match=r"no query\.json"):
        list(vl_icl(tmp_path / "gone", Problems(strict=False)))


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
    contents = (
        (annotations.seed, seeds(seed(1)), "s.json"),
        (annotations.vl_checklist, [["p.jpg", {"POS": ["a"], "NEG": ["b"]}]], "Attribute/vg/size.json"),
        (annotations.visual_genome, [{"image_id": 1, "attributes": things(("cup", "red"))}], "a.json"),
        (annotations.visual_genome, [{"image_id": 1, "relationships": [relation("a", "on", "b")]}], "r.json"),
        (vl_icl, rows, "t/query.json"),
    )
    icl("t", [], rows)
    chance = random.Random(0)
    outcomes = set()
    for reader, content, name in contents * 60:
        try:
            found, problems = read(reader, spoilt(content, chance), name, tmp_path / "t" if reader is vl_icl else None)
            outcomes.add((bool(found), bool(problems)))
        except InputError:
            outcomes.add("refused")
    assert outcomes >= {(True, False), (False, True), (True, True), "refused"}
