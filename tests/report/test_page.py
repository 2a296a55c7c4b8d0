import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from linkcontext.errors import InputError
from linkcontext.evaluate.folder import read_run
from linkcontext.evaluate.metrics import rows
from linkcontext.records import Prediction, read_jsonl, write_jsonl
from linkcontext.report.page import summary, write_report
from linkcontext.report.tables import share

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


def with_metrics(run):
    folder = read_run(run)
    made = {"rows": rows(folder.episodes, folder.predictions), "counters": {"image tokens": 17}}
    (run / "metrics.json").write_text(json.dumps(made), encoding="utf-8")
    return made["rows"]


def test_the_report_says_what_metrics_say(make_run):
    run = make_run()
    found = with_metrics(run)
    html, text = read(write_report(run)), read(run / "report.md")
    row = next(r for r in found if (r["shots_per_class"], r["scoring"]) == (4, "likelihood_sum"))
    sentence = summary("mini", found)[0]
    low, high = row["ci95"]
    assert f"gives {share(row['accuracy'])} [{share(low)}, {share(high)}] of 40 queries the right name" in sentence
    assert "chance is .500, copy first .500, copy last .500, nearest centroid 1.000" in sentence
    page = Page(html)
    assert sentence in page.text
    assert sentence in text
    assert page.count("tr") == 1 + len(found) == 13
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


def test_the_page_asks_the_network_for_nothing(make_run):
    page = Page(read(write_report(make_run())))
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
        ("metrics.json", "[]", r"metrics\.json: rows, counters missing"),
        ("metrics.json", '{"rows": [], "counters": {}}', r"metrics\.json: no rows"),
        (
            "metrics.json",
            '{"rows": [{"task": "naming"}], "counters": {}}',
            r"metrics\.json: a row has no names",
        ),
        ("metrics.json", '{"rows": [3], "counters": {}}', r"metrics\.json: a row"),
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


@pytest.mark.parametrize("name", ["config.json", "episodes.jsonl", "predictions.jsonl"])
def test_a_missing_file_is_named(make_run, name):
    run = make_run()
    (run / name).unlink()
    with pytest.raises(InputError, match=f"{name} is not there"):
        write_report(run)


def test_a_report_needs_no_model():
    code = "import sys, linkcontext.report.page; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
