import json

import numpy as np
import pytest
from PIL import Image

from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.tasks.question_files import file_recall_test

TURNS = SCAFFOLDS["turns"]
VQA = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"


def text(words):
    return {"type": "text", "text": words}


def image(name):
    return {"type": "image", "image": name}


def draw(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def llava(tmp_path):
    """Write records and give the path."""

    def write(*records):
        for number, name in enumerate(("a.png", "images/b.png")):
            draw(tmp_path / name, number)
        (tmp_path / "llava.json").write_text(json.dumps(records), encoding="utf-8")
        return tmp_path / "llava.json"

    return write


def talk(*values):
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


@pytest.fixture
def vqa(tmp_path):
    def write(questions, annotations, picture="val2014/COCO_val2014_000000000042.jpg", **top):
        draw(tmp_path / picture)
        (tmp_path / VQA).write_text(json.dumps({"questions": questions, **top}), encoding="utf-8")
        (tmp_path / ANNOTATIONS).write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
        return tmp_path / VQA

    return write


def question(number=7, **more):
    return {"question_id": number, "image_id": 42, "question": "What colour?", **more}


def annotation(number=7, people=10):
    return {"question_id": number, "answers": [{"answer": "red", "answer_id": i} for i in range(people)]}


def test_a_conversation_gives_a_probe_for_each_answer_after_the_right_ones_before(llava):
    path = llava({"id": "x", "image": "a.png", "conversations": talk("<image>\nWhat?", "A cat.", "Colour?", "Red")})
    exam = file_recall_test(path, TURNS, 256, 0)
    first, second = sorted(exam.questions, key=lambda probe: probe.id)
    asked = {"role": "user", "content": [image("a.png"), text("What?")]}
    assert first.messages == (asked,)
    assert second.messages == (
        asked,
        {"role": "assistant", "content": [text("A cat.")]},
        {"role": "user", "content": [text("Colour?")]},
    )
    assert (first.gold, second.gold) == (("A cat.",), ("Red",))
    assert first.cluster == second.cluster == "a.png"
    assert exam.total == 2


def test_pictures_are_found_beside_the_file_and_below_images(llava, tmp_path):
    path = llava({"image": ["a.png", "b.png"], "conversations": talk("First <image> then <image>: same?", "no")})
    exam = file_recall_test(path, TURNS, 256, 0)
    parts = exam.questions[0].messages[0]["content"]
    assert parts == [text("First "), image("a.png"), text(" then "), image("b.png"), text(": same?")]
    assert exam.dataset.path("b.png") == tmp_path / "images" / "b.png"


def test_a_record_without_a_picture_is_asked_in_words(llava):
    (probe,) = file_recall_test(llava({"conversations": talk("Two and two?", "4")}), TURNS, 9, 0).questions
    assert probe.messages == ({"role": "user", "content": [text("Two and two?")]},)


def test_messages_and_images_are_asked_too_and_answers_not_to_be_learnt_are_not(llava, tmp_path):
    llava()
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>What?"}]
    turns += [{"role": "assistant", "content": "A cat.", "loss": False}, {"role": "user", "content": "Colour?"}]
    record = {"messages": [*turns, {"role": "assistant", "content": "Red"}], "images": ["a.png"]}
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps({**record, "messages": record["messages"][1:3]}) + "\n")
    (probe,) = file_recall_test(path, TURNS, 9, 0).questions
    assert (probe.id, probe.gold, len(probe.messages)) == ("record 0/answer 1", ("Red",), 4)
    assert probe.messages[0] == {"role": "system", "content": [text("Be brief.")]}


