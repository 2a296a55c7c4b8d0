"""The quicker experiments run at toy size, and leave the published results alone."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["mini", "teaching", "chunked_pack"])
def test_an_experiment_runs_at_toy_size(name, tmp_path):
    published = (ROOT / "experiments" / f"{name}.json").read_bytes()
    process = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--toy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert (ROOT / "experiments" / f"{name}.json").read_bytes() == published


@dataclass
class Options:
    out: str = "here"
    seeds: tuple[int, ...] = (0,)
    steps: int = 2


def test_published_rows_are_made_again_only_with_other_options_or_models(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    table = importlib.import_module("table")

    def results(options: Options):
        return table.Results("some", options, lambda name: "mini" if name == "both" else "mini-base")

    monkeypatch.setattr(table, "RESULTS", tmp_path)
    rows = [("base", None), ("a", 0), ("a", 1), ("both", 0)]
    base, first, second, both = ({"name": name, "seed": seed, "accuracy": 0.5} for name, seed in rows)
    options = Options()
    results(options).write([base, first, both], {"date": "Monday"}, tmp_path)

    again = results(replace(options, out="there", seeds=(1,)))
    assert again.of("base", None) == [base]
    assert again.of("a", 0) == [first]
    assert again.of("a", 1) == []
    assert again.of("both", 0) == [both]
    assert results(replace(options, steps=3)).rows == []

    again.write([base, second], {"date": "Tuesday"}, tmp_path)
    assert [(row["name"], row["seed"]) for row in results(options).rows] == [rows[0], rows[2], rows[1], rows[3]]
    results(options).write([base, first], {"date": "Wednesday"}, tmp_path)
    made = json.loads((tmp_path / "some.json").read_text())
    assert [machine["date"] for machine in made["machines"]] == ["Monday", "Tuesday"]
    assert len(made["rows"]) == 4

    made["models"]["mini"] = "another"
    (tmp_path / "some.json").write_text(json.dumps(made))
    assert {row["name"] for row in results(options).rows} == {"base", "a"}


def test_a_baseline_that_was_not_measured_is_none(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    found = importlib.import_module("table").Found([{"name": "base", "shots": 0, "baselines": {"copy_first": 0.5}}])
    assert found.policy("copy_first", shots=0) == 0.5
    assert found.policy("nearest_centroid", shots=0) is None
    assert found.policy("copy_first", shots=1) is None


def test_what_all_models_share_is_stored_once(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    icl_tuning = importlib.import_module("icl_tuning")

    rows = [
        {"name": name, "what": what, "scoring": "generate", "accuracy": accuracy, "chance": chance}
        for name, accuracy in (("base", 0.2), ("icl", 0.4))
        for what, chance in (("world", 0.5), ("digits", 0.1))
    ]
    assert [row.get("chance") for row in icl_tuning.once(rows)] == [0.5, 0.1, None, None]
    assert icl_tuning.whole(icl_tuning.once(rows)) == rows


def test_a_row_that_is_none_ends_with_a_sentence(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    table = importlib.import_module("table")
    table.check_rows(("mix",), ["vanilla", "mix"])
    with pytest.raises(SystemExit) as ended:
        table.check_rows(("mix", "3-way"), ["vanilla", "mix"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "--only 3-way: the rows are vanilla, mix.\n"
