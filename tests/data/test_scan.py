import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from linkcontext.data import formats, images, scan
from linkcontext.data.problems import Problems
from linkcontext.errors import InputError


def good(root, strict=False):
    problems = Problems(strict)
    return scan.scan(root, problems), problems.sentences


def settle(root):
    """Make all files old: what is younger than two seconds is not remembered."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.fixture
def opened(monkeypatch):
    """The names of the pictures that were decoded, in order."""
    names = []
    real = images.summarize

    def spy(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(images, "summarize", spy)
    return names


def test_pictures_and_hashes_sorted_by_path(zoo):
    pictures, problems = good(zoo)
    assert list(pictures) == ["cat/a_1.png", "cat/b.jpg", "ice_bear/a_1.gif", "ice_bear/c.WEBP"]
    assert pictures["cat/b.jpg"].sha256 == images.sha256(zoo / "cat" / "b.jpg")
    assert pictures["cat/b.jpg"].pixels == images.hash_pixels(zoo / "cat" / "b.jpg")
    assert problems == []


def test_a_second_scan_gives_the_same_and_decodes_nothing(zoo, opened):
    (zoo / "cat" / "text.png").write_text("not a picture")
    settle(zoo)
    first = good(zoo)
    assert sorted(opened) == ["a_1.gif", "a_1.png", "b.jpg", "c.WEBP", "text.png"]
    opened.clear()
    assert good(zoo) == first
    assert opened == []
    assert "text.png: not a picture" in first[1][0]


def test_a_changed_picture_is_read_again_and_a_removed_one_forgotten(zoo, opened, picture, cache):
    settle(zoo)
    before, _ = good(zoo)
    picture(zoo / "cat" / "a_1.png", 77)
    (zoo / "cat" / "b.jpg").unlink()
    settle(zoo)
    os.utime(zoo / "cat" / "a_1.png", (1, 1))
    opened.clear()
    after, _ = good(zoo)
    assert opened == ["a_1.png"]
    assert after["cat/a_1.png"] != before["cat/a_1.png"]
    (index,) = (cache / "scans").iterdir()
    assert sorted(json.loads(index.read_text())["pictures"]) == [
        "cat/a_1.png",
        "ice_bear/a_1.gif",
        "ice_bear/c.WEBP",
    ]


def test_fresh_files_are_not_remembered(zoo, opened):
    """Written twice within one tick of the clock, a file has the same time and other bytes."""
    for path in zoo.glob("*/*"):
        os.utime(path, (time.time() + 60,) * 2)
    good(zoo)
    opened.clear()
    good(zoo)
    assert len(opened) == 4


def test_another_reader_decodes_again(zoo, opened, monkeypatch):
    settle(zoo)
    good(zoo)
    opened.clear()
    monkeypatch.setattr(images, "READER", "pillow of tomorrow")
    assert good(zoo)[1] == []
    assert len(opened) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pictures": {}}', '{"reader": 1', "\x00"])
def test_a_damaged_index_only_means_slow(zoo, cache, content):
    settle(zoo)
    pictures, _ = good(zoo)
    (index,) = (cache / "scans").iterdir()
    index.write_text(content)
    again, problems = good(zoo)
    assert again == pictures
    assert len(problems) == 1
    assert "was damaged" in problems[0]
    assert good(zoo) == (pictures, [])


def test_damaged_entries_of_an_index(zoo, cache):
    settle(zoo)
    pictures, _ = good(zoo)
    (index,) = (cache / "scans").iterdir()
    stored = json.loads(index.read_text())
    index.write_text(json.dumps(stored | {"pictures": {"cat/b.jpg": [1, 2]}}))
    again, problems = good(zoo)
    assert again == pictures
    assert "was damaged" in problems[0]


def test_a_read_only_cache_only_means_slow(zoo, monkeypatch, tmp_path):
    settle(zoo)
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "a_file" / "cache"))
    pictures, problems = good(zoo, strict=True)
    assert len(pictures) == 4
    assert any("cannot be written" in sentence for sentence in problems)


def test_bad_pictures_are_named_and_strict_raises_the_first(zoo):
    (zoo / "cat" / "a_0.png").write_bytes(b"")
    (zoo / "ice_bear" / "z.png").write_bytes((zoo / "cat" / "a_1.png").read_bytes()[:100])
    pictures, problems = good(zoo)
    assert len(pictures) == 4
    assert [sentence.split(": ")[0] for sentence in problems] == [
        str(zoo / "cat" / "a_0.png"),
        str(zoo / "ice_bear" / "z.png"),
    ]
    assert "0 bytes" in problems[0]
    assert "cut short" in problems[1]
    with pytest.raises(InputError, match=r"a_0\.png: the file is empty"):
        good(zoo, strict=True)


def test_what_is_left_out_is_named(zoo, picture):
    picture(zoo / ".cache" / "x.png")
    picture(zoo / "cat" / ".hidden.png")
    (zoo / "cat" / "._a.png").write_bytes(b"of a desktop")
    (zoo / "cat" / "Thumbs.db").touch()
    (zoo / "cat" / ".DS_Store").touch()
    (zoo / "cat" / "notes.txt").touch()
    (zoo / "manifest.jsonl").touch()
    (zoo / "cat" / "manifest.jsonl").touch()
    (zoo / "owl").mkdir()
    (zoo / "dog").mkdir()
    (zoo / "dog" / ".DS_Store").touch()
    pictures, problems = good(zoo, strict=True)
    assert len(pictures) == 4
    assert problems == [
        f"{zoo}: hidden files and folders, and folders of other programs, left out: 2 (.cache, cat/.hidden.png).",
        f"{zoo}: empty folders, which are no classes: 2 (dog, owl).",
        f"{zoo}: files left out because they are no pictures: 2 (cat/manifest.jsonl, cat/notes.txt).",
    ]


@pytest.mark.parametrize(
    "folder",
    ["@eaDir/1.png", "__MACOSX", ".thumbnails", ".AppleDouble", "#recycle", "$RECYCLE.BIN", "lost+found", "x.lrdata"],
)
def test_folders_of_other_programs_are_left_out_and_named(zoo, picture, folder):
    picture(zoo / "cat" / folder / "thumb.png", 9)
    pictures, problems = good(zoo, strict=True)
    assert len(pictures) == 4
    assert f"cat/{folder.split('/')[0]}" in problems[0]


def test_pictures_are_known_by_content_and_not_by_name(zoo):
    image = Image.new("RGB", (8, 8), "red")
    image.putpixel((0, 0), (0, 0, 0))
    for name, kind in (("a.bmp", "BMP"), ("b.tiff", "TIFF"), ("c.jfif", "JPEG"), ("d", "PNG"), ("e.txt", "GIF")):
        image.save(zoo / "cat" / name, kind)
    (zoo / "cat" / "f.txt").write_text("BMW is a maker of cars")
    pictures, problems = good(zoo)
    assert [path for path in pictures if path not in ("cat/a_1.png", "cat/b.jpg")][:5] == [
        *("cat/a.bmp", "cat/b.tiff", "cat/c.jfif", "cat/d", "cat/e.txt"),
    ]
    assert problems == [f"{zoo}: files left out because they are no pictures: 1 (cat/f.txt)."]


def test_formats_that_are_not_read_are_named_once_each(zoo, monkeypatch):
    monkeypatch.setattr(formats, "HAS_HEIC", False)
    for number in range(7):
        (zoo / "cat" / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (zoo / "cat" / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    pictures, problems = good(zoo)
    assert len(pictures) == 4
    assert len(problems) == 2
    assert "files left out: 7 (cat/0.heic" in problems[0]
    assert "HEIC" in problems[0]
    assert "linkcontext[heic]" in problems[0]
    assert "cat/film.mp4: has the format video" in problems[1]
    with pytest.raises(InputError, match="HEIC"):
        good(zoo, strict=True)


def test_pictures_in_which_little_can_be_seen_are_named(zoo):
    for name, box in (("one", (5, 5, 30, 30)), ("other", (20, 20, 60, 60))):
        logo = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
        ImageDraw.Draw(logo).ellipse(box, fill=(255, 255, 255, 255))
        logo.save(zoo / "cat" / f"{name}.png")
    night = Image.new("RGB", (8, 8))
    night.putpixel((0, 0), (20, 20, 20))
    night.save(zoo / "cat" / "night.png")
    image = Image.new("RGB", (8, 8), "red")
    image.save(zoo / "cat" / "pages.gif", save_all=True, append_images=[night])
    pictures, problems = good(zoo, strict=True)
    assert len(pictures) == 8
    assert [problem.removeprefix(f"{zoo}: ") for problem in problems] == [
        "pictures with several frames or pages, of which the first is used: 1 (cat/pages.gif).",
        "pictures that are nearly black: 1 (cat/night.png).",
        "pictures of one colour, in which nothing can be seen: 3 (cat/one.png, cat/other.png, cat/pages.gif).",
    ]
    settle(zoo)
    assert good(zoo)[1] == good(zoo)[1] == problems  # what is kept in the cache says the same


def test_links_never_lead_out(zoo, tmp_path, picture):
    outside = picture(tmp_path / "outside" / "secret.png", 9)
    (zoo / "cat" / "out.png").symlink_to(outside)
    (zoo / "dog").symlink_to(outside.parent)
    (zoo / "cat" / "up.png").symlink_to("../../outside/secret.png")
    (zoo / "cat" / "loop.png").symlink_to("loop.png")
    (zoo / "cat" / "gone.png").symlink_to("nothing.png")
    (zoo / "cat" / "bears").symlink_to("../ice_bear")
    (zoo / "cat" / "same.png").symlink_to("a_1.png")
    pictures, problems = good(zoo)
    assert sorted(set(pictures)) == [
        "cat/a_1.png",
        "cat/b.jpg",
        "cat/same.png",
        "ice_bear/a_1.gif",
        "ice_bear/c.WEBP",
    ]
    assert pictures["cat/same.png"].sha256 == pictures["cat/a_1.png"].sha256
    reasons = {sentence.split(": ")[0].rsplit("/", 1)[1]: sentence.split(": ")[1] for sentence in problems}
    out = "the link leads out of the folder, so it was not followed. Put a copy there instead."
    assert reasons["out.png"] == reasons["dog"] == reasons["up.png"] == out
    assert reasons["gone.png"].startswith("the link leads nowhere")
    assert reasons["loop.png"].startswith("the link leads nowhere")
    assert reasons["bears"].startswith("the link leads to a folder")
    with pytest.raises(InputError, match="leads out of the folder"):
        good(zoo, strict=True)


def test_a_root_that_is_itself_a_link(zoo, tmp_path):
    (tmp_path / "link").symlink_to(zoo)
    assert good(tmp_path / "link") == good(zoo)


def test_what_is_no_file_and_names_that_are_no_text(zoo):
    os.mkfifo(zoo / "cat" / "pipe.png")
    with open(os.fsencode(zoo / "cat") + b"/\xff.png", "wb"):  # noqa: PTH123 - a name that no str holds
        pass
    os.mkdir(os.fsencode(zoo) + b"/caf\xe9")  # noqa: PTH102
    (zoo / "cat" / "a_1.png").rename(os.fsdecode(os.fsencode(zoo) + b"/caf\xe9/1.png"))
    pictures, problems = good(zoo)
    assert len(pictures) == 3
    assert "Rename the file" in problems[1]
    assert r"caf\xe9" in problems[0]
    assert "Rename the folder" in problems[0]
    assert "pipe.png: not a file" in problems[2]


def deny(monkeypatch, denied):
    """Reading that folder is not permitted."""
    real = os.scandir

    def scandir(path):
        if str(path).rstrip("/") == str(denied):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_without_permission_is_named(zoo, monkeypatch):
    deny(monkeypatch, zoo / "cat")
    pictures, problems = good(zoo)
    assert list(pictures) == ["ice_bear/a_1.gif", "ice_bear/c.WEBP"]
    assert problems == [f"{zoo}/cat: the folder cannot be read (Permission denied). Check its permissions."]
    with pytest.raises(InputError, match="the folder cannot be read"):
        good(zoo, strict=True)


def test_a_root_without_permission_is_refused(zoo, monkeypatch):
    deny(monkeypatch, zoo)
    with pytest.raises(InputError, match=r"the folder cannot be read \(Permission denied\)"):
        good(zoo)


def test_a_file_without_permission_is_named_and_asked_again(zoo, monkeypatch):
    settle(zoo)
    real = Path.open

    def open_all_but_one(path, *args, **options):
        if path.name == "b.jpg":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    with monkeypatch.context() as denied:
        denied.setattr(Path, "open", open_all_but_one)
        pictures, problems = good(zoo)
    assert len(pictures) == 3
    assert problems == [f"{zoo}/cat/b.jpg: cannot be read (Permission denied). Check the path and its permissions."]
    assert len(good(zoo)[0]) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_really_without_permission(zoo):
    (zoo / "cat").chmod(0)
    (zoo / "ice_bear" / "a_1.gif").chmod(0)
    pictures, problems = good(zoo)
    (zoo / "cat").chmod(0o700)
    assert list(pictures) == ["ice_bear/c.WEBP"]
    assert len(problems) == 2
