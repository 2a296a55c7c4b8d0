"""covip: earlier dialogues with pictures, a new picture, and a question about what was said."""

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


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write two rows, the second with one dialogue less than pictures if it is `torn`; gives the parquet file."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

    def rows(name, answer_key="answer", torn=False):
        noise = [Image.effect_noise((8, 8), number + 1) for number in range(6)]
        said = ["User: This is Pino, by the river.\nModel: Lovely.", "User: My cup, at home.\nModel: Nice."]
        columns = {
            "images_context": [noise[:2], noise[2:4]],
            "dialogues_context": [said, said[: 1 if torn else 2]],
            "query_image": noise[4:],
            answer_key: ["by the river", "at home"],
        }
        several = {"images_context": datasets.List(datasets.Image()), "query_image": datasets.Image()}
        texts = {"dialogues_context": datasets.List(datasets.Value("string")), answer_key: datasets.Value("string")}
        table = datasets.Dataset.from_dict(columns, features=datasets.Features({**several, **texts}))
        table.to_parquet(str(tmp_path / name))
        return str(tmp_path / name)

    return rows


def opened(source):
    task = find_task("covip")
    return task.open(configured(eval_config(data=source), task).episodes, SCAFFOLDS["turns"])


@pytest.mark.parametrize(
    ("name", "key", "task", "metric", "reply", "accuracy"),
    [
        ("lsd.parquet", "answer", "covip last seen", "f1", "//boxed{by the river}", (1 + 0) / 2),
        ("test-itr.parquet", "answer", "covip triggered recall", "accuracy", "SKS, of course", 1.0),
        ("lar.parquet", "last_action", "covip last action", "f1", "at home", (0 + 1) / 2),
    ],
)
def test_each_task_has_the_metric_of_the_benchmark(write, name, key, task, metric, reply, accuracy):
    test = opened(write(name, key))
    for question in test.questions:
        texts = [part["text"] for part in question.messages[0]["content"] if part["type"] == "text"]
        assert "".join(texts).index("Pino") < "".join(texts).index("New picture:")
        assert len(image_ids(question.messages)) == 3
        assert image_ids(question.messages)[-1] == question.cluster
    (row,) = retention_rows(test, {q.id: RecallAnswer(q.id, reply) for q in test.questions})
    assert (row["task"], row["metric"], row["accuracy"], row["n_queries"]) == (task, metric, accuracy, 2)


def test_a_model_is_measured_on_the_rows_that_are_whole(write, nano, tmp_path):
    source = write("lsd.parquet", torn=True)
    run = eval_config(data=source, model=str(nano), out=str(tmp_path / "run"))
    (row,) = run_evaluation(run, benchmark="covip")["rows"]
    assert (row["task"], row["n_queries"]) == ("covip last seen", 1)
    assert "row 1: `images_context` and `dialogues_context` must be lists" in (tmp_path / "run/config.json").read_text()
    with pytest.raises(InputError, match="must be lists of the same length"):
        task = find_task("covip")
        task.open(configured(eval_config(data=source, strict=True), task).episodes, SCAFFOLDS["turns"])


def test_the_name_tells_the_task(write):
    with pytest.raises(InputError, match=r"does not say which task it is. Give it one of the names lsd, itr, lar"):
        opened(write("benchmark.parquet"))
