"""Figures stay the same when the source is rewritten; what is drawn from names alone is the same on every machine.

fixed.json has the digests of episodes, exports, imported questions and manifests that the commands `FIXED` of record.py
write. Where they are meant to change, write them again, and say in the changelog that they did:

    python tests/figures/record.py --renew-fixed

All other figures depend on a machine's floating point. They are compared before and after a change on one machine, with
record.py and compare.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import compare
import pytest
import record
import torch
from inputs import write_inputs
from processes import ENVIRONMENT
from safetensors.torch import save_file

from linkcontext.cli import main


@pytest.mark.parametrize("name", [name for name in record.COMMANDS if "{server}" not in record.COMMANDS[name].line])
def test_commands_read_no_folder_that_is_written_later(name):
    """Their order in record.py is the order in which they run."""
    earlier = list(record.COMMANDS)[: list(record.COMMANDS).index(name)]
    command = record.COMMANDS[name]
    words = [*command.arguments("here"), command.copy[0]]
    read = {word.partition("/")[0] for word in words if "/" in word} & record.COMMANDS.keys()
    assert read <= set(earlier)


def test_renamed_words_are_replaced_whole(monkeypatch):
    monkeypatch.setattr(record, "RENAMED", {"--engine": "--method", "naive": "reference", "pack": "edit pack"})
    command = record.Command("pack 'a naive one' --engine naive --out {here}/naive.pack")
    assert command.arguments("x") == ["edit", "pack", "a naive one", "--method", "reference", "--out", "x/naive.pack"]


def test_what_does_not_depend_on_the_machine_is_as_it_was(tmp_path, monkeypatch, capsys):
    write_inputs(tmp_path / "inputs")
    monkeypatch.chdir(tmp_path)
    for name, command in record.FIXED.items():
        record.prepared(tmp_path, name, command)
        main(command.arguments(name))
    capsys.readouterr()
    assert record.digests(tmp_path) == json.loads(record.DIGESTS.read_text())


@pytest.fixture
def recordings(tmp_path):
    """Two recordings of a command that did the same in different places."""
    for name in ("before", "after"):
        root = tmp_path / name
        run = root / "eval" / "run"
        run.mkdir(parents=True)
        about = {"folder": str(root), "cache": str(tmp_path / f".{name}.cache")}
        (root / "recording.json").write_text(json.dumps(about))
        (run / "predictions.jsonl").write_text(json.dumps({"logprob": -41.25, "right": True, "engine": "cached"}))
        (run / "episodes.jsonl").write_text('{"id": "e00000"}\n')
        (run / "config.json").write_text(json.dumps({"out": f"{run}", "versions": {"it": name}, "seed": 1}))
        (run / "report.md").write_text(f"# {root}/things\n\nmini has .750, in 2.{len(name)} s.\n")
        (root / "eval" / "stdout.txt").write_text(f"written: {run}\n")
        (root / "eval" / "exit_code.txt").write_text("0\n")
        save_file({"held/keys": torch.arange(3.0)}, root / "eval" / "zoo.pack", {"pack": "{}", "digest": name})
    return tmp_path / "before", tmp_path / "after"


def differences(recordings):
    """The files in which two recordings differ, of wording too."""
    before, after = map(compare.Recording, recordings)
    return [(d.file, d.what) for d in compare.compare(before, after)]


def test_places_times_and_versions_are_no_difference(recordings, capsys):
    assert differences(recordings) == []
    assert compare.main([*map(str, recordings), "--wording"]) == 0
    assert capsys.readouterr().out == "eval: 7 files, the same\n"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("run/predictions.jsonl", "-41.25", "-41.2502"),
        ("run/predictions.jsonl", "true", "false"),
        ("run/predictions.jsonl", "true", "1"),
        ("run/predictions.jsonl", "}", "}\n{}"),
        ("run/predictions.jsonl", '"right"', '"wrong"'),
        ("run/episodes.jsonl", "{", "{ "),
        ("run/config.json", '"seed": 1', '"seed": 2'),
        ("run/report.md", ".750", ".751"),
        ("exit_code.txt", "0", "2"),
    ],
)
def test_what_has_changed_is_a_difference(recordings, capsys, file, old, new):
    path = recordings[1] / "eval" / file
    path.write_text(path.read_text().replace(old, new, 1))
    assert {name for name, _ in differences(recordings)} == {file}
    assert compare.main([*map(str, recordings)]) == 1
    assert f"  eval/{file}: " in capsys.readouterr().out


def test_small_differences_and_renamed_values_are_none(recordings):
    path = recordings[1] / "eval" / "run" / "predictions.jsonl"
    path.write_text(path.read_text().replace("-41.25", "-41.25000001").replace("cached", "prefix-cache"))
    assert differences(recordings) == []


def test_a_file_in_one_recording_alone_is_a_difference(recordings, monkeypatch):
    (recordings[0] / "eval" / "run" / "metrics.json").write_text("{}")
    shutil.copytree(recordings[0] / "eval", recordings[1] / "probe")
    others = [("run/metrics.json", "only before")]
    assert [d for d in differences(recordings) if d[0] == "run/metrics.json"] == [*others, (others[0][0], "only after")]
    monkeypatch.setattr(compare, "ONE_ONLY", ("eval/run/metrics.json", "probe/*"))
    assert differences(recordings) == []


def test_tensors_are_compared_number_by_number(recordings):
    path, about = recordings[1] / "eval" / "zoo.pack", {"pack": "{}", "digest": "other"}
    save_file({"held/keys": torch.arange(3.0) + 1e-8}, path, about)
    assert differences(recordings) == []
    for tensors in (
        {"held/keys": torch.arange(3.0) + 1e-4},
        {"held/keys": torch.arange(3)},
        {"keys": torch.arange(3.0)},
    ):
        save_file(tensors, path, about)
        assert {name for name, _ in differences(recordings)} == {"zoo.pack"}
    save_file({"held/keys": torch.arange(3.0)}, path, {**about, "pack": '{"licence": "CC0"}'})
    assert [name for name, _ in differences(recordings)] == ["zoo.pack"]


def test_wording_counts_only_where_it_is_wanted(recordings, capsys):
    (recordings[1] / "eval" / "stdout.txt").write_text("The run was written.\n")
    assert compare.main([*map(str, recordings)]) == 0
    assert (
        "eval: 7 files, the same, 1 differences in wording\n\nWording:\n  eval/stdout.txt: " in capsys.readouterr().out
    )
    assert compare.main([*map(str, recordings), "--wording"]) == 1


@pytest.mark.heavy
def test_a_recording_is_the_same_as_itself(tmp_path):
    source = Path(record.__file__).parents[2] / "src"
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(source)}
    subprocess.run([sys.executable, record.__file__, tmp_path / "it"], env=environment, check=True)
    codes = {path.parent.name: path.read_text().strip() for path in (tmp_path / "it").glob("*/exit_code.txt")}
    expected = {name: "2" if name.startswith("bad-") else "143" if name == "serve" else "0" for name in record.COMMANDS}
    assert codes == expected
    assert compare.main([str(tmp_path / "it"), str(tmp_path / "it"), "--wording"]) == 0
