"""`linkcontext world --isekai` and `linkcontext eval --benchmark isekai`: the same files and rows as any run."""

import json

import pytest

from linkcontext import cli
from linkcontext.evaluation.run_dir import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("isekai") / "w"
    shape = ["--classes", "4", "--images", "4", "--size", "32", "--seed", "1"]
    cli.main(["world", "--isekai", "pair", *shape, "--out", str(root)])
    return root


def measured(nano, folder, out, *more):
    command = ["eval", "--model", str(nano), "--device", "cpu", "--data", str(folder), "--out", str(out), *more]
    cli.main([*command, "--shots", "0", "1"])
    return json.loads((out / "metrics.json").read_text())


def test_a_run_has_the_files_and_rows_of_any_other(nano, folder, tmp_path, capsys):
    found = measured(nano, folder, tmp_path / "a", "--benchmark", "isekai", "--scoring", "lcl-legacy")
    other = measured(nano, folder, tmp_path / "b", "--episodes", "2", "--scoring", "generate")
    files = {"config.json", "episodes.jsonl", "predictions.jsonl", "metrics.json", "report.md", "report.html"}
    files |= {"explain.json"}
    assert {p.name for p in (tmp_path / "a").glob("[!.]*")} == {p.name for p in (tmp_path / "b").glob("[!.]*")} == files
    assert {frozenset(row) for row in found["rows"]} == {frozenset(row) for row in other["rows"]}
    told = [(r["task"], r["names"], r["shots_per_class"], r["scoring"], r["n_queries"]) for r in found["rows"]]
    assert told == [
        ("isekai-pair", "real", shots, scoring, 8) for scoring in ("generate", "lcl_legacy") for shots in (0, 1)
    ]
    for row in found["rows"]:
        assert row["baselines"]["copy_first"] in (None, 0.5)
        assert row["baselines"]["copy_last"] in (None, 0.5)
    assert len(read_run(tmp_path / "a").episodes) == 2
    text = (tmp_path / "a" / "report.md").read_text()
    assert "isekai-pair: published, other images, total shots" in text
    assert "LCL [2-way-random] (published) | – | .43 |" in text
    assert "real names, 2-way, lcl legacy (this run, chance .000)" in text
    assert "other images" not in (tmp_path / "b" / "report.md").read_text()
    assert "LCL [mix]" in (tmp_path / "a" / "report.html").read_text()


def test_a_run_goes_on_and_another_is_refused(nano, folder, tmp_path, capsys):
    out = tmp_path / "a"
    first = measured(nano, folder, out, "--benchmark", "isekai")["rows"]
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    assert measured(nano, folder, out, "--benchmark", "isekai")["rows"] == first
    with pytest.raises(SystemExit) as caught:  # the same pictures and names, but drawn episodes
        measured(nano, folder, out, "--names", "real")
    assert caught.value.code == 2
    assert "other episodes" in capsys.readouterr().err


def test_bad_flags_are_a_sentence(folder, tmp_path, capsys):
    for flags, sentence in (
        (["eval", "--benchmark", "isekai"], "needs --data"),
        (["eval", "--benchmark", "isekai", "--data", str(folder), "--ways", "3"], "--ways"),
        (["eval", "--data", f"imagenet-100:{tmp_path}/nowhere"], "ILSVRC2012_img_train.tar"),
        (["world", "--isekai", "10", "--classes", "5", "--out", str(tmp_path / "w")], "even number"),
        (["world", "--isekai", "10", "--images", "1", "--out", str(tmp_path / "w")], "at least 2 pictures"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(flags)
        assert caught.value.code == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
