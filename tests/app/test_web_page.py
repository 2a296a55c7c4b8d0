"""The web page, in a real browser: what visitors do, and what strangers try."""

import json
import re
import stat
import zipfile
from pathlib import Path

import httpx
import pytest

import linkcontext
from linkcontext.app.page import launch
from linkcontext.config import eval_config
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.report.page import write_report
from linkcontext.source import open_data

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium to open the page in"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Gradio's server and its sockets, as they are closed
]
MARKUP = "<img src=x onerror=alert(1)> ${1+1} {{1+1}}"


@pytest.fixture(scope="module")
def world():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, model in (("first", "mini"), ("below/second", "mini-base")):
        run_evaluation(eval_config(model=model, data="world:3", ways=2, shots=(1,), episodes=4, out=str(root / name)))
        write_report(root / name)
    return root


@pytest.fixture(scope="module")
def served(runs, tmp_path_factory):
    page = launch(linkcontext.load("mini").model, runs, tmp_path_factory.mktemp("served"))
    yield page.local_url
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, served):
    """A fresh page that must ask nobody else for anything, run no foreign script and log no error."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(60_000)
    asked, wrong = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(served)
    opened.get_by_role("button", name="Three invented things").wait_for()
    yield opened
    opened.close()
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    assert wrong == []


def sent(page, where, files):
    """Put files into the input of that name, which may lie in a part of the page that is closed."""
    place = page.locator(f"#{where} input[type=file]")
    if where in ("folder", "archive") and not page.locator(f"#{where}").is_visible():
        page.get_by_role("button", name="Many names at once").click()
    page.locator(f"#{where}").get_by_text("Drop File Here").wait_for()  # what was sent before is put away
    place.set_input_files(files)


def teach(page, name, files):
    page.get_by_label("Name", exact=True).first.fill(name)
    sent(page, "pictures", [str(file) for file in files])
    page.get_by_text(Path(files[-1]).stem[:6]).first.wait_for()
    page.get_by_role("button", name="Teach", exact=True).click()


def names(page):
    return page.locator("#taught figcaption bdi").all_inner_texts()


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


def test_teach_ask_forget_and_keep(page, world, tmp_path):
    teach(page, "cactihog", world[0][:4])
    page.locator("#notice").get_by_text("cactihog: 4 pictures.").wait_for()
    teach(page, MARKUP, world[7][:4])
    page.locator("#taught figure").nth(1).wait_for()
    assert names(page) == ["cactihog", MARKUP]
    sent(page, "query", str(world[0][12]))
    page.locator("#answer .lc-name").wait_for()
    assert page.locator("#answer .lc-name").inner_text() == "cactihog"
    assert page.locator("#answer .lc-nearest figure").count() == 3
    shares = [
        float(text.split()[0]) for text in page.locator("#answer .lc-bars li > span:last-child").all_inner_texts()
    ]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    page.get_by_role("button", name="Save or load").click()
    page.get_by_role("button", name="Make a pack").click()
    with page.expect_download() as download:
        page.locator("a[download]").last.click()
    download.value.save_as(tmp_path / "zoo.pack")
    page.get_by_role("button", name="Start over").click()
    page.get_by_text("Nothing is taught yet.").wait_for()
    sent(page, "pack", str(tmp_path / "zoo.pack"))
    page.locator("#taught figure").nth(1).wait_for()
    assert names(page) == ["cactihog", MARKUP]
    page.get_by_role("tab", name="Chat").click()
    box = page.get_by_placeholder("this is a cactihog")
    for words, answer in (("forget the cactihog", "cactihog is forgotten."), ("what is this?", "show a picture first")):
        box.fill(words)
        box.press("Enter")
        page.locator("#chat").get_by_text(answer).wait_for()
    page.get_by_role("tab", name="Teach & ask").click()
    page.wait_for_function("document.querySelectorAll('#taught figure').length == 1")
    assert names(page) == [MARKUP]


def test_an_example_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Three handwritten digits").click()
    page.locator("#taught figure").nth(2).wait_for()
    page.locator(".thumbnail-item").nth(2).click()
    page.locator("#answer .lc-name").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert set(page.locator("#answer .lc-bars bdi").all_inner_texts()) == set(names(page))


def test_folders_and_zips_teach_many_names(page, world, tmp_path):
    for name, pictures in (("red_fox", world[0]), ("plimbo", world[7])):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for number, picture in enumerate(pictures[:3]):  # files of the same names in both folders
            (tmp_path / "zoo" / name / f"{number}.png").write_bytes(picture.read_bytes())
    sent(page, "folder", str(tmp_path / "zoo"))
    page.locator("#taught figure").nth(1).wait_for()
    assert sorted(names(page)) == ["plimbo", "red fox"]
    again = {f"zoo/tavork/{n}.png": p.read_bytes() for n, p in enumerate(world[22][:3])}
    sent(page, "archive", zipped(tmp_path / "more.zip", {**again, "zoo/tavork/notes.png": b"text"}))
    page.locator("#taught figure").nth(2).wait_for()
    assert "zoo/tavork/notes.png: not a picture" in page.locator("#notice").inner_text()
    sent(page, "query", str(world[22][20]))
    page.locator("#answer .lc-name").wait_for()
    assert page.locator("#answer .lc-name").inner_text() == "tavork"


def test_what_strangers_send_is_a_sentence_and_nothing_half_done(page, world, tmp_path):
    good = world[0][0].read_bytes()
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    text = tmp_path / "words.png"
    text.write_text("not a picture")
    for number, (members, sentence) in enumerate(
        (
            ({"a/0.png": good, "a/1.png": bytes(200_000_000)}, "times its size"),
            ({"a/0.png": good, "../b/1.png": good}, "'../b/1.png': a path that leads out"),
            ({"a/0.png": good, "/etc/1.png": good}, "'/etc/1.png': a path that leads out"),
            ({"a/0.png": good, link: "/etc/passwd"}, "a link or another special file"),
            ({f"a/{n}.png": b"" for n in range(10_000)}, "10,000 files are more"),
            ({"a/Cat/0.png": good, "b/cat/0.png": world[1][0].read_bytes()}, "two folders of one name"),
            ({"a/0.png": good, "b/0.png": good}, "Name it once"),
        )
    ):
        sent(page, "archive", zipped(tmp_path / f"{number}.zip", members))
        page.locator("#notice .lc-wrong").get_by_text(sentence).wait_for()
    for name, files, sentence in (
        ("x" * 500, [world[0][0]], "at most 100 letters"),
        ("cat", [world[0][0], text], "words.png: not a picture"),
        ("<image>", [world[0][0]], "a special token"),
    ):
        teach(page, name, files)
        page.locator("#notice .lc-wrong").get_by_text(sentence).wait_for()
        page.reload()
        page.get_by_role("button", name="Three invented things").wait_for()
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(200_000_000)
    sent(page, "pictures", str(huge))
    page.get_by_text(re.compile("exceed", re.IGNORECASE)).first.wait_for()
    assert names(page) == []


def test_runs_are_opened_by_name_from_the_list(page):
    page.get_by_role("tab", name="Runs").click()
    for label, run in (("Run", "first"), ("Compare with", "below/second")):
        page.get_by_label(label, exact=True).click()
        page.get_by_role("option", name=run).last.click()
    page.get_by_role("button", name="Open the report").click()
    page.frame_locator("#run iframe").get_by_role("heading", level=1).wait_for()
    page.get_by_role("button", name="Compare the two").click()
    page.locator("#run table").wait_for()
    assert "pseudo names, 2-way" in page.locator("#run").inner_text()


def test_no_path_from_a_browser_is_opened(served, tmp_path):
    """Whatever Gradio's own protocol is asked for, files that were not sent are not read."""
    config = httpx.get(f"{served}config").json()
    kinds = {c["id"]: c["type"] for c in config["components"]}
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    tried = 0
    for function in config["dependencies"]:
        if "file" not in [kinds[i] for i in function["inputs"]]:
            continue
        value = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
        for sent_value in (value, [value]):
            data = [sent_value if kinds[i] == "file" else "x" for i in function["inputs"]]
            joined = {"data": data, "fn_index": function["id"], "session_hash": f"s{tried}"}
            answer = httpx.post(f"{served}gradio_api/queue/join", json=joined)
            if answer.status_code == 200:
                with httpx.stream("GET", f"{served}gradio_api/queue/data?session_hash=s{tried}", timeout=30) as events:
                    lines = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
                done = next(line for line in lines if line["msg"] == "process_completed")
                assert not done["success"], done
            tried += 1
    assert tried >= 10
    assert httpx.get(f"{served}gradio_api/file={secret}").status_code in (403, 404)
