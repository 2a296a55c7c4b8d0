"""Inspect's task: the prompts and figures of `linkcontext eval`, from a model behind our endpoint."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import linkcontext
from linkcontext.errors import InputError
from linkcontext.jsonl import read_jsonl
from linkcontext.records import Prediction

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]  # warnings of Inspect's dependencies
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module", autouse=True)
def inspect_ai():
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install inspect-ai")
    if not entry_points(group="inspect_ai", name="linkcontext"):
        pytest.skip("linkcontext is not installed with its entry points: pip install -e .")


def inspect(url, log_dir, *arguments):
    """Run the command `inspect eval`."""
    command = [sys.executable, "-m", "inspect_ai", "eval", "linkcontext/episodes", "--log-dir", log_dir]
    return subprocess.run(
        [*map(str, command), "--display", "plain", "--model", "openai-api/linkcontext/mini", *arguments],
        env={**os.environ, "PYTHONPATH": str(SRC), "LINKCONTEXT_BASE_URL": url, "LINKCONTEXT_API_KEY": "none"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_replies_and_accuracies_are_those_of_eval(mini_url, tmp_path):
    from inspect_ai.log import read_eval_log  # noqa: PLC0415

    result = linkcontext.evaluate(
        "mini", "world:7", shots=(0, 1, 2), episodes=8, scoring="generate", scaffold="lcl", out=tmp_path / "run"
    )
    arguments = [f"-T{name}" for name in ("data=world:7", "shots=0,1,2", "episodes=8", "scaffold=lcl")]
    done = inspect(mini_url, tmp_path / "log", *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (file,) = (tmp_path / "log").iterdir()
    log = read_eval_log(str(file))
    assert log.status == "success"
    predictions = {
        f"{p.query_id}/k{p.shots_per_class}": p for p in read_jsonl(Prediction, tmp_path / "run" / "predictions.jsonl")
    }
    assert {sample.id: sample.output.completion.strip() for sample in log.samples} == {
        name: prediction.reply for name, prediction in predictions.items()
    }
    measured = {
        (score.name, name.rpartition("_k")[2]): metric.value
        for score in log.results.scores
        for name, metric in score.metrics.items()
        if not name.endswith("_stderr")
    }
    rows = {row["shots_per_class"]: row for row in result.rows}
    assert measured == pytest.approx(
        {(value, str(shots)): rows[shots][value] for value in ("accuracy", "answered") for shots in (0, 1, 2)}
    )
    assert 0.5 < rows[2]["accuracy"] < 1  # a figure that neither guesses nor empty replies have


def test_bad_arguments_end_with_a_sentence(mini_url, tmp_path):
    done = inspect(mini_url, tmp_path, "-T", "shots=x")
    assert done.returncode != 0
    assert "shots=x: numbers are expected, for example -T shots=0,1,4." in done.stdout + done.stderr


@pytest.mark.parametrize("shots", [0.5, [0, 0.5], "0,,1"])
def test_shots_are_whole_numbers(shots):
    from linkcontext.integrations import inspect_task  # noqa: PLC0415 - needs inspect-ai

    with pytest.raises(InputError, match="numbers are expected"):
        inspect_task.episodes_task(data="world:7", shots=shots)


def test_inspect_finds_the_task_without_loading_torch():
    code = "import sys, linkcontext.integrations.inspect_task; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_scorer_counts_strict_matches_by_shots():
    import asyncio  # noqa: PLC0415
    from types import SimpleNamespace  # noqa: PLC0415

    from inspect_ai.scorer import SampleScore, Target  # noqa: PLC0415

    from linkcontext.integrations.inspect_task import by_shots, strict_matching  # noqa: PLC0415

    names = [{"class_id": "a", "name": "fox", "truth": "fox"}, {"class_id": "b", "name": "kit fox", "truth": "kit fox"}]

    def score(reply):
        metadata = {"candidates": names, "class_id": "b"}
        state = SimpleNamespace(output=SimpleNamespace(completion=reply), metadata=metadata)
        return asyncio.run(strict_matching()(state, Target("kit fox")))

    worth = {
        "A kit fox.": (1, 1),
        "fox": (0, 1),
        "fox or kit fox": (0, 0),
        "<think>fox</think>kit fox": (1, 1),
        "": (0, 0),
    }
    for reply, (accuracy, answered) in worth.items():
        assert score(reply).value == {"accuracy": accuracy, "answered": answered}
    samples = [
        SampleScore(score=scored, sample_metadata={"shots_per_class": shots, "episode": f"e{shots}"})
        for shots, scored in ((1, score("kit fox")), (1, score("fox")), (4, score("kit fox")))
    ]
    for sample in samples:
        sample.score.value = sample.score.value["accuracy"]
    values = by_shots()(samples)
    assert (values["k1"], values["k4"]) == (0.5, 1)
