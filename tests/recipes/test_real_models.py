"""recipes/real_models.sh: what it would run, what it refuses, and a toy run with the bundled model."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(*arguments, **environment):
    return subprocess.run(
        ["bash", str(ROOT / "recipes" / "real_models.sh"), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path):
    done = script("--dry-run", "--out", tmp_path / "runs", "--episodes", "7", "--processes", "8")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "runs").exists()
    lines = done.stdout.splitlines()
    titles, commands = ([line for line in lines if (" -m " in line) == is_command] for is_command in (False, True))
    assert [title.partition(":")[0] for title in titles] == [
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "Qwen/Qwen3-VL-2B-Instruct",
        "OpenGVLab/InternVL3_5-2B-HF",
        "google/gemma-3-4b-it",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    ]
    assert all("h expected (from assumed rates" in title for title in titles)
    assert "world --isekai 10" in commands[0]
    assert len(commands) == 1 + 5 * 8
    assert all("torch.distributed.run --nproc_per_node 8 -m linkcontext" in command for command in commands[1:])
    assert sum("--episodes 7 " in command for command in commands) == 5 * 7  # isekai has its own episodes


def test_expected_times_grow_with_the_work():
    def hours(*arguments):
        done = script("--dry-run", "--model", "google/gemma-3-4b-it", "--processes", "1", *arguments)
        return float(done.stdout.split(" h expected")[0].rsplit(" ", 1)[1])

    assert hours("--episodes", "2560") == pytest.approx(10 * hours("--episodes", "256"), rel=0.1)
    assert hours("--run", "world") < hours()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bogus"], "--bogus: no such option. usage: "),
        (["--model"], "--model needs a value"),
        (["--model", "-x"], "--model -x: not the name of a model"),
        (["--model", "a b"], "--model a b: not the name of a model"),
        (["--episodes", "0"], "--episodes 0: not a whole number of 1 or more"),
        (["--processes", "many"], "--processes many: not a whole number"),
        (["--run", "nothing"], "--run nothing: not one of world world-5way digits"),
        (["--out", str(ROOT / "README.md")], "README.md: there is a file of this name"),
    ],
)
def test_bad_input_is_a_sentence(arguments, sentence):
    done = script(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""


def test_without_the_library_it_says_what_to_install(tmp_path):
    done = script("--out", tmp_path / "runs", PYTHON="false")
    assert done.returncode == 2
    assert "false cannot import linkcontext. Run pip install" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.heavy
def test_a_toy_run_resumes_packs_its_results_and_reports_failures(tmp_path):
    out = tmp_path / "runs"
    toy = ("--episodes", "2", "--run", "digits-real", "--run", "swapped", "--out", out, "--processes", "1")
    done = script("--model", "mini", *toy)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2 runs finished; send back: " in done.stdout
    metrics = json.loads((out / "mini" / "digits-real" / "metrics.json").read_text())
    assert {row["shots_per_class"] for row in metrics["rows"]} == {0, 1, 4}
    with tarfile.open(out / "results.tar.gz") as archive:
        names = archive.getnames()
    assert {"./mini/digits-real/metrics.json", "./mini/swapped/config.json", "./machine.txt"} <= {*names}
    assert all(name.endswith((".json", ".log", "machine.txt")) for name in names)

    (out / "mini" / "swapped" / "metrics.json").unlink()  # as if it had been stopped
    before = (out / "mini" / "swapped" / "predictions.jsonl").read_bytes()
    again = script("--model", "mini", "--model", str(tmp_path / "missing"), *toy)
    assert again.returncode == 1
    assert "digits-real  done before" in again.stdout
    assert "FAILED: " in again.stdout
    assert "2 runs failed (their logs are in the archive)" in again.stderr
    assert (out / "mini" / "swapped" / "predictions.jsonl").read_bytes() == before
    assert (out / "mini" / "swapped" / "metrics.json").exists()
