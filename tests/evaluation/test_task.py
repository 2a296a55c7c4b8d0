"""The table of tasks, and a benchmark that another package adds by one file."""

import json

import pytest

from linkcontext import cli
from linkcontext.config import EpisodeConfig
from linkcontext.errors import InputError
from linkcontext.evaluation.task import GROUP, TASKS, Task, TaskOptions, find_task, task_names


@pytest.fixture
def benchmark(documented):
    """All that a package writes to add a benchmark, but for the line of its pyproject.toml."""
    (text,) = documented("A benchmark")
    return text


def test_every_task_of_the_table_is_there():
    assert {name for name in TASKS if isinstance(find_task(name), Task)} == {*TASKS}


def test_a_benchmark_is_one_file_of_another_package(installed, benchmark, nano, pictures, tmp_path, capsys):
    installed("plug_mirror", benchmark, f"[{GROUP}]", "mirror = plug_mirror:MIRROR")
    assert task_names()[-1] == "mirror"
    out = tmp_path / "run"
    flags = ("--data", str(pictures), "--model", str(nano), "--explain", "0", "--out", str(out))
    cli.main(["eval", "--benchmark", "mirror", *flags])
    assert "mirror, real names, 2-way" in capsys.readouterr().out
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    figures = {(row["task"], row["shots_per_class"], row["n_queries"]) for row in rows}
    assert figures == {("mirror", 0, 2), ("mirror", 1, 2)}


@pytest.mark.parametrize(
    ("text", "place", "named"),
    [
        ("raise RuntimeError('old numpy')", "plug_broken:X", "the package plug_broken .*RuntimeError: old numpy"),
        ("", "plug_broken:GONE", "the package plug_broken .*plug_broken:GONE cannot be imported"),
        (
            "X = print",
            "plug_broken:X",
            r"the package plug_broken gives .*, a builtin.*task\.Task is expected",
        ),
    ],
)
def test_a_broken_package_is_named(installed, text, place, named):
    installed("plug_broken", text, f"[{GROUP}]", f"broken = {place}")
    with pytest.raises(InputError, match=f"broken: {named}"):
        find_task("broken")


def test_two_packages_with_one_name_are_named(installed, benchmark):
    for name in ("plug_a", "plug_b"):
        installed(name, benchmark, f"[{GROUP}]", f"mirror = {name}:MIRROR")
    with pytest.raises(InputError, match="mirror: plug_a and plug_b both"):
        find_task("mirror")


def test_an_unknown_benchmark_is_named_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", "--benchmark", "nothing"])
    assert stopped.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "--benchmark nothing: not one of link, questions, retention, isekai" in error


def test_a_table_entry_wins_over_a_package(installed, benchmark):
    installed("plug_seed", benchmark, f"[{GROUP}]", "seed = plug_seed:MIRROR")
    assert task_names().count("seed") == 1
    with pytest.raises(InputError, match="--benchmark seed needs --data"):
        find_task("seed").configure(TaskOptions(EpisodeConfig()))
