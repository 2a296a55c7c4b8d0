import pytest

from linkcontext.data.problems import Problems
from linkcontext.data.readers.seed_bench import read_seed_bench
from linkcontext.errors import InputError
from linkcontext.records import Question


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
    imported, problems = read(
        read_seed_bench, seeds(seed("1"), seed(2, data_type="video"), seed(3, choice_a=1, answer="A"))
    )
    assert problems[0].endswith("not about one picture (video): 1.")
    assert [asked.pictures for asked in imported] == [(("p1",),), (("p3",),)]
    task = "Instances Counting"
    assert imported[0].question == Question(task, task, "How many?", "Three", ("One", "Two", "Three", "Four"))
    assert imported[1].question.answer == "1"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"answer": "E"},
            r"x.json:1: record 1 \(question_id 2\): `answer` 'E' is not one of the options One, Two, Three",
        ),
        ({"choice_b": "one "}, "two options are the same"),
        ({"choice_a": "cafe\u0301", "choice_b": "caf\u00e9"}, "two options are the same"),
        ({"choice_b": " "}, "an option is blank"),
        ({"question": " \u200b"}, "the question, its answer or an option is blank"),
        ({"choice_d": None}, "`choice_d` is missing"),
        ({"question": ""}, "`question` is missing"),
        ({"question_type_id": 6}, "`question_type_id` is not one of 5, 10"),
        ({"data_id": None}, "`data_id` is missing"),
        ({"data_type": None}, "record 1: `data_type` is missing"),
        ({"question_id": 1}, "record 1: an earlier record has the `question_id` 1"),
        ({"question_id": None}, "`question_id` is missing"),
    ],
)
def test_wrong_questions_of_seed_bench(read, tmp_path, more, sentence):
    content = seeds(seed(1), seed(2, **more), seed(3))
    imported, problems = read(read_seed_bench, content)
    assert [asked.pictures[0] for asked in imported] == [("p1",), ("p3",)]
    assert len(problems) == 1
    with pytest.raises(InputError, match=sentence):
        list(read_seed_bench(tmp_path / "x.json", Problems(strict=True)))
    with pytest.raises(InputError, match="`question_type`, which names the tasks, is missing"):
        read(read_seed_bench, {"questions": []})
