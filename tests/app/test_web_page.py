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
        camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a moving test picture
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", *camera])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, served):
    """A fresh page that must ask nobody else for anything, run no foreign script and log no error."""
    opened = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    asked, wrong = watch(opened)
    visit(opened, served)
    yield opened
    opened.context.close()
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    assert wrong == []


def watch(page):
    """The addresses that a page asks for, and what goes wrong in it, as both happen."""
    asked, wrong = [], []
    page.set_default_timeout(180_000)  # of a machine that has much else to do
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return asked, wrong


def visit(page, address):
    page.goto(address)
    ready(page)


def ready(page):
    """Wait until the page shows what its session was taught."""
    page.locator("#taught").locator(".lc-cards, .lc-quiet").first.wait_for()


def sent(page, where, files):
    """Put files into the input of that name, which may lie in a part of the page that is closed."""
    place = page.locator(f"#{where} input[type=file]")
    if where in ("folder", "archive") and not page.locator(f"#{where}").is_visible():
        page.get_by_role("button", name="Many names at once").click()
    page.locator(f"#{where}").get_by_text("Drop File Here").wait_for()  # what was sent before is put away
    place.set_input_files(files)


def teach(page, name, files):
    page.get_by_label("Name", exact=True).fill(name)
    sent(page, "pictures", [str(file) for file in files])
    page.locator("#chosen li").nth(len(files) - 1).wait_for()
    page.get_by_role("button", name="Teach", exact=True).first.click()


def ask(page, *files):
    """Ask about files, and return the names that they get."""
    sent(page, "query", [str(file) for file in files])
    return answers(page, len(files))


def answers(page, count):
    page.wait_for_function(f"document.querySelectorAll('#answer .lc-name').length == {count}")
    page.wait_for_function("!document.querySelector('#progress').innerText.trim()")
    return page.locator("#answer .lc-name").all_inner_texts()


def names(page):
    return page.locator("#taught figcaption bdi").all_inner_texts()


def wait_for_names(page, count):
    page.wait_for_function(f"document.querySelectorAll('#taught figure').length == {count}")
    return names(page)


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


def test_teach_ask_forget_and_keep(page, world, tmp_path):
    teach(page, "cactihog", world[0][:4])
    page.locator("#notice").get_by_text("cactihog: 4 pictures.").wait_for()
    assert page.locator("#chosen li").count() == 0
    teach(page, MARKUP, world[7][:4])
    assert wait_for_names(page, 2) == ["cactihog", MARKUP]
    assert ask(page, world[0][12]) == ["cactihog"]
    page.locator("#answer").get_by_text("Pictures are named by").wait_for()
    page.locator("#answer summary").click()
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
    assert page.locator("#answer .lc-answer").count() == 0
    sent(page, "pack", str(tmp_path / "zoo.pack"))
    assert wait_for_names(page, 2) == ["cactihog", MARKUP]
    page.get_by_label("A taught name").click()
    page.get_by_role("option", name="cactihog").last.click()
    page.get_by_role("button", name="Forget this name").click()
    assert wait_for_names(page, 1) == [MARKUP]


def test_many_pictures_are_asked_at_once_and_a_wrong_answer_is_corrected(page, world):
    teach(page, "cactihog", world[0][:4])
    wait_for_names(page, 1)
    teach(page, "plimbo", world[7][:4])
    wait_for_names(page, 2)
    asked = [*world[0][12:16], *world[7][12:16], world[22][3], world[22][4]]
    given = ask(page, *asked)
    assert given[:8] == ["cactihog"] * 4 + ["plimbo"] * 4
    assert set(given[8:]) <= {"cactihog", "plimbo", "none of these"}
    page.locator("#answer form input").nth(8).fill("tavork")
    page.locator("#answer form button").nth(8).click()
    assert wait_for_names(page, 3) == ["cactihog", "plimbo", "tavork"]
    page.locator("#ask-notice").get_by_text("tavork: 1 picture.").wait_for()
    again = answers(page, 10)
    assert again[8] == "tavork"
    page.locator("#answer").get_by_text("This picture was taught.").wait_for()
    page.get_by_label("Pictures are named by").click()
    page.get_by_role("option", name="centroid").click()
    page.locator("#answer").get_by_text("the nearest class mean (centroid)").wait_for()
    assert answers(page, 10)[:8] == given[:8]


