"""What the web page does and shows, without a browser."""

import zipfile

import pytest
from PIL import Image

from linkcontext.app import html, runs
from linkcontext.app.packs import open_pack, save_pack
from linkcontext.app.session import Session
from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.storage import write_text


@pytest.fixture(scope="module")
def world():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.fixture(scope="module")
def model(nano):
    return LocalModel(load_model(str(nano)))


@pytest.fixture
def session(model, tmp_path):
    folder = tmp_path / "session"
    folder.mkdir()
    return Session(model, folder)


def teach(session, name, files):
    assert session.choose(files) == []
    return session.teach(name)


def ask(session, *files, question=""):
    assert session.ask(files, question) == []
    for _ in session.answer():
        pass
    return html.answer_cards(session)


def say(session, text, files):
    session.hear(text, files)
    session.reply()


def shown(session):
    return {name: len(items) for name, items in session.dialogue.learner.pictures.by_name.items()}


def test_names_and_what_is_said_are_shown_as_text(session, world):
    markup = "<script>alert(1)</script>"
    teach(session, markup, world[0][:2])
    teach(session, "b & c", world[1][:2])
    say(session, markup, [world[0][5]])
    session.choose(world[2][:1])
    page = html.concept_cards(session) + html.chat_lines(session) + ask(session, world[0][3], world[0][4])
    page += (
        html.chosen_pictures(session)
        + html.notice([markup], True)
        + html.report_frame(markup, f"<html>{markup}</html>")
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "b &amp; c" in page
    assert 'sandbox title="' in page


def test_what_was_sent_is_kept_under_its_content_alone(session, world, tmp_path):
    odd = tmp_path / "..%2f..png"
    odd.write_bytes(world[0][0].read_bytes())
    teach(session, "a", [odd])
    (kept,) = session.folder.iterdir()
    assert len(kept.stem) == 64
    assert kept.suffix == ".png"
    odd.write_text("no picture")
    (problem,) = session.choose([world[1][0], odd])
    assert problem.startswith("Left out: ..%2f..png: not a picture")
    assert len(session.chosen) == 1  # the good one, which is not taught yet
    assert shown(session) == {"a": 1}
    session.close()
    assert not session.folder.exists()


def test_an_archive_is_taught_whole_or_not_at_all(session, world, tmp_path):
    archive = tmp_path / "zoo.zip"
    for second, sentence in (
        (("b", world[0][0]), "Give it one name"),
        (("b" * 200, world[1][0]), "at most 100 letters"),
    ):
        with zipfile.ZipFile(archive, "w") as file:
            file.write(world[0][0], "a/0.png")
            file.write(second[1], f"{second[0]}/0.png")
        with pytest.raises(InputError, match=sentence):
            session.teach_archive(archive)
        assert shown(session) == {}
    sent = {"zoo/a/0.png": world[0][0], "zoo/b/0.png": world[1][0], "zoo/b/1.png": archive}
    said = session.teach_folder(sent)
    assert said[:2] == ["a: 1 picture.", "b: 1 picture."]
    assert said[2].startswith("Left out: zoo/b/1.png: not a picture")
    assert shown(session) == {"a": 1, "b": 1}


def test_what_goes_wrong_is_told_by_the_names_that_were_sent(session, world, tmp_path):
    here = str(session.folder)

    def refused(act):
        with pytest.raises(InputError) as error:
            act()
        assert here not in str(error.value)
        assert str(tmp_path) not in str(error.value)
        return str(error.value)

    archive = tmp_path / "zoo.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(world[0][0], "cat/mia.png")
        file.write(world[0][0], "dog/rex.png")
    text = refused(lambda: session.teach_archive(archive))
    assert text.startswith("cat/mia.png and dog/rex.png: the same picture has the names 'cat' and 'dog'")
    text = refused(lambda: session.teach_folder({"z/cat/mia.png": world[0][0], "z/dog/rex.png": world[0][0]}))
    assert "z/cat/mia.png and z/dog/rex.png" in text
    archive.write_text("no zip")
    refused(lambda: session.teach_archive(archive))
    (problem,) = session.choose([tmp_path / "gone.png"])
    assert problem.startswith("Left out: gone.png: ")
    assert refused(lambda: session.ask([tmp_path / "gone.png"])).startswith("Left out: gone.png: ")
    refused(lambda: open_pack(session, tmp_path / "gone.pack"))
    say(session, "this is a cat", [world[0][0]])
    say(session, "/help", [])
    assert session.lines[-1].who == "sorry"
    assert not [line for line in session.lines if here in line.text]


def test_a_pack_from_elsewhere_is_not_opened(session, world, tmp_path, monkeypatch):
    teach(session, "a", world[0][:2])
    teach(session, "b", world[1][:2])
    kept = save_pack(session)
    assert open_pack(session, kept) == ["a: 2 pictures.", "b: 2 pictures."]
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "another"))  # whose key is another
    with pytest.raises(InputError, match=r"^taught\.pack: was not written .* Teach its pictures here"):
        open_pack(session, kept)


