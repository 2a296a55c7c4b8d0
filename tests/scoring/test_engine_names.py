"""Old names of engines are accepted with a warning, in options and in the files of runs that are resumed."""

import json

import pytest

from linkcontext import cli
from linkcontext.config import eval_config
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.scoring.engine_names import OLD_NAMES, with_current_names


@pytest.mark.parametrize(("old", "new"), list(OLD_NAMES.items()))
def test_an_old_name_means_the_engine_of_today(old, new, caplog):
    assert eval_config(engine=old) == eval_config(engine=new)
    assert caplog.messages == [
        f"--engine {old} is now called {new}. The old name will be refused from linkcontext 0.3 on."
    ]


def test_old_names_on_the_command_line_are_replaced_and_nothing_else_is():
    given = ["eval", "--engine", "naive", "--data", "cached", "--engine=packed"]
    assert with_current_names(given) == ["eval", "--engine", "reference", "--data", "cached", "--engine=tree"]


def test_a_run_begun_under_an_old_name_is_resumed(nano, pictures, tmp_path):
    out = tmp_path / "run"
    flags = {"model": str(nano), "data": str(pictures), "shots": (0, 1), "episodes": 2, "explain": 0, "out": str(out)}
    metrics = run_evaluation(eval_config(**flags))
    config = json.loads((out / "config.json").read_text())
    config["config"]["engine"] = "cached"
    (out / "config.json").write_text(json.dumps(config))
    lines = (out / "predictions.jsonl").read_text().replace('"prefix-cache"', '"cached"').splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join(lines[:4]))
    arguments = [
        "--model",
        str(nano),
        "--data",
        str(pictures),
        "--shots",
        "0",
        "1",
        "--episodes",
        "2",
        "--explain",
        "0",
    ]
    cli.main(["eval", *arguments, "--engine", "cached", "--out", str(out)])
    assert json.loads((out / "metrics.json").read_text())["rows"] == metrics["rows"]
    assert "engines" not in json.loads((out / "metrics.json").read_text())["counters"]
