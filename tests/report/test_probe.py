"""A probe's findings as text, and as a section of a run's report."""

import json

from linkcontext.evaluation.text import format_share
from linkcontext.report.page import write_report
from linkcontext.report.probe import probe_grid, probe_html, probe_markdown, probe_of, probe_table, write_probe


def a_finding(**change):
    figures = [
        {"label": "as drawn", "accuracy": 0.95, "ci95": [0.9, 0.97], "n_queries": 400, "chance": 0.5},
        {"label": "pictures shuffled", "accuracy": 0.5, "ci95": [0.45, 0.55], "n_queries": 400, "chance": 0.5},
    ]
    finding = {
        "probe": "shuffled pictures",
        "linker": "falls to chance",
        "figures": figures,
        "measured": "as drawn less pictures shuffled",
        "effect": 0.45,
        "ci95": [0.4, 0.5],
        "p": 0.0001,
        "p_holm": 0.0008,
        "full": 0.5,
        "detectable": 0.05,
        "n_queries": 400,
        "n_episodes": 200,
        "n_pictures": 150,
        "passes": True,
        "verdict": "it matters which picture has which name",
    }
    return finding | change


def a_probe(**change):
    probe = {
        "model": "mini",
        "data": "world:7",
        "conclusion": "links",
        "sentence": "mini links: it does.",
        "findings": [a_finding(), a_finding(probe="order", p_holm=0.04)],
        "rows": [],
        "left_out": ["8 ways: too few classes."],
        "counters": {},
    }
    return probe | change


def keep(probe, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "probe.json").write_text(json.dumps(probe), encoding="utf-8")


def test_a_line_by_hand():
    grid = probe_grid(a_probe())
    assert grid.lines[0] == (
        "shuffled pictures",
        "falls to chance",
        "as drawn: .950 [.900, .970]; pictures shuffled: .500 [.450, .550]",
        "as drawn less pictures shuffled: +.450 [+.400, +.500]",
        "<.001",
        "it matters which picture has which name",
        "400 / 200 / 150",
    )
    assert [line[4] for line in grid.lines] == ["<.001", ".040"]
    assert probe_table(a_probe()["findings"]).row_count == 2


def test_the_section_is_in_both_reports_where_the_run_was_probed(make_run):
    run = make_run()
    before = write_report(run).read_text(encoding="utf-8"), (run / "report.md").read_text(encoding="utf-8")
    assert probe_of(run) is None
    assert "This run was not probed." in probe_html(run)
    assert "This run was not probed." in probe_markdown(run)
    keep(a_probe(), run / "probe")
    after = write_report(run).read_text(encoding="utf-8"), (run / "report.md").read_text(encoding="utf-8")
    for without, text in zip(before, after, strict=True):
        for words in ("mini links: it does.", "it matters which picture has which name", "8 ways: too few classes."):
            assert words not in without
            assert words in text
    keep(a_probe(sentence="The folder is a probe itself."), run)
    assert probe_of(run)["sentence"] == "The folder is a probe itself."


def test_a_name_in_the_section_is_text(tmp_path):
    keep(a_probe(sentence="<script>alert(1)</script>", left_out=["<b>"]), tmp_path)
    html = probe_html(tmp_path)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>" not in html


def test_probe_md_says_what_probe_json_says(tmp_path):
    keep(a_probe(), tmp_path)
    text = write_probe(tmp_path).read_text(encoding="utf-8")
    assert text.startswith("# mini on world:7\n\n")
    assert f"+{format_share(0.45)} [+.400, +.500]" in text
    assert text.count("| 400 / 200 / 150 |") == 2