def test_a_picture_that_was_taught_is_said_to_be_so(session, world):
    teach(session, "a", world[0][:2])
    teach(session, "b", world[1][:2])
    assert "This picture was taught" in ask(session, world[0][0])
    assert "This picture was taught" not in ask(session, world[0][5])


def test_a_pack_is_opened_without_any_picture_s_file(session, world, tmp_path, model):
    teach(session, "a", world[0][:2])
    with pytest.raises(InputError, match="at least two names"):
        save_pack(session)
    teach(session, "b", world[1][:2])
    ask(session, world[0][5])
    probabilities = session.answers[0].answer.probabilities
    pack = tmp_path / "zoo.pack"
    pack.write_bytes(save_pack(session).read_bytes())
    session.close()
    other = Session(model, tmp_path)
    assert open_pack(other, pack) == ["a: 2 pictures.", "b: 2 pictures."]
    ask(other, world[0][5])
    assert other.answers[0].answer.probabilities == pytest.approx(probabilities, abs=1e-4)
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"^zoo\.pack: not a pack, or damaged"):
        open_pack(other, pack)
    assert shown(other) == {"a": 2, "b": 2}


def test_an_example_asks_about_pictures_that_were_not_shown(session):
    session.teach_example("digits", 1)
    assert list(shown(session).values()) == [4, 4, 4]
    assert len(session.asked) == 6
    taught = {item for items in session.dialogue.learner.pictures.by_name.values() for item in items}
    assert not taught & {session.dialogue.learner.query(path).item for path in session.asked}
    for _ in session.answer():
        pass
    assert all(set(reply.answer.probabilities) == set(shown(session)) for reply in session.answers)


def test_many_pictures_are_asked_at_once_and_a_correction_asks_again(session, world, tmp_path):
    teach(session, "a", world[0][:3])
    teach(session, "b", world[1][:2])
    queries = [*world[0][5:11], *world[1][5:9]]
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    (problem,) = session.ask([*queries, bad, queries[0]])
    assert problem.startswith("Left out: bad.png: not a picture")
    assert len(session.asked) == 10  # each picture once
    assert "each of the 5 taught pictures is left out once" in session.wait()
    steps = [len(session.answers) for _ in session.answer()]
    assert steps == [8]
    assert [reply.answer is not None for reply in session.answers] == [True] * 10
    assert session.wait() == ""
    page = html.answer_cards(session)
    assert page.count('<form class="lc-correct"') == 10
    assert "Pictures are named by" in page
    assert session.correct(9, "c") == ["c: 1 picture."]
    assert (session.answers, bool(session.wait())) == ([], True)
    assert html.answer_cards(session).count("Not asked yet.") == 10
    for _ in session.answer():
        pass
    assert session.answers[9].answer.name == "c"
    for number, name in ((10, "c"), (-1, "c"), (0, " ")):
        with pytest.raises(InputError):
            session.correct(number, name)
    assert len(session.answers) == 10
    with pytest.raises(InputError, match="more than the 100"):
        session.ask([queries[0]] * 101)


def test_what_is_changed_clears_the_answers(session, world, model, tmp_path):
    for change in (
        lambda: teach(session, "d", world[3][:1]),
        lambda: session.forget("d"),
        lambda: session.use_head("centroid"),
        lambda: say(session, "this is a owl", [world[4][0]]),
        lambda: session.teach_folder({"z/x/1.png": world[5][0], "z/y/1.png": world[6][0]}),
    ):
        if not shown(session):
            teach(session, "a", world[0][:2])
            teach(session, "b", world[1][:2])
        ask(session, world[0][5])
        say(session, "what is this?", [world[0][6]])
        assert len(session.answers) == 1
        change()
        assert session.answers == []
        assert len(session.asked) == 1
    assert session.dialogue.learner.head == "centroid"
    session.restart()
    assert (session.asked, session.dialogue.learner.head) == ((), "centroid")


def test_an_own_question_and_an_empty_one(session, world, monkeypatch):
    with pytest.raises(InputError, match="drop a picture"):
        session.ask([], "what colour is it?")
    teach(session, "a", world[0][:2])
    teach(session, "b", world[1][:2])
    page = ask(session, world[0][5], question="what is the capital of France?")
    assert "I do not know these words" in page
    assert "lc-correct" not in page  # nothing to correct
    monkeypatch.setattr(session.dialogue.learner, "say", lambda *_: "orange")
    page = ask(session, question="What colour is it?")
    assert "“<bdi>orange</bdi>”" in page
    assert '<h3 class="lc-heading">What colour is it?</h3>' in page
    assert "lc-bars" in ask(session, question="  ")
    assert session.dialogue.history == []  # what is asked here is not part of the chat


