"""lmms-eval itself, on exported episodes and on a task of another author: the figures are those of `linkcontext`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import linkcontext
from linkcontext.data.images import hash_pixels
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.integrations.lmms_eval_export import export_lmms_eval
from linkcontext.jsonl import read_jsonl
from linkcontext.records import Prediction
from linkcontext.scoring.protocol import ScoringRequest

pytestmark = pytest.mark.heavy
SRC = Path(__file__).parents[2] / "src"
OPTIONS = {"ways": 2, "shots": (0, 1, 2), "episodes": 8}


@pytest.fixture(scope="module", autouse=True)
def lmms_eval():
    """lmms-eval in an environment where this library is installed, so that its entry point is there."""
    from importlib.metadata import entry_points  # noqa: PLC0415
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("lmms_eval") is None:
        pytest.skip("lmms-eval is not installed: pip install lmms-eval")
    if not entry_points(group="lmms_eval.models", name="linkcontext"):
        pytest.skip("linkcontext is not installed with its entry points: pip install -e .")


def run(folder, out, *arguments, fails=False):
    """Run lmms-eval, and return the results of its tasks, or its output where it is to fail."""
    command = [sys.executable, "-m", "lmms_eval", "--include_path", folder, "--output_path", out, "--log_samples"]
    done = subprocess.run(
        [*map(str, command), *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": str(SRC),
            "HF_HUB_OFFLINE": "1",
            "OPENAI_API_KEY": "none",
            "HF_HOME": str(out),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if fails:  # lmms-eval prints an error and exits with 0, so what counts is that there are no results
        assert not [*Path(out).rglob("*_results.json")]
        return done.stdout + done.stderr
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = Path(out).rglob("*_results.json")
    return json.loads(results.read_text())["results"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exported episodes, the folder of an evaluation of the same ones by mini, and its rows."""
    folder = tmp_path_factory.mktemp("lmms")
    result = linkcontext.evaluate("mini", "world:7", out=folder / "run", scoring="both", **OPTIONS)
    dataset = linkcontext.open_data("world:7")
    export_lmms_eval(linkcontext.draw_episodes(dataset, **OPTIONS), dataset, SCAFFOLDS["turns"], folder / "x")
    return folder, {(row["scoring"], row["shots_per_class"]): row for row in result.rows}


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def check(results, rows, scoring, metric="accuracy", value="accuracy"):
    measured = {shots: results[f"{metric}_k{shots},none"] for shots in OPTIONS["shots"]}
    assert measured == pytest.approx({shots: rows[scoring, shots][value] for shots in OPTIONS["shots"]}, abs=1e-9)


def test_the_model_linkcontext_has_the_accuracies_of_eval(exported, tmp_path):
    folder, rows = exported
    model = ("--model", "linkcontext", "--model_args", "pretrained=mini")
    found = run(
        folder / "x", tmp_path / "simple", *model, "--force_simple", "--tasks", "linkcontext_x,linkcontext_x_likelihood"
    )
    check(found["linkcontext_x"], rows, "generate")
    check(found["linkcontext_x"], rows, "generate", "answered", "answered")
    check(found["linkcontext_x_likelihood"], rows, "likelihood_sum")
    chat = run(folder / "x", tmp_path / "chat", *model, "--tasks", "linkcontext_x")
    check(chat["linkcontext_x"], rows, "generate")
    losses = [json.loads(line) for path in tmp_path.rglob("*_likelihood.jsonl") for line in lines(path)]
    scores = {
        f"{p.query_id}/k{p.shots_per_class}": [-score.logprob for score in p.candidates]
        for p in read_jsonl(Prediction, folder / "run" / "predictions.jsonl")
    }
    ids = [json.loads(line)["id"] for line in lines(folder / "x" / "episodes.jsonl")]
    assert len(losses) == len(ids) == len(scores)
    for sample in losses:
        values = [float(value) for value, _ in sample["filtered_resps"]]
        assert values == pytest.approx(scores[ids[sample["doc_id"]]], abs=1e-4)


def test_two_processes_have_the_figures_of_one(exported, tmp_path):
    folder, rows = exported
    command = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29581", "-m", "lmms_eval"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--model", "linkcontext", "--model_args", "pretrained=mini", "--force_simple",
         "--include_path", str(folder / "x"), "--tasks", "linkcontext_x_likelihood", "--output_path", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SRC), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = tmp_path.rglob("*_results.json")
    check(json.loads(results.read_text())["results"]["linkcontext_x_likelihood"], rows, "likelihood_sum")