def test_answers_go_when_something_else_is_taught(page, world):
    teach(page, "cactihog", world[0][:3])
    wait_for_names(page, 1)
    teach(page, "plimbo", world[7][:3])
    wait_for_names(page, 2)
    ask(page, world[22][3])
    teach(page, "tavork", world[22][:3])
    page.locator("#answer").get_by_text("Not asked yet.").wait_for()
    assert page.locator("#answer .lc-name").count() == 0
    page.get_by_role("button", name="Ask", exact=True).click()
    assert answers(page, 1) == ["tavork"]
    page.get_by_label("Question").fill("What is the capital of France?")
    page.get_by_label("Question").press("Enter")
    page.locator("#answer").get_by_text("I do not know these words").wait_for()
    page.get_by_label("Question").fill("")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert answers(page, 1) == ["tavork"]


def test_an_example_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Three handwritten digits").click()
    assert len(answers(page, 6)) == 6
    assert set(page.locator("#answer .lc-bars bdi").all_inner_texts()) == set(names(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_function("document.querySelector('#answer .lc-name').getBoundingClientRect().bottom < innerHeight")
    page.wait_for_function("document.querySelector('#answer .lc-name').getBoundingClientRect().top >= 0")


def test_chosen_pictures_are_shown_and_taken_back(page, world, tmp_path):
    words = tmp_path / "words.png"
    words.write_text("not a picture")
    sent(page, "pictures", [str(world[0][0]), str(world[0][1]), str(words)])
    page.locator("#chosen li").nth(1).wait_for()
    page.locator("#notice .lc-wrong").get_by_text("Left out: words.png: not a picture").wait_for()
    page.get_by_role("button", name=f"Remove {world[0][0].name}").click()
    page.wait_for_function("document.querySelectorAll('#chosen li').length == 1")
    page.get_by_role("button", name="Camera").first.click()
    camera = page.locator("#teach-camera")
    camera.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#teach-camera video')?.videoWidth > 0")  # its picture is seen
    camera.get_by_role("button", name="capture photo").click()
    page.locator("#chosen li").nth(1).wait_for()
    page.get_by_label("Name", exact=True).fill("小猫")
    page.get_by_label("Name", exact=True).press("Enter")
    assert wait_for_names(page, 1) == ["小猫"]
    page.locator("#notice").get_by_text("小猫: 2 pictures.").wait_for()
    with page.expect_file_chooser() as chooser:
        page.locator("#query").get_by_text("Click to Upload").click()
    assert "image/*" in chooser.value.element.get_attribute("accept")


def test_chat_is_read_in_its_order_and_declines_what_it_cannot_know(page, world):
    page.get_by_role("tab", name="Chat").click()
    box = page.get_by_placeholder("this is a cactihog")

    def say(words, picture=None):
        lines = page.locator("#chat-lines .lc-line").count()
        if picture:
            page.locator("#chat input[type=file]").set_input_files(str(picture))
            page.locator("#chat").get_by_role("button", name="Remove").first.wait_for()
        box.fill(words)
        box.press("Enter")
        page.locator("#chat-lines .lc-line").nth(lines + 1).wait_for()
        return page.locator("#chat-lines .lc-line p").last.inner_text()

    assert "Nothing is taught yet." in say("hello")
    assert "which picture is meant?" in say("what is this?")
    assert "cactihogs: 1 picture." in say("these are cactihogs", world[0][0])
    assert "plimbo: 1 picture." in say("a plimbo", world[7][0]) or "plimbo: 1 picture." in say("it is a plimbo")
    say("", world[7][5])
    assert "cactihogs: 2 pictures." in page.locator("#chat-lines").inner_text() or "taken for" in say("no, a cactihog")
    assert "cactihogs (this picture was taught)" in say("what is this?")
    say("forget the cactihog")
    texts = page.locator("#chat-lines .lc-you p").all_inner_texts()
    assert texts[0] == "hello"  # first in the document, as it is first on the screen
    assert texts[-1] == "forget the cactihog"
    first, last = (page.locator("#chat-lines .lc-line").nth(n).bounding_box()["y"] for n in (0, -1))
    assert first < last
    page.get_by_role("tab", name="Teach & ask").click()
    assert wait_for_names(page, 1) == ["plimbo"]


def test_a_reload_a_second_tab_and_the_way_back_keep_what_was_taught(page, served, world):
    teach(page, "cactihog", world[0][:3])
    wait_for_names(page, 1)
    page.reload()
    ready(page)
    assert names(page) == ["cactihog"]
    other = page.context.new_page()
    _, wrong = watch(other)
    visit(other, served)
    assert names(other) == ["cactihog"]
    teach(other, "plimbo", world[7][:3])
    wait_for_names(other, 2)
    page.bring_to_front()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as browsers tell of tabs that are shown
    assert wait_for_names(page, 2) == ["cactihog", "plimbo"]
    assert ask(page, world[7][9]) == ["plimbo"]
    page.goto("about:blank")
    page.go_back()
    ready(page)
    assert names(page) == ["cactihog", "plimbo"]
    assert answers(page, 1) == ["plimbo"]
    other.close()
    assert wrong == []


def test_other_browsers_see_nothing_of_it(page, browser, served, world):
    teach(page, "cactihog", world[0][:3])
    wait_for_names(page, 1)
    stranger = browser.new_page()
    watch(stranger)
    visit(stranger, served)
    assert names(stranger) == []
    stranger.context.close()


def test_a_connection_that_is_lost_in_the_middle(page, world):
    teach(page, "cactihog", world[0][:3])
    wait_for_names(page, 1)
    teach(page, "plimbo", world[7][:3])
    wait_for_names(page, 2)
    sent(page, "query", [str(path) for path in world[0][10:30]])
    page.locator("#answer .lc-answer").nth(19).wait_for()
    page.context.set_offline(True)  # the laptop is closed
    page.wait_for_timeout(2_000)
    page.context.set_offline(False)
    page.reload()
    ready(page)
    assert names(page) == ["cactihog", "plimbo"]
    assert page.locator("#answer .lc-answer").count() == 20
    if page.locator("#answer .lc-name").count() < 20:
        page.get_by_role("button", name="Ask", exact=True).click()
    assert answers(page, 20) == ["cactihog"] * 20


def test_folders_and_zips_teach_many_names(page, world, tmp_path):
    for name, pictures in (("red_fox", world[0]), ("plimbo", world[7])):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for number, picture in enumerate(pictures[:3]):  # files of the same names in both folders
            (tmp_path / "zoo" / name / f"{number}.png").write_bytes(picture.read_bytes())
    sent(page, "folder", str(tmp_path / "zoo"))
    assert sorted(wait_for_names(page, 2)) == ["plimbo", "red fox"]
    again = {f"zoo/tavork/{n}.png": p.read_bytes() for n, p in enumerate(world[22][:3])}
    sent(page, "archive", zipped(tmp_path / "more.zip", {**again, "zoo/tavork/notes.png": b"text"}))
    wait_for_names(page, 3)
    assert "zoo/tavork/notes.png: not a picture" in page.locator("#notice").inner_text()
    assert ask(page, world[22][20]) == ["tavork"]


def test_forty_names_from_a_folder(page, world, tmp_path):
    for number, pictures in enumerate(world[:40]):
        (tmp_path / "zoo" / f"thing {number}").mkdir(parents=True)
        for picture in pictures[:3]:
            (tmp_path / "zoo" / f"thing {number}" / picture.name).write_bytes(picture.read_bytes())
    sent(page, "folder", str(tmp_path / "zoo"))
    assert len(wait_for_names(page, 40)) == 40
    sent(page, "query", [str(world[5][9])])
    page.locator("#progress").get_by_text("each of the 120 taught pictures is left out once").wait_for()
    page.set_default_timeout(300_000)
    assert answers(page, 1)


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
            ({"a/Cat/0.png": good, "b/cat/0.png": world[1][0].read_bytes()}, "two folders have the same name"),
            ({"a/0.png": good, "b/0.png": good}, "Give it one name"),
        )
    ):
        sent(page, "archive", zipped(tmp_path / f"{number}.zip", members))
        page.locator("#notice .lc-wrong").get_by_text(sentence).wait_for()
    for name, sentence in (("x" * 500, "at most 100 letters"), ("<image>", "a special token")):
        teach(page, name, [world[0][0]])
        page.locator("#notice .lc-wrong").get_by_text(sentence).wait_for()
        page.locator("#chosen button").click()
        page.wait_for_function("!document.querySelector('#chosen li')")
    sent(page, "query", str(text))
    page.locator("#ask-notice .lc-wrong").get_by_text("words.png: not a picture").wait_for()
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
    shown = page.locator("#run").inner_text()
    assert "pseudo names, 2-way" in shown
    assert "below/second − first [95 %]" in shown
    assert "first and below/second differ in" in shown


def test_no_path_from_a_browser_is_opened(served, tmp_path):
    """Whatever Gradio's own protocol is asked for, files that were not sent are not read."""
    config = httpx.get(f"{served}config").json()
    kinds = {c["id"]: c["type"] for c in config["components"]}
    files = ("file", "image", "multimodaltextbox")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    tried = 0
    for function in config["dependencies"]:
        if not {kinds[i] for i in function["inputs"]} & {*files}:
            continue
        value = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
        for sent_value in (value, [value]):
            box = {"text": "", "files": [value]}
            data = [
                box if kinds[i] == "multimodaltextbox" else sent_value if kinds[i] in files else "x"
                for i in function["inputs"]
            ]
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
