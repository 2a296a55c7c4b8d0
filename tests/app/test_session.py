"""What the web page does and shows, without a browser."""

import zipfile

import pytest

from linkcontext.app import html, runs
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


def shown(session):
    return {name: len(items) for name, items in session.dialogue.learner.pictures.by_name.items()}


def test_names_and_what_is_said_are_shown_as_text(session, world):
    markup = "<script>alert(1)</script>"
    session.teach(markup, world[0][:2])
    session.teach("b & c", world[1][:2])
    session.say(markup, [world[0][5]])
    page = html.concept_cards(session) + html.chat_lines(session) + html.answer_card(session, *session.ask(world[0][3]))
    page += html.notice([markup], True) + html.report_frame(markup, f"<html>{markup}</html>")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "b &amp; c" in page
    assert 'sandbox title="' in page


def test_what_was_sent_is_kept_under_its_content_alone(session, world, tmp_path):
    odd = tmp_path / "..%2f..png"
    odd.write_bytes(world[0][0].read_bytes())
    session.teach("a", [odd])
    (kept,) = session.folder.iterdir()
    assert len(kept.stem) == 64
    assert kept.suffix == ".png"
    odd.write_text("no picture")
    with pytest.raises(InputError, match=r"^\.\.%2f\.\.png: not a picture"):
        session.teach("b", [world[1][0], odd])
    assert shown(session) == {"a": 1}
    session.close()
    assert not session.folder.exists()


def test_an_archive_is_taught_whole_or_not_at_all(session, world, tmp_path):
    archive = tmp_path / "zoo.zip"
    for second, sentence in ((("b", world[0][0]), "Name it once"), (("b" * 200, world[1][0]), "at most 100 letters")):
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
    assert text.startswith("cat/mia.png and dog/rex.png: is shown as 'cat' and as 'dog'")
    text = refused(lambda: session.teach_folder({"z/cat/mia.png": world[0][0], "z/dog/rex.png": world[0][0]}))
    assert "z/cat/mia.png and z/dog/rex.png" in text
    archive.write_text("no zip")
    refused(lambda: session.teach_archive(archive))
    refused(lambda: session.teach("a", [tmp_path / "gone.png"]))
    refused(lambda: session.open_pack(tmp_path / "gone.pack"))
    session.say("this is a cat", [world[0][0]])
    session.say("/help", [])
    assert session.lines[-1].who == "sorry"
    assert not [line for line in session.lines if here in line.text]


def test_a_pack_from_elsewhere_is_not_opened(session, world, tmp_path, monkeypatch):
    session.teach("a", world[0][:2])
    session.teach("b", world[1][:2])
    kept = session.save_pack()
    assert session.open_pack(kept) == ["a: 2 pictures.", "b: 2 pictures."]
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "another"))  # whose key is another
    with pytest.raises(InputError, match=r"^taught\.pack: was not written .* Teach its pictures here"):
        session.open_pack(kept)


def test_a_picture_that_was_taught_is_said_to_be_so(session, world):
    session.teach("a", world[0][:2])
    session.teach("b", world[1][:2])
    page = html.answer_card(session, *session.ask(world[0][0]))
    assert "This picture was taught" in page
    assert "This picture was taught" not in html.answer_card(session, *session.ask(world[0][5]))


def test_a_pack_is_opened_without_any_picture_s_file(session, world, tmp_path, model):
    session.teach("a", world[0][:2])
    with pytest.raises(InputError, match="at least two names"):
        session.save_pack()
    session.teach("b", world[1][:2])
    probabilities = session.ask(world[0][5])[1].answer.probabilities
    pack = tmp_path / "zoo.pack"
    pack.write_bytes(session.save_pack().read_bytes())
    session.close()
    other = Session(model, tmp_path)
    assert other.open_pack(pack) == ["a: 2 pictures.", "b: 2 pictures."]
    assert other.ask(world[0][5])[1].answer.probabilities == pytest.approx(probabilities, abs=1e-4)
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"^zoo\.pack: not a pack, or damaged"):
        other.open_pack(pack)
    assert shown(other) == {"a": 2, "b": 2}


def test_an_example_has_pictures_that_were_not_shown(session):
    session.teach_example("digits", 1)
    assert list(shown(session).values()) == [4, 4, 4]
    assert len(session.unseen) == 6
    taught = {item for items in session.dialogue.learner.pictures.by_name.values() for item in items}
    assert not taught & {session.dialogue.learner.query(path).item for path in session.unseen}
    _, reply = session.ask_unseen(0)
    assert set(reply.answer.probabilities) == set(shown(session))


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
