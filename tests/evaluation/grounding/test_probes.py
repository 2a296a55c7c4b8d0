"""The table of probes, and the example of docs/adding.md."""

import pytest

from linkcontext import cli
from linkcontext.evaluation.grounding import probes
from linkcontext.report.probe import read_probe


def test_names_and_conditions_are_unique():
    names = [probe.name for probe in probes.PROBES]
    conditions = [name for probe in probes.PROBES for name in probe.conditions]
    assert len({*names}) == len(names) == 13
    assert len({*conditions}) == len(conditions)
    assert all(probe.required != bool(probe.reach) for probe in probes.PROBES)


@pytest.fixture
def reverse(documented):
    (example,) = documented("A probe")
    namespace = {}
    exec(example, namespace)
    return namespace["REVERSED"]


def test_a_probe_is_one_record(reverse, nano, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probes, "PROBES", (*probes.PROBES, reverse))
    out = tmp_path / "probe"
    cli.main(
        ["probe", "--model", str(nano), "--data", str(pictures), "--shots", "1", "--episodes", "2", "--out", str(out)]
    )
    assert "reverse" in capsys.readouterr().out
    probe = read_probe(out / "probe.json")
    finding = probe["findings"][-1]
    assert (finding["probe"], finding["n_queries"]) == ("reverse", 4)
    assert [figure["label"] for figure in finding["figures"]] == ["as drawn", "reversed"]
    assert {row["task"] for row in probe["rows"]} >= {"shown", "reversed", "swapped"}
    episodes = [line for line in (out / "episodes.jsonl").read_text().splitlines() if '"task":"reversed"' in line]
    assert len(episodes) == 2
