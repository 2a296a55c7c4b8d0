"""Runs: killed and resumed, batched and reordered, they end the same."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from linkcontext.config import eval_config
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.compare import compare
from linkcontext.evaluation.run_dir import read_run
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.report.page import write_report


@pytest.fixture
def config(nano, pictures, tmp_path):
    def make(**changes):
        options = {
            "model": str(nano),
            "data": str(pictures),
            "shots": (0, 1, 2),
            "episodes": 6,
            "scoring": "both",
            "out": str(tmp_path / "run"),
        }
        return eval_config(**{**options, **changes})

    return make


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def decisions(lines):
    return [(p["query_id"], p["shots_per_class"], p["correct"], p["reply"], p["prompt_sha256"]) for p in lines]


def test_the_files_and_their_fields(config, tmp_path):
    metrics = run_evaluation(config())
    run = tmp_path / "run"
    assert {p.name for p in run.glob("[!.]*")} == {
        "config.json",
        "episodes.jsonl",
        "predictions.jsonl",
        "metrics.json",
        "explain.json",
    }
    line = predictions(run)[0]
    assert set(line) >= {
        "episode_id",
        "query_id",
        "shots_per_class",
        "candidates",
        "gold",
        "reply",
        "correct",
        "prompt_sha256",
        "support_ids",
    }
    assert set(line["candidates"][0]) == {
        "class",
        "name",
        "logprob",
        "null_logprob",
        "tokens",
        "prior_logprob",
        "head_logprob",
    }
    assert len(predictions(run)) == 6 * 2 * 3
    assert {row["scoring"] for row in metrics["rows"]} == {
        "likelihood_sum",
        "likelihood_mean",
        "likelihood_pmi",
        "generate",
    }
    row = next(r for r in metrics["rows"] if r["shots_per_class"] == 1)
    assert row["baselines"]["copy_first"] == row["baselines"]["copy_last"] == row["chance"] == 0.5
    assert row["baselines"]["nearest_centroid"] is not None
    zero = next(r for r in metrics["rows"] if r["shots_per_class"] == 0)
    assert zero["baselines"]["nearest_centroid"] is None
    write_report(run)
    assert json.loads((run / "config.json").read_text())["config"] == json.loads(
        json.dumps(dataclasses.asdict(config()))
    )


def test_a_run_that_was_killed_goes_on_and_ends_the_same(config, tmp_path):
    run_evaluation(config())
    run = tmp_path / "run"
    whole, metrics = predictions(run), json.loads((run / "metrics.json").read_text())
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text[: len(text) // 2])  # in the middle of a line
    (run / "metrics.json").unlink()
    run_evaluation(config())
    assert decisions(predictions(run)) == decisions(whole)
    assert json.loads((run / "metrics.json").read_text())["rows"] == metrics["rows"]


def test_the_batch_changes_no_prediction(config, tmp_path):
    # The reference engine alone pads prompts of different lengths to one batch.
    for batch in (1, 3, 16):
        run_evaluation(config(engine="reference", episodes=2, batch=batch, out=str(tmp_path / str(batch))))
    alone = predictions(tmp_path / "1")
    lengths = {score["tokens"] for line in alone for score in line["candidates"]}
    assert len(lengths) > 1  # so that padding cannot be the same for all
    for batch in ("3", "16"):
        together = predictions(tmp_path / batch)
        assert decisions(together) == decisions(alone)
        for one, other in zip(alone, together, strict=True):
            for a, b in zip(one["candidates"], other["candidates"], strict=True):
                assert b["logprob"] == pytest.approx(a["logprob"], abs=1e-4)
                assert b["null_logprob"] == pytest.approx(a["null_logprob"], abs=1e-4)


def test_fewer_episodes_are_the_first_of_more(config, tmp_path):
    run_evaluation(config(scoring="likelihood"))
    run_evaluation(config(scoring="likelihood", episodes=3, out=str(tmp_path / "few")))
    few = decisions(predictions(tmp_path / "few"))
    assert few == decisions(predictions(tmp_path / "run"))[: len(few)]


def test_a_folder_of_another_configuration_is_refused(config, tmp_path):
    run_evaluation(config(scoring="likelihood", episodes=2))
    with pytest.raises(InputError, match=r"another configuration .*seed was 0 and is 1"):
        run_evaluation(config(scoring="likelihood", episodes=2, seed=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that do not belong to a run"):
        run_evaluation(config(out=str(tmp_path / "other")))
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["letter.txt"]


def test_a_run_from_before_an_option_goes_on_with_its_default(config, tmp_path):
    asked = config(scoring="likelihood", episodes=2)
    metrics = run_evaluation(asked)
    path = tmp_path / "run" / "config.json"
    kept = json.loads(path.read_text())
    for part, name in ((kept["config"]["episodes"], "select"), (kept["config"]["model"], "load_in_4bit")):
        del part[name]
    del kept["config"]["scaffold"]
    path.write_text(json.dumps(kept))
    assert run_evaluation(asked)["rows"] == metrics["rows"]
    with pytest.raises(InputError, match=r"scaffold was turns and is lcl, select was random and is medoid"):
        run_evaluation(
            config(scoring="likelihood", episodes=2, scaffold="lcl", select="medoid", choose_from=2, shots=(0, 1))
        )
    kept["config"]["gone"] = 1  # an option that is no more is another matter
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="gone was 1 and is None"):
        run_evaluation(asked)


def test_unknown_options_are_named():
    with pytest.raises(InputError, match="shotz: no such option"):
        eval_config(shotz=(1,))


def test_too_little_memory_is_refused_before_anything_is_written(nano, tmp_path):
    config = eval_config(
        model=str(nano), data="digits", shots=(1,), episodes=1, memory_gb=1e-6, out=str(tmp_path / "r")
    )
    with pytest.raises(InputError, match="are too little"):
        run_evaluation(config)
    assert not (tmp_path / "r").exists()


def other_weights(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1e-3}, path, metadata={"format": "pt"})


def other_json(name, **changes):
    def change(folder):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))

    return change


def other_part(part, **changes):
    def change(folder):
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {part: values[part] | changes}))

    return change


def other_template(folder):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "Assistant"))


def test_another_model_below_the_same_path_is_refused(config, nano, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(nano, folder)
    asked = config(model=str(folder), episodes=2, scoring="likelihood", explain=0)
    metrics = run_evaluation(asked)
    assert run_evaluation(asked)["rows"] == metrics["rows"]  # nothing has changed
    for change, named in (
        (other_weights, "the model's weights changed"),
        (other_json("processor_config.json", image_processor={"image_mean": [0.4, 0.4, 0.4]}), "the processor"),
        (other_template, "the chat template as it renders, the rendered prompts changed"),
        (other_json("generation_config.json", repetition_penalty=1.5), "the generation config changed"),
        (other_json("config.json", vision_feature_layer=-2), "the model's configuration .config.json. changed"),
        (other_part("text_config", rms_norm_eps=0.1), "the model's configuration .config.json. changed"),
    ):
        shutil.copytree(nano, folder, dirs_exist_ok=True)
        change(folder)
        with pytest.raises(InputError, match=rf"run: holds another run: since it began, .*{named}"):
            run_evaluation(asked)


def test_another_text_in_the_scaffolds_file_is_refused(config, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**dataclasses.asdict(SCAFFOLDS["turns"]), "name": "own"}))
    asked = config(scaffold=str(path), episodes=2, scoring="likelihood", explain=0)
    run_evaluation(asked)
    path.write_text(path.read_text().replace("What is this?", "What is that?"))
    with pytest.raises(InputError, match=r"since it began, the text of the scaffold, the rendered prompts changed"):
        run_evaluation(asked)


def test_a_run_that_does_not_say_what_it_measured_is_refused(config, tmp_path):
    asked = config(episodes=2, scoring="likelihood", explain=0)
    run_evaluation(asked)
    path = tmp_path / "run" / "config.json"
    kept = json.loads(path.read_text())
    del kept["measured"]
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="does not say which weights"):
        run_evaluation(asked)


FOREIGN = [
    ({"shots_per_class": 99}, r"at 99 shots per class has shots that its episode does not have \(0, 1\)"),
    ({"candidates": []}, "has neither likelihoods nor a reply"),
    ({"gold": "nothing"}, "has the right class 'nothing'"),
    ({"query_id": "e00009/q0"}, "is about no query of this run's episodes"),
    ({"episode_id": "e00001"}, "names the episode e00001"),
    ({"support_ids": ["x.png"]}, "has another support"),
    ({"prompt_sha256": "x"}, "as its prompt's hash"),
    ({"baselines": {"copy_first": "nothing"}}, "a baseline that answers 'nothing'"),
    ({"reply": "plimbo"}, "has likelihoods and those of a grey query, and e00000/q0 has likelihoods .* and a reply"),
]
IMPOSSIBLE = [
    ({"logprob": 1000}, "1000 as a log-probability of .* above 0"),
    ({"null_logprob": 0.5}, "0.5 as a log-probability of .* above 0"),
    ({"null_logprob": None}, "has null_logprob for some of its candidates only"),
    ({"tokens": 0}, "has 0 tokens"),
    ({"class": "x"}, "has other candidates"),
    ({"name": "x"}, "has other candidates"),
]


def test_predictions_that_do_not_belong_are_refused_when_resumed_reported_and_compared(config, tmp_path):
    asked = config(episodes=2, scoring="likelihood", explain=0, shots=(0, 1))
    run_evaluation(asked)
    run = tmp_path / "run"
    shutil.copytree(run, tmp_path / "whole")
    first, *others = predictions(run)
    (score, *more) = first["candidates"]
    changed = [({**first, **change}, named) for change, named in FOREIGN]
    changed += [({**first, "candidates": [{**score, **change}, *more]}, named) for change, named in IMPOSSIBLE]
    changed += [(first, "comes twice")]
    uses = (lambda: run_evaluation(asked), lambda: write_report(run), lambda: compare(tmp_path / "whole", run))
    for line, named in changed:
        lines = [line, *others, *([first] if line is first else [])]
        (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for use in uses:
            with pytest.raises(InputError, match=rf"run/predictions\.jsonl: .*{named}"):
                use()


def test_calibrated_likelihoods_are_a_score_of_their_own(config, tmp_path):
    plain = run_evaluation(config(episodes=3, scoring="likelihood", explain=0))["rows"]
    asked = config(episodes=3, scoring="likelihood", explain=0, calibrate=True, out=str(tmp_path / "calibrated"))
    found = run_evaluation(asked)["rows"]
    assert [row for row in found if row["scoring"] != "likelihood_calibrated"] == plain
    assert [row["shots_per_class"] for row in found if row["scoring"] == "likelihood_calibrated"] == [1, 2]
    for line in predictions(tmp_path / "calibrated"):
        priors = [score["prior_logprob"] for score in line["candidates"]]
        if line["shots_per_class"] == 0:
            assert priors == [None, None]
        else:  # means of log-probabilities of two names, of which exp sums to 1 in each
            assert all(value < 0 for value in priors)
            assert sum(math.exp(value) for value in priors) <= 1 + 1e-9
    assert run_evaluation(asked)["rows"] == found
    write_report(tmp_path / "calibrated")
    for options, named in (
        ({"select": "rices", "choose_from": 2}, "--select rices"),
        ({"scoring": "generate"}, "--scoring"),
    ):
        with pytest.raises(InputError, match=f"--calibrate: not together with {named}"):
            config(calibrate=True, **{"scoring": "likelihood", **options})


def test_a_run_of_another_format_is_neither_resumed_nor_read(config, tmp_path):
    run = config(episodes=1, shots=(1,))
    run_evaluation(run)
    path = Path(run.out) / "config.json"
    about = json.loads(path.read_text())
    assert about["format"] == "linkcontext.run/1"
    path.write_text(json.dumps({**about, "format": "linkcontext.run/9"}))
    for use in (lambda: run_evaluation(run), lambda: read_run(Path(run.out))):
        with pytest.raises(InputError, match=r"config\.json: its format is linkcontext\.run/9"):
            use()
    del about["format"]  # as linkcontext 0.1 wrote it
    path.write_text(json.dumps(about))
    assert run_evaluation(run)["rows"]
