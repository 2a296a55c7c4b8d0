import dataclasses
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from linkcontext.errors import InputError
from linkcontext.evaluation.attribution_file import (
    AnswerAttribution,
    Attribution,
    QueryAttribution,
    TreeSegment,
    TreeToken,
    TreeView,
    read_attribution,
)
from linkcontext.evaluation.example_selection import select_examples
from linkcontext.evaluation.metrics import grouped, metric_rows
from linkcontext.evaluation.run_dir import read_run
from linkcontext.evaluation.text import format_share
from linkcontext.jsonl import read_jsonl, to_json, write_jsonl
from linkcontext.records import Prediction
from linkcontext.report.page import summary, write_report
from linkcontext.storage import write_text

TWO = (TreeSegment(2, 3, 0), TreeSegment(3, 4, 0))
VOID = {"meta", "img", "br", "link", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects tags, text and addresses, and fails on tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.addresses = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def count(self, tag):
        return sum(t == tag for t, _ in self.tags)


def read(path):
    return path.read_text(encoding="utf-8")


def with_explanation(run, item="circle/0.png", text="<|user|>"):
    """One query of which the fourth support picture spoke for the right name, and a tree of four tokens."""
    folder = read_run(run)
    picked = select_examples(grouped(folder.episodes, folder.predictions))
    episode, prediction = picked.episodes[picked.wrong[0]][0]
    told = [AnswerAttribution(prediction.gold, -1.0, (-1.0, -1.0, -1.0, -3.5, -1.0, -0.9, -1.0, -1.0))]
    told += [
        AnswerAttribution(c.class_id, -2.0, (-2.0,) * 8) for c in episode.candidates if c.class_id != prediction.gold
    ]
    tokens = (TreeToken(text, 1, "", False), TreeToken("<image>", 17, item, False), TreeToken(" a", 1, "", True))
    reading = TreeView(episode.id, 1, 2, 40, 20, (*tokens, TreeToken("b", 1, "", True)), (TreeSegment(0, 2, -1), *TWO))
    found = Attribution(4, "prefix-cache", 18, 1.25, (QueryAttribution(prediction.query_id, tuple(told)),), reading)
    write_text(to_json(found), run / "explain.json")
    return prediction


def with_metrics(run):
    folder = read_run(run)
    made = {"rows": metric_rows(folder.episodes, folder.predictions), "counters": {"image tokens": 17}}
    (run / "metrics.json").write_text(json.dumps(made), encoding="utf-8")
    return made["rows"]


def test_the_report_says_what_metrics_say(make_run):
    run = make_run()
    found = with_metrics(run)
    html, text = read(write_report(run)), read(run / "report.md")
    row = next(r for r in found if (r["shots_per_class"], r["scoring"]) == (4, "likelihood_sum"))
    sentence = summary("mini", found)[0]
    low, high = map(format_share, row["ci95"])
    assert f"gives {format_share(row['accuracy'])} [{low}, {high}] of 40 queries the right name" in sentence
    assert "chance is .500, copy first .500, copy last .500, nearest centroid 1.000" in sentence
    page = Page(html)
    assert sentence in page.text
    assert sentence in text
    assert page.count("tr") == 1 + len(found) + 1 + 2 == 16  # the metrics, and two classes that may be confused
    assert sum(line.startswith("| naming") for line in text.splitlines()) == 12
    assert page.count("figure") == 1
    for shown in (
        "17",
        "x.png: 0 bytes",
        "linkcontext eval --model mini --data shapes --shots 0 1 4 --out run",
    ):
        assert shown in "\n".join(page.text)
        assert shown in text


def test_metrics_are_made_anew_where_they_are_missing(make_run):
    run = make_run()
    without = re.sub(r"<h3>Counters.*?</dl>", "", read(write_report(run)), flags=re.DOTALL)
    with_metrics(run)
    assert re.sub(r"<h3>Counters.*?</dl>", "", read(write_report(run)), flags=re.DOTALL).split() == without.split()


def test_the_page_says_what_moved_an_answer_and_how_a_prompt_is_read(make_run):
    run = make_run()
    without = Page(read(write_report(run)))
    assert "--explain 4" in without.text
    assert "## Explanation" not in read(run / "report.md")
    with_explanation(run)
    html = read(write_report(run))
    page = Page(html)
    assert "--explain 4" not in page.text
    cost = "18 answers were scored in 1.2 s besides the evaluation (engine prefix-cache)."
    assert cost in html
    assert cost in read(run / "report.md")
    changes = [text.strip() for text in page.text if re.fullmatch(r"\s*[+−]?\d\.\d\d\s*", text)]
    assert [c for c in changes if c != "0.00"] == ["−2.50", "+0.10"]
    assert html.count('class="beam"') == 16
    assert 'style="right: 50%; width: 50.0%"' in html  # the largest change is a whole half
    assert 'style="left: 50%; width: 2.0%"' in html
    assert [t for t in page.text if t in ("trunk 0", "answer 18", "answer 19")] == ["trunk 0", "answer 18", "answer 19"]
    assert "picture × 17" in page.text
    assert "·a" in page.text


def test_more_episodes_are_opened_where_more_are_explained(make_run):
    run = make_run(episodes=30)
    folder = read_run(run)
    picked = select_examples(grouped(folder.episodes, folder.predictions))
    for limit in range(30):
        fewer, more = picked.first(limit), picked.first(limit + 1)
        assert all(b[: len(a)] == a for a, b in zip(fewer, more, strict=True))
        assert sum(map(len, more)) == limit + 1


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"reading":', '"writing":', "reading missing"),
        ("-3.5", '"much"', "without must be a finite number"),
        ("-3.5,", "", "is another query in this run"),
        ('"start":2', '"start":1', "its segments do not form a tree"),
        ('"tokens":[', '"tokens":3,"x":[', "not a line of TreeViews"),
        ('"query_id":"', '"query_id":"x', "is another query in this run"),
    ],
)
def test_an_explanation_that_is_damaged_or_of_another_run_is_named(make_run, old, new, sentence):
    run = make_run()
    with_explanation(run)
    text = read(run / "explain.json")
    assert old in text
    (run / "explain.json").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=rf"explain\.json: .*{sentence}"):
        write_report(run)
    assert not list(run.glob("report*"))


