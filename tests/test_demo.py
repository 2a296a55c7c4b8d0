"""The demo: what it shows and asks, what it says of it, and that it can be made again."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from linkcontext import demo as stage
from linkcontext.data.class_folders import open_folder
from linkcontext.data.images import sha256
from linkcontext.demo import _again, demo, teach
from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.models.prompting import Prompting
from linkcontext.report.demo import DemoLesson, DemoQuery, write_demo
from linkcontext.report.tables import Grid
from linkcontext.scoring.local import LocalModel
from linkcontext.worlds import readers

SEED = 918_273  # a world of these tests alone: it is smaller than other worlds


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A small world, and few episodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "WORLD_CLASSES", 6)
        patch.setattr(readers, "WORLD_IMAGES", 8)
        patch.setattr(stage, "MOST", 2)
        patch.setattr(stage, "FEWEST", 2)
        yield


@pytest.fixture(scope="module")
def model(nano):
    return LocalModel(load_model(str(nano), device="cpu"))


@pytest.fixture
def pictures(tmp_path):
    """Class folders with as many different pictures as asked for."""

    def draw(**counts):
        root = tmp_path / "own"
        for number, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng((number, i)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}.png")
        return root

    return draw


def play(nano, out, data=None, seed=SEED):
    """What the demo prints, and its page."""
    printed = io.StringIO()
    page = demo(data and str(data), str(nano), out, seed, Console(file=printed, width=200))
    return printed.getvalue(), page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def played(nano, quick, tmp_path_factory):
    """The built-in demo: what it printed, its page, its folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return *play(nano, out), out


def test_the_built_in_demo(played):
    said, page, out = played
    assert said.count("asked: ") == 12
    assert said.count("shown: ") == 6
    right, by_head = (
        len(re.findall(rf"^    {who}: .*\d%\)  right$", said, re.MULTILINE)) for who in (r".*\(lm\)", "auto")
    )
    assert right + by_head + said.count("wrong, it is ") == 24
    assert f"{right} of 12 right by the language model (lm), {by_head} of 12 by auto" in said
    assert said.index("handwritten digits") < said.index("invented things")  # real pictures first
    assert f"it named {right} of them right" in page
    assert page.count('<section class="query right">') == right
    # 3 x 4 shown and 6 asked in each of two lessons, all inside the page.
    assert page.count("<img ") == page.count("data:image/png;base64,") == 36
    assert "http" not in page.replace("http-equiv", "")
    assert "mini-base" not in page  # the legend speaks of the models of the table alone
    assert sorted(path.name for path in out.iterdir()) == ["demo.html", "runs"]


def test_the_table_is_that_of_the_runs(nano, played):
    said, page, out = played
    for label in ("invented things", "handwritten digits"):
        run = out / "runs" / f"{nano.name}-{label.replace(' ', '-')}"
        rows = json.loads((run / "metrics.json").read_text())["rows"]
        by_head = {row["shots_per_class"]: row["accuracy"] for row in rows if row["scoring"] == "head"}
        rows = [row for row in rows if row["scoring"] == "likelihood_sum"]
        assert [row["shots_per_class"] for row in rows] == [1, 4]
        for row in rows:
            assert (row["ways"], row["names"], row["n_queries"], row["chance"]) == (2, "pseudo", 8, 0.5)
            figures = [f"{row[key]:.3f}".removeprefix("0") for key in ("accuracy", "chance")]
            figures.insert(1, f"{row['baselines']['nearest_centroid']:.3f}".removeprefix("0"))
            figures.insert(1, f"{by_head[row['shots_per_class']]:.3f}".removeprefix("0"))
            line = next(
                line
                for line in said.splitlines()
                if line.startswith(label) and f" {row['shots_per_class']} {figures[0]} [" in line
            )
            assert line.split()[-4:] == [*figures[1:], "8"]
            assert f"<td>{figures[0]} [" in page


def test_the_same_seed_makes_the_same_demo_in_the_same_folder_and_another_seed_another(nano, played):
    said, page, out = played
    assert play(nano, out) == (said, page)
    other, _ = play(nano, out, seed=SEED + 1)
    assert re.findall('"This is .*"', other) != re.findall('"This is .*"', said)


def test_a_lesson_asks_about_pictures_that_were_not_shown(model):
    for subject in stage.built_in(SEED):
        lesson = teach(model, subject)
        shown = [path for paths in lesson.support.values() for path in paths]
        assert [len(paths) for paths in lesson.support.values()] == [4, 4, 4]
        assert sorted(query.name for query in lesson.queries) == sorted([*lesson.support] * 2)
        assert not {sha256(query.picture) for query in lesson.queries} & {sha256(path) for path in shown}
        for query in lesson.queries:
            assert list(query.probabilities) == list(lesson.support)
            assert sum(query.probabilities.values()) == pytest.approx(1)
            assert sum(query.by_head.values()) == pytest.approx(1)
        for name, paths in lesson.support.items():
            classes = {path.parent.name for path in paths}
            assert len(classes) == 1
            assert lesson.truths.get(name) == (classes.pop() if "digits" in lesson.title else None)