def test_lmms_eval_s_own_client_has_the_accuracies_of_eval_from_our_endpoint(exported, mini_url, tmp_path):
    folder, rows = exported
    arguments = f"model=mini,base_url={mini_url},timeout=600,num_concurrent=2"
    found = run(folder / "x", tmp_path, "--model", "openai", "--model_args", arguments, "--tasks", "linkcontext_x")
    check(found["linkcontext_x"], rows, "generate")
    check(found["linkcontext_x"], rows, "generate", "answered", "answered")


RIGHT = [0, 0, 1, 0, 0, 1]
OWN = """
task: own_choice
dataset_path: json
dataset_kwargs: {data_files: {test: own.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_visual: !function own.pictures
doc_to_text: text
doc_to_choice: choices
doc_to_target: right
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def test_a_task_with_choices_of_any_author_is_scored(pictures, mini, tmp_path):
    """lmms-eval's own accuracies, from the log-probabilities and replies of the model itself."""
    folder = tmp_path / "own"
    folder.mkdir()
    paths = sorted(pictures.rglob("*.png"))[:6]
    choices = [["legata", "zafokla"], ["a", "quite a long name"], ["bone", "mill"]] * 2
    texts = ["What is <image>?", "<image><image>Which?", "<image>This is plimbo. And <image>?"] * 2
    shown = [[n] if n % 3 == 0 else [n, (n + 1) % 6] for n in range(6)]
    with (folder / "own.jsonl").open("w") as file:
        for n in range(6):
            row = {
                "text": texts[n],
                "choices": choices[n],
                "right": RIGHT[n],
                "pictures": [str(paths[i]) for i in shown[n]],
            }
            file.write(json.dumps(row) + "\n")
    (folder / "own.yaml").write_text(OWN)
    (folder / "own.py").write_text(
        "from PIL import Image\n\n\ndef pictures(doc):\n    return [Image.open(path) for path in doc['pictures']]\n"
    )
    model = ("--model", "linkcontext", "--model_args", "pretrained=mini", "--force_simple", "--tasks", "own_choice")
    found = run(folder, tmp_path / "out", *model)["own_choice"]

    bound = mini_scorer(mini, paths)
    requests = []
    for n in range(6):
        pieces, content = texts[n].split("<image>"), []
        for place, piece in enumerate(pieces):
            content += [{"type": "image", "image": str(paths[shown[n][place - 1]])}] if place else []
            content += [{"type": "text", "text": piece}] if piece else []
        prompt = [{"role": "user", "content": content}]
        answers = [[*prompt, {"role": "assistant", "content": [{"type": "text", "text": c}]}] for c in choices[n]]
        requests.append(ScoringRequest(prompt, tuple(answers)))
    scores = np.array([[value for value, _ in row] for row in bound.score(requests)])
    lengths = np.array([[len(choice) for choice in row] for row in choices])
    right = np.array(RIGHT)
    replies = bound.generate([request.messages for request in requests], 24)
    assert found["acc,none"] == np.mean(scores.argmax(1) == right)
    assert found["acc_norm,none"] == np.mean((scores / lengths).argmax(1) == right)
    assert found["exact_match,none"] == np.mean([reply == choices[n][RIGHT[n]] for n, reply in enumerate(replies)])
    assert found["acc,none"] != 0.5  # or an inverted sign would not show


def mini_scorer(mini, paths):
    from linkcontext.scoring.local import LocalModel  # noqa: PLC0415

    return LocalModel(mini).with_pictures({str(path): (hash_pixels(path), path) for path in paths})


def test_what_cannot_be_served_is_refused(exported, tmp_path):
    folder, _ = exported
    args = ("--force_simple", "--tasks", "linkcontext_x")
    message = run(
        folder / "x", tmp_path / "a", "--model", "linkcontext", "--model_args", "weights=mini", *args, fails=True
    )
    assert "weights: no such option" in message
    message = run(folder / "x", tmp_path / "b", "--model", "linkcontext", "--model_args", "pretrained=mini", *args,
                  "--gen_kwargs", "temperature=0.7,do_sample=True", fails=True)  # fmt: skip
    assert "linkcontext replies greedily" in message