def test_pictures_are_taken_back_before_they_are_taught(session, world):
    session.choose(world[0][:3])
    session.choose(world[0][2:4])
    assert len(session.chosen) == 4
    session.unchoose(1)
    assert html.chosen_pictures(session).count("<li>") == 3
    for name, pictures in (("", session.chosen), ("a", ())):
        session.chosen = pictures
        with pytest.raises(InputError, match="Give both"):
            session.teach(name)
    session.choose(world[0][:1])
    session.teach("小猫")
    assert shown(session) == {"小猫": 1}
    assert session.chosen == ()


def test_what_phones_and_screens_make_is_taught(session, tmp_path):
    """A HEIC photograph that lies on its side, and a screenshot with a transparent part; without names that say so."""
    pillow_heif = pytest.importorskip("pillow_heif")
    photo, screenshot = tmp_path / "IMG_0001", tmp_path / "Screenshot 2026-11-29 at 10.00.00.PNG"
    pillow_heif.from_pillow(Image.new("RGB", (64, 32), "red")).save(photo, format="HEIF")
    Image.new("RGBA", (300, 500), (0, 0, 255, 100)).save(screenshot)
    teach(session, "red", [photo])
    teach(session, "blue", [screenshot])
    assert html.concept_cards(session).count("<img") == 2
    assert "This picture was taught" in ask(session, photo)


def test_many_names_are_shown_with_few_pictures_each(session, world):
    session.dialogue.teach_all({f"thing {place}": pictures[:5] for place, pictures in enumerate(world[:40])})
    page = html.concept_cards(session)
    assert page.count("<figure>") == 40
    assert page.count("<img") == 40 * 3
    assert page.count("and 2 more") == 40


def test_what_is_said_is_shown_before_its_reply(session, world):
    session.hear("hello", [])
    assert "…" in html.chat_lines(session)
    session.reply()
    session.reply()  # has one already
    assert [line.who for line in session.lines] == ["you", "model"]
    teach(session, "a", world[0][:2])
    teach(session, "b", world[1][:2])
    session.hear("", world[0][5:6])
    assert "each of the 4 taught pictures is left out once" in html.chat_lines(session)


def test_commands_of_the_chat(session, world):
    say(session, "/teach red fox", world[0][:1])
    say(session, '/teach "red foxes"', world[1][:1])
    say(session, "/forget red fox", [])
    say(session, "/save a.pack", [])
    assert list(shown(session)) == ["red foxes"]
    assert [line.who for line in session.lines[-3:]] == ["model", "you", "sorry"]
    assert "red fox and red foxes are two names." in session.lines[3].notes[0]


def test_only_listed_runs_are_opened(tmp_path):
    root = tmp_path / "runs"
    for run in ("first", "demo/runs/deep", "a/b/c/too-deep"):
        for name in ("config.json", "predictions.jsonl", "report.html"):
            write_text(f"<p>{run}</p>", root / run / name)
    write_text("secret", tmp_path / "outside" / "report.html")
    (root / "link").symlink_to(tmp_path / "outside")
    write_text("", tmp_path / "outside" / "config.json")
    write_text("", tmp_path / "outside" / "predictions.jsonl")
    assert runs.run_names(root) == ["demo/runs/deep", "first"]
    assert "&lt;p&gt;first" in runs.report(root, "first")
    for name in ("../outside", "link", str(tmp_path / "outside"), "first/../first", ""):
        with pytest.raises(InputError):
            runs.report(root, name)
    with pytest.raises(InputError, match="two different runs"):
        runs.comparison(root, "first", "first")
    assert runs.run_names(tmp_path / "nowhere") == []


def test_a_damaged_run_is_named_without_where_it_lies(tmp_path):
    for name, content in (("a", b"{"), ("b", b"\xff")):
        (tmp_path / name).mkdir()
        for file in ("config.json", "predictions.jsonl", "report.html"):
            (tmp_path / name / file).write_bytes(content)
    for show in (lambda: runs.report(tmp_path, "b"), lambda: runs.comparison(tmp_path, "a", "b")):
        with pytest.raises(InputError, match=r"^[ab]/") as error:
            show()
        assert str(tmp_path) not in str(error.value)


def test_a_disk_that_takes_nothing_is_told_without_a_path(session, tmp_path):
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        archive.writestr("a/1.png", b"")
    session.close()  # its folder is gone
    with pytest.raises(InputError, match="could not be stored") as error:
        session.teach_archive(tmp_path / "zoo.zip")
    assert str(session.folder.parent) not in str(error.value)
