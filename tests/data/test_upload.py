"""What strangers send: the good is unpacked, the bad is a sentence and leaves nothing behind."""

import io
import stat
import zipfile

import pytest
from PIL import Image

from linkcontext.data import upload
from linkcontext.data.upload import by_folder, lay_out, unpack
from linkcontext.errors import InputError


def picture(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def archive(tmp_path, members):
    path = tmp_path / "sent.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_pictures_are_called_as_their_folders(tmp_path, into):
    members = {
        "zoo/red_fox/1.png": picture(1),
        "zoo/red_fox/2.png": b"no picture",
        "zoo/plimbo/train/a.PNG": picture(2),
        "zoo/plimbo/notes.txt": b"x",
        "__MACOSX/zoo/plimbo/1.png": b"x",
        "zoo/.hidden.png": b"x",
    }
    unpack(archive(tmp_path, members), into)
    found = by_folder(into)
    assert {name: [p.name for p in paths] for name, paths in found.pictures.items()} == {
        "plimbo": ["a.PNG"],
        "red fox": ["1.png"],
    }
    assert found.problems == (
        "zoo/red_fox/2.png: not a picture, whatever its name says (PNG, JPEG, WebP, GIF, BMP and TIFF are read). "
        "Replace or remove it.",
    )


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/a/b.png", "a\\..\\b.png", "C:/a.png", "a/./b.png", "a//b.png"]
)
def test_paths_that_lead_out_are_refused(tmp_path, into, name):
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(archive(tmp_path, {"fine/1.png": picture(), name: picture()}), into)
    with pytest.raises(InputError, match="leads out of the folder"):
        lay_out({"fine/1.png": tmp_path, name: tmp_path}, into)
    assert not list(into.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["into", "sent.zip"]


def test_links_are_refused(tmp_path, into):
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match="a link"):
        unpack(archive(tmp_path, {"a/0.png": picture(), link: "/etc/passwd"}), into)
    assert not list(into.iterdir())


def test_bombs_and_heaps_are_refused_before_anything_is_written(tmp_path, into, monkeypatch):
    with pytest.raises(InputError, match="times its size"):
        unpack(archive(tmp_path, {"a/1.png": bytes(10_000_000)}), into)
    monkeypatch.setattr(upload, "UNPACKED_BYTES", 9_000_000)
    with pytest.raises(InputError, match="unpacks to 10 MB"):
        unpack(archive(tmp_path, {"a/1.png": bytes(10_000_000)}), into)
    many = {f"a/{n}.png": b"" for n in range(10_000)}
    with pytest.raises(InputError, match="10,000 files are more than the 1,000"):
        unpack(archive(tmp_path, many), into)
    with pytest.raises(InputError, match="10,000 files are more than the 1,000"):
        lay_out(dict.fromkeys(many, tmp_path), into)
    assert not list(into.iterdir())


def test_an_archive_that_lies_about_sizes_writes_no_more_than_it_says(tmp_path, into):
    path = archive(tmp_path, {"a/1.png": bytes(3_000_000)})
    sizes = (3_000_000).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(sizes) == 2
    path.write_bytes(content.replace(sizes, (50).to_bytes(4, "little")))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(path, into)
    assert sum(p.stat().st_size for p in into.rglob("*.png")) <= 50


def test_what_is_no_zip_or_has_nothing_in_it_is_a_sentence(tmp_path, into):
    path = tmp_path / "sent.zip"
    path.write_bytes(b"Rar!")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(path, into)
    unpack(archive(tmp_path, {"1.png": picture(), "a/b.txt": b""}), into)
    with pytest.raises(InputError, match="no picture in a folder was found") as error:
        by_folder(into)
    assert "lie in no folder" in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_two_folders_of_one_name_are_refused(tmp_path, into):
    unpack(archive(tmp_path, {"big/Cat/1.png": picture(), "small/cat/1.png": picture(1)}), into)
    with pytest.raises(InputError, match="two folders of one name"):
        by_folder(into)


def test_a_folder_that_was_sent_is_laid_out_as_it_was(tmp_path, into):
    sent = tmp_path / "x"
    sent.write_bytes(picture())
    lay_out({"zoo/a/1.png": sent, "zoo/b/1.png": sent, "zoo/readme.txt": sent}, into)
    assert list(by_folder(into).pictures) == ["a", "b"]
    assert not list(into.rglob("readme.txt"))