def test_two_lessons_share_no_name():
    plans = [subject.plan.seed for subject in stage.built_in(7)]
    assert plans[0] != plans[1]


def test_own_pictures_come_under_both_kinds_of_names(nano, tmp_path, pictures):
    root = pictures(cat=6, dog=6, **{"ice_bear": 7, "yak[red]": 6}, eel=6, cow=9, few=2)
    said, page = play(nano, tmp_path / "out", root)
    assert "left out: few (2 of 6 pictures needed)" in said
    assert "Five of your classes under their own names" in said
    lessons = said.split("Five of your classes")[1:]
    real, pseudo = (re.findall(r"[\w\[\]]+/\d\.png", text.partition("guessing")[0]) for text in lessons)
    assert sorted(real) == sorted(pseudo)  # the same pictures
    assert len(real) == 5 * (4 + 2)
    assert "(yak[red])" in lessons[1] or "(ice bear)" in lessons[1]
    assert {path.name for path in (tmp_path / "out" / "runs").iterdir()} == {
        f"{nano.name}-own-names",
        f"{nano.name}-made-up-names",
    }
    assert page.count("<img ") == 2 * 30


@pytest.mark.parametrize(
    ("counts", "room"),
    [
        ({"a": 6, "b": 6}, (4, 2, 2)),
        ({"a": 9, "b": 5, "c": 5}, (4, 1, 3)),
        ({"a": 9, "b": 4, "c": 2}, (3, 1, 2)),
        ({"a": 2, "b": 2, "c": 1}, (1, 1, 2)),
        (dict.fromkeys("abcdefg", 6), (4, 2, 5)),
    ],
)
def test_fewer_pictures_make_a_smaller_lesson(pictures, counts, room):
    assert stage._lesson_size(open_folder(pictures(**counts))) == room


def test_copies_of_one_picture_are_one_picture(pictures):
    root = pictures(a=6, b=5)
    shutil.copyfile(root / "b" / "0.png", root / "b" / "copy.png")
    assert stage._lesson_size(open_folder(root)) == (4, 1, 2)


def test_too_little_to_teach_is_refused(nano, tmp_path, pictures):
    root = pictures(a=6, b=1)
    with pytest.raises(InputError, match=r"usable classes: 1; .* b \(1 of 2 pictures needed\)"):
        play(nano, tmp_path / "out", root)
    shutil.rmtree(root / "b")
    with pytest.raises(InputError, match="only one class"):
        play(nano, tmp_path / "out", root)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_to_write_to(nano, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out: is a file"):
        play(nano, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_mini_stands_beside_mini_base(model, tmp_path, monkeypatch):
    asked_for = []
    monkeypatch.setattr(stage, "load_model", lambda name, prompting: asked_for.append(name) or model.loaded)
    said, page = play("mini", tmp_path / "out")
    assert asked_for == ["mini-base", "mini"]
    lines = [line.split() for line in said.splitlines() if line.startswith(("invented", "handwritten"))]
    assert [line[2:4] for line in lines] == [["mini-base", "1"], ["mini", "1"], ["mini-base", "4"], ["mini", "4"]] * 2
    assert page.count("the bundled model") == 2


def test_names_are_text_on_the_page(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    name = "<b>bold</b> & [red]"
    query = DemoQuery(tmp_path / "a.png", name, {name: 0.25, "other": 0.75}, {name: 0.6, "other": 0.4})
    lesson = DemoLesson(
        "T", "t", tmp_path, {name: (tmp_path / "a.png",), "other": ()}, {"other": "<i>"}, (query,), "By hand."
    )
    assert (query.answer, query.right, lesson.right, lesson.guessing) == ("other", False, 0, 0.5)
    page = write_demo("m", [lesson], Grid(("pictures", "model"), (("<u>", "m"),)), "again", tmp_path / "p.html")
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; [red]" in text
    assert not {"<b>", "<i>", "<u>"} & set(re.findall("<[biu]>", text))
    assert ":root {" in text
    assert text.count("25 %") == text.count("75 %") == 1
    assert "✗ wrong" in text


def test_the_command_under_the_page_says_how_the_model_is_prompted(tmp_path):
    prompting = Prompting(chat_template_kwargs='{"enable_thinking": false}', max_new_tokens=9)
    again = _again(None, "m", tmp_path, 3, prompting)
    assert again.endswith("--seed 3 --chat-template-kwargs '{\"enable_thinking\": false}' --max-new-tokens 9")