def test_fewer_questions_are_the_first_of_more_and_their_pictures_alone_are_opened(llava):
    records = [{"image": "a.png", "conversations": talk(f"<image>{i}?", str(i))} for i in range(30)]
    path = llava(*records)
    many, few = file_recall_test(path, TURNS, 20, 3), file_recall_test(path, TURNS, 5, 3)
    assert few.questions == many.questions[:5]
    assert few.total == 30
    assert file_recall_test(path, TURNS, 20, 4).questions != many.questions
    missing = llava(*records, {"image": "gone.png", "conversations": talk("<image>?", "x")})
    chosen = [file_recall_test(missing, TURNS, 1, seed).questions[0].id for seed in range(3)]
    assert "record 30/answer 0" not in chosen


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"image": "a.png"}, "record 1: neither a conversation of LLaVA"),
        ({"id": 5, "image": 3, "conversations": talk("q", "a")}, r"record 1 \(id 5\): `image` must be a path"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "a"}]}, "`value` is missing"),
        ({"conversations": [{"from": "cat", "value": "miaow"}]}, "the role 'cat' is not one of human, gpt"),
        ({"conversations": talk("only a question")}, "must take turns"),
        ({"conversations": talk("q", "a", "q")}, "must take turns"),
        ({"image": "a.png", "conversations": talk("<image><image>?", "a")}, "has 2 <image> marks and .* 1 pict"),
        ({"image": "a.png", "conversations": talk("no mark?", "a")}, "has 0 <image> marks and the record 1"),
        ({"image": "a.png", "conversations": talk("q?", "<image>")}, "gpt shows <image>"),
        ({"image": "gone.png", "conversations": talk("<image>?", "a")}, "record 1/answer 0: its picture gone.png"),
        ({"image": "llava.json", "conversations": talk("<image>?", "a")}, "record 1/answer 0: .*not a picture"),
    ],
)
def test_bad_llava_records_are_named(llava, record, complaint):
    good = {"image": "a.png", "conversations": talk("<image>?", "a")}
    path = llava(good, record)
    with pytest.raises(InputError, match=complaint) as error:
        file_recall_test(path, TURNS, 256, 0)
    assert str(path) in str(error.value)


def test_vqa_questions_find_their_annotations_and_coco_pictures(vqa, tmp_path):
    path = vqa([question()], [annotation(8), annotation(7)], data_subtype="val2014")
    exam = file_recall_test(path, TURNS, 256, 0)
    (probe,) = exam.questions
    assert probe.messages == ({"role": "user", "content": [image("42"), text("What colour?")]},)
    assert (probe.task, probe.gold, probe.cluster) == ("vqa", ("red",) * 10, "42")
    assert exam.dataset.path("42") == tmp_path / "val2014" / "COCO_val2014_000000000042.jpg"
    assert {item.id for item in exam.dataset.items} == {VQA, ANNOTATIONS, "42"}


@pytest.mark.parametrize(
    ("more", "picture"),
    [({}, "000000000042.jpg"), ({"file_name": "p.png"}, "p.png"), ({"image": "q.png"}, "images/q.png")],
)
def test_vqa_pictures_by_other_names(vqa, tmp_path, more, picture):
    exam = file_recall_test(vqa([question(**more)], [annotation()], picture), TURNS, 1, 0)
    assert exam.dataset.root / exam.dataset.items[-1].path == tmp_path / picture


def test_the_scaffold_is_put_around_vqa_questions(vqa):
    lcl = file_recall_test(vqa([question()], [annotation()], "000000000042.jpg"), SCAFFOLDS["lcl"], 1, 0).questions[0]
    assert lcl.messages[0]["role"] == "system"
    assert lcl.messages[1]["content"][0]["text"].startswith("[FINAL QUESTION]: Based on the previous examples, What")


@pytest.mark.parametrize(
    ("questions", "annotations", "complaint"),
    [
        ([{"question_id": 7, "image_id": 42}], [annotation()], "record 0: `question` is missing"),
        ([question() | {"question_id": None}], [annotation()], "record 0: `question_id` is missing"),
        ([{"question_id": 7, "question": "?"}], [annotation()], "record 0: `image_id` is missing"),
        ([question(9)], [annotation()], "question_id 9 has no annotation"),
        ([question(), question()], [annotation()], "record 1: an earlier record has the `question_id` 7"),
        (
            [question()],
            [annotation(), annotation()],
            "annotations.json:1: record 1: an earlier record has the `question_id` 7",
        ),
        ([question()], [annotation(people=9)], "annotations.json:1: record 0: 9 answers, .* defined for 10"),
        ([question()], [{"question_id": 7}], "annotations.json:1: record 0: `answers` is missing"),
        ([question()], [annotation()], "question 7: its picture 42 is not there"),
        ([], [annotation()], "has no question"),
    ],
)
def test_bad_vqa_records_are_named(vqa, questions, annotations, complaint):
    with pytest.raises(InputError, match=complaint):
        file_recall_test(vqa(questions, annotations), TURNS, 256, 0)


def test_files_that_are_neither(tmp_path, vqa):
    path = vqa([question()], [annotation()])
    (tmp_path / ANNOTATIONS).unlink()
    with pytest.raises(InputError, match=f"annotations are not beside it .*{ANNOTATIONS}"):
        file_recall_test(path, TURNS, 1, 0)
    for content, complaint in (
        ("{", "not JSON"),
        ('{"a": 1}', "neither a conversation of LLaVA"),
        ("[]", "no question"),
    ):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(InputError, match=complaint):
            file_recall_test(tmp_path / "other.json", TURNS, 1, 0)
    with pytest.raises(InputError, match="cannot be read"):
        file_recall_test(tmp_path / "gone.json", TURNS, 1, 0)
