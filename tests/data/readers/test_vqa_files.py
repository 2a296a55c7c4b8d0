import json

import pytest

from linkcontext.data.readers.vqa import VqaQuestion, annotation_file, read_vqa, read_vqa_answers, vqa_paths
from linkcontext.errors import InputError

QUESTION = {"question_id": 7, "image_id": 42, "question": "What is it?"}
ANNOTATION = {"question_id": 7, "answers": [{"answer": "cat"}] * 9 + [{"answer": "dog"}]}


@pytest.fixture
def write(tmp_path):
    def file(name, content):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return file


def test_questions_and_answers_by_hand(write):
    path = write("q.json", {"questions": [QUESTION, QUESTION | {"question_id": 8, "file_name": "a.jpg"}]})
    answers = read_vqa_answers(write("a.json", {"annotations": [ANNOTATION, ANNOTATION | {"question_id": 8}]}))
    people = ("cat",) * 9 + ("dog",)
    assert answers == {"7": people, "8": people}
    assert list(read_vqa(path, answers)) == [
        VqaQuestion("7", "42", "What is it?", people),
        VqaQuestion("8", "a.jpg", "What is it?", people),
    ]
    with pytest.raises(InputError, match="question_id 7 has no annotation"):
        list(read_vqa(path, {}))


def test_annotations_are_in_the_file_or_beside_it(write):
    whole = write("x.json", {"questions": [QUESTION], "annotations": [ANNOTATION]})
    assert annotation_file(whole) == whole
    questions = write("v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [QUESTION]})
    with pytest.raises(InputError, match=r"annotations are not beside it .*v2_mscoco_val2014_annotations.json"):
        annotation_file(questions)
    beside = write("v2_mscoco_val2014_annotations.json", {"annotations": [ANNOTATION]})
    assert annotation_file(questions) == beside


def test_a_number_is_a_picture_of_coco(write):
    paths = vqa_paths(write("q.json", {"data_subtype": "val2014", "questions": []}))("42")
    assert paths[:2] == ["COCO_val2014_000000000042.jpg", "000000000042.jpg"]
    assert {"val2014/COCO_val2014_000000000042.jpg", "images/val2014/000000000042.jpg"} <= {*paths}
    assert vqa_paths(write("p.json", {"questions": []}))("a.jpg") == ["a.jpg", "images/a.jpg"]


def test_ten_people_answer(write):
    path = write("a.json", {"annotations": [ANNOTATION | {"answers": ANNOTATION["answers"][:9]}]})
    with pytest.raises(InputError, match="record 0: 9 answers, but VQA accuracy is defined for 10"):
        read_vqa_answers(path)