def test_an_explanation_is_read_as_it_was_written(make_run):
    run = make_run()
    prediction = with_explanation(run)
    found = read_attribution(run / "explain.json")
    assert found.queries[0].query_id == prediction.query_id
    assert to_json(found) == read(run / "explain.json")


def test_the_page_asks_the_network_for_nothing(make_run):
    run = make_run()
    with_explanation(run)
    page = Page(read(write_report(run)))
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", read(run / "report.html"))
    assert page.count("img") > 20
    assert page.count("script") == page.count("link") == 0
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_names_are_text_wherever_they_stand(make_run):
    evil = ("<img src=x onerror=alert(1)>", "\"><script>'&amp;")
    run = make_run(names=evil)
    config = json.loads(read(run / "config.json"))
    config["model"]["name"] = config["command"] = config["data"]["spec"] = evil[1]
    config["versions"][evil[0]] = evil[1]
    config["data"]["problems"] = [evil[0]]
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with_explanation(run, *evil)
    page = Page(read(write_report(run)))
    assert page.count("script") == 0
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert page.text.count(evil[0]) > 10


def test_right_and_wrong_are_said_by_a_sign_too(make_run):
    page = "\n".join(Page(read(write_report(make_run()))).text)
    assert "✓ right" in page
    assert "✗ wrong" in page


def test_a_report_outlives_its_pictures(make_run):
    run = make_run()
    for path in (run.parent / "pictures").rglob("*.png"):
        path.unlink()
    page = Page(read(write_report(run)))
    assert page.count("img") == 0
    assert any(text.startswith("20 of their pictures could not be read below") for text in page.text)


