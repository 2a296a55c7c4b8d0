"""smmile: each problem openly and as a choice, with its examples and without."""

import pytest
from PIL import Image

from linkcontext.config import eval_config
from linkcontext.episodes.scaffold import SCAFFOLDS, image_ids
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import configured, run_evaluation
from linkcontext.evaluation.task import find_task
from linkcontext.evaluation.tasks.recall_questions import RecallAnswer
from linkcontext.evaluation.tasks.retention_rows import retention_rows

datasets = pytest.importorskip("datasets")
ANSWERS = {"p1": ["benign", "malignant", "benign"], "p2": ["left", "right"], "p3": ["same", "same"]}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    given = [(problem, order, answer) for problem, of in ANSWERS.items() for order, answer in enumerate(of)]
    columns = {
        "question": [f"Which kind ({problem})?" for problem, *_ in given],
        "answer": [answer for *_, answer in given],
        "image": [Image.effect_noise((8, 8), number + 1) for number in range(len(given))],
        "problem_id": [problem for problem, *_ in given],
        "order": [order for _, order, _ in given],
    }
    features = {name: datasets.Value("string") for name in columns} | {"order": datasets.Value("int64")}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features({**features, "image": datasets.Image()}))
    table.to_parquet(str(tmp_path / "smmile.parquet"))
    return str(tmp_path / "smmile.parquet")


def opened(source):
    task = find_task("smmile")
    return task.open(configured(eval_config(data=source), task).episodes, SCAFFOLDS["turns"])


def test_each_problem_is_asked_in_four_ways(source):
    test = opened(source)
    asked = {question.id: question for question in test.questions}
    assert len(asked) == 3 * 2 + 2 * 2  # p3 has one answer only, which leaves no choice
    icl, alone = asked["p1/smmile open"], asked["p1/smmile open, no examples"]
    assert [m["content"][0]["text"] for m in icl.messages if m["role"] == "assistant"] == ["benign", "malignant"]
    assert (len(image_ids(icl.messages)), len(image_ids(alone.messages))) == (3, 1)
    assert (icl.gold, {*icl.candidates}) == (("benign",), {"benign", "malignant"})
    choice = asked["p2/smmile choice"]
    text = choice.messages[-1]["content"][-1]["text"]
    assert choice.candidates == ("A", "B")
    assert f"{choice.gold[0]}. right" in text
    assert text.startswith("Which kind (p2)? A. ")
    assert text.endswith("Answer with the option's letter.")
    assert asked["p3/smmile open"].candidates == ()


def test_replies_are_scored_as_by_the_benchmark(source):
    test = opened(source)
    replies = {
        q.id: RecallAnswer(q.id, f" {q.gold[0].upper()}.", tuple(float(c == q.gold[0]) for c in q.candidates))
        for q in test.questions
    }
    rows = {(row["task"], row["scoring"]): row for row in retention_rows(test, replies)}
    assert {row["accuracy"] for row in rows.values()} == {1.0}
    assert rows["smmile open", "generate"]["metric"] == "exact_match"
    assert rows["smmile open", "generate"]["n_queries"] == 3
    assert rows["smmile open", "likelihood_sum"]["n_queries"] == 2
    assert rows["smmile choice", "generate"]["chance"] == 0.5
    both = {q.id: RecallAnswer(q.id, "A or B", (0.0,) * len(q.candidates)) for q in test.questions}
    rows = {(row["task"], row["scoring"]): row["accuracy"] for row in retention_rows(test, both)}
    assert rows["smmile choice", "generate"] == rows["smmile open", "generate"] == 0
    assert rows["smmile choice", "likelihood_sum"] == 0.5  # a tie


def test_a_model_is_measured(source, nano, tmp_path):
    run = eval_config(data=source, model=str(nano), episodes=2, out=str(tmp_path / "run"))
    metrics = run_evaluation(run, benchmark="smmile")
    assert {row["task"] for row in metrics["rows"]} >= {"smmile open", "smmile open, no examples", "smmile choice"}
    assert run_evaluation(run, benchmark="smmile")["rows"] == metrics["rows"]


def test_options_that_it_does_not_read_are_refused(source):
    task = find_task("smmile")
    with pytest.raises(InputError, match="--ways: --benchmark smmile brings its own examples"):
        configured(eval_config(data=source, ways=3), task)
    with pytest.raises(InputError, match="--benchmark smmile needs --data: hf:smmile/SMMILE"):
        configured(eval_config(), task)