def test_the_same_files_make_the_same_report(make_run):
    run = make_run()
    first = read(write_report(run)), read(run / "report.md")
    assert (read(write_report(run)), read(run / "report.md")) == first


def test_only_generation_or_only_likelihood(make_run):
    for part in ({"candidates": ()}, {"reply": None}):
        run = make_run(name=next(iter(part)))
        predictions = list(read_jsonl(Prediction, run / "predictions.jsonl"))
        write_jsonl([dataclasses.replace(p, **part) for p in predictions], run / "predictions.jsonl")
        page = Page(read(write_report(run)))
        assert (page.count("q") == 0) == ("reply" in part)
        assert any("It is a" in text for text in page.text) == ("candidates" in part)


def test_swapped_names_show_the_true_ones(make_run):
    page = "\n".join(Page(read(write_report(make_run(names=("square", "circle"), kind="swapped")))).text)
    assert "true name" in page
    assert "(circle)" in page


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("metrics.json", "{", r"metrics\.json: not JSON"),
        ("metrics.json", "[]", r"metrics\.json: counters missing"),
        ("metrics.json", '{"counters": []}', r"metrics\.json: counters must be an object"),
        ("config.json", '{"command": ""}', r"config\.json: config, model, data, versions missing"),
        ("episodes.jsonl", "", r"episodes\.jsonl is empty"),
        ("predictions.jsonl", '{"a": 1}\n', r"predictions\.jsonl:1"),
    ],
)
def test_damage_is_named_and_nothing_is_written(make_run, name, damage, sentence):
    run = make_run()
    (run / name).write_text(damage, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        write_report(run)
    assert not list(run.glob("report*"))


def test_figures_are_those_of_the_predictions_whatever_metrics_say(make_run):
    run = make_run()
    with_metrics(run)
    page = read(write_report(run))
    kept = json.loads(read(run / "metrics.json"))
    kept["rows"] = [row | {"accuracy": 1.0} for row in kept["rows"][:1]]
    (run / "metrics.json").write_text(json.dumps(kept), encoding="utf-8")
    assert read(write_report(run)) == page


def test_a_report_of_an_unfinished_run_says_so_at_its_top(make_run):
    run = make_run(episodes=4)
    assert "not finished" not in read(write_report(run))
    lines = read(run / "predictions.jsonl").splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:10]) + lines[10][:30], encoding="utf-8")
    html, text = read(write_report(run)), read(run / "report.md")
    sentence = "14 of its 24 predictions are missing (0 shots: 4 of 8, 1 shots: 4 of 8, 4 shots: 6 of 8)"
    assert sentence in html
    assert html.index("not finished") < html.index("gives")
    assert sentence in text.splitlines()[2]


def test_a_report_counts_what_its_retention_run_lacks(make_run):
    run = make_run()
    (run / "retention").mkdir()
    for name in ("config.json", "metrics.json"):
        shutil.copy(run / "config.json", run / "retention" / name)
    (run / "retention" / "metrics.json").write_text('{"rows": []}')
    (run / "retention" / "questions.jsonl").write_text("{}\n" * 5)
    (run / "retention" / "answers.jsonl").write_text("{}\n" * 5)
    write_report(run)
    assert "not finished" not in read(run / "report.md")
    (run / "retention" / "answers.jsonl").write_text("{}\n" * 3 + "{")
    write_report(run)
    assert "retention run of this run is not finished: 2 of its 5 answers are missing" in read(run / "report.md")


@pytest.mark.parametrize("name", ["config.json", "episodes.jsonl", "predictions.jsonl"])
def test_a_missing_file_is_named(make_run, name):
    run = make_run()
    (run / name).unlink()
    with pytest.raises(InputError, match=f"{name} is not there"):
        write_report(run)


def test_a_report_needs_no_model():
    code = "import sys, linkcontext.report.page; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
