"""What strangers send: the good is unpacked, the bad is a sentence and leaves nothing behind."""

import io
import stat
import struct
import zipfile
import zlib

import pytest
from PIL import Image

from linkcontext.data import uploads
from linkcontext.data.uploads import copy_files, pictures_by_folder, unpack
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
    found = pictures_by_folder(into)
    assert {name: [p.name for p in paths] for name, paths in found.pictures.items()} == {
        "plimbo": ["a.PNG"],
        "red fox": ["1.png"],
    }
    hidden, wrong, others, blank, doubt = found.problems
    assert "one colour" in blank
    assert "left out: 2 (__MACOSX, zoo/.hidden.png)" in hidden
    assert wrong.startswith("zoo/red_fox/2.png: not a picture by its content")
    assert others == "files left out because they are no pictures: 1 (zoo/plimbo/notes.txt)."
    assert "could be splits or classes: zoo/plimbo/train" in doubt


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/a/b.png", "a\\..\\b.png", "C:/a.png", "a/./b.png", "a//b.png"]
)
def test_paths_that_lead_out_are_refused(tmp_path, into, name):
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(archive(tmp_path, {"fine/1.png": picture(), name: picture()}), into)
    with pytest.raises(InputError, match="leads out of the folder"):
        copy_files({"fine/1.png": tmp_path, name: tmp_path}, into)
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
    monkeypatch.setattr(uploads, "UNPACKED_BYTES", 9_000_000)
    with pytest.raises(InputError, match="unpacks to 10 MB"):
        unpack(archive(tmp_path, {"a/1.png": bytes(10_000_000)}), into)
    many = {f"a/{n}.png": b"" for n in range(10_000)}
    with pytest.raises(InputError, match="10,000 files are more than the 1,000"):
        unpack(archive(tmp_path, many), into)
    with pytest.raises(InputError, match="10,000 files are more than the 1,000"):
        copy_files(dict.fromkeys(many, tmp_path), into)
    with pytest.raises(InputError, match="1,001 folders are more than the 1,000"):
        unpack(archive(tmp_path, {f"a{n}/": b"" for n in range(1_001)}), into)
    assert not list(into.iterdir())


def test_an_empty_folder_of_an_archive_is_named(tmp_path, into):
    unpack(archive(tmp_path, {"cat/1.png": picture(), "owl/": b"", "__MACOSX/": b""}), into)
    named = pictures_by_folder(into)
    assert list(named.pictures) == ["cat"]
    assert "empty folders, which are no classes: 1 (owl)." in named.problems


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
    with pytest.raises(InputError, match="no picture was found in a folder") as error:
        pictures_by_folder(into)
    assert "lie in no folder" in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_two_folders_of_one_name_are_refused(tmp_path, into):
    unpack(archive(tmp_path, {"big/Cat/1.png": picture(), "small/cat/1.png": picture(1)}), into)
    with pytest.raises(InputError, match="two folders have the same name"):
        pictures_by_folder(into)


def test_a_folder_that_was_sent_is_laid_out_as_it_was(tmp_path, into):
    sent = tmp_path / "x"
    sent.write_bytes(picture())
    other = tmp_path / "y"
    other.write_bytes(picture(1))
    copy_files({"zoo/a/1.png": sent, "zoo/b/1.png": other, "zoo/b/Thumbs.db": sent}, into)
    assert list(pictures_by_folder(into).pictures) == ["a", "b"]
    assert not list(into.rglob("Thumbs.db"))


def test_pictures_are_known_by_content_and_the_rest_is_named(tmp_path, into):
    shades = [Image.new("RGB", (8, 8), (10 * i, 99, 40)) for i in range(4)]
    for i, shade in enumerate(shades):
        shade.putpixel((i, i), (255, 255, 255))

    def encoded(i, kind):
        file = io.BytesIO()
        shades[i].save(file, kind)
        return file.getvalue()

    members = {"cat/0.bmp": encoded(0, "BMP"), "cat/1.jfif": encoded(1, "JPEG"), "dog/2": encoded(2, "PNG")}
    members |= {"dog/3.tiff": encoded(3, "TIFF"), "dog/x.heic": b"\0\0\0\x18ftyphevx", "dog/y.dat": b"?"}
    unpack(archive(tmp_path, members), into)
    found = pictures_by_folder(into)
    assert {name: [path.name for path in paths] for name, paths in found.pictures.items()} == {
        "cat": ["0.bmp", "1.jfif"],
        "dog": ["2", "3.tiff"],
    }
    assert "dog/x.heic" in found.problems[0]
    assert "dog/y.dat" in found.problems[1]


def renamed(tmp_path, members, old, new):
    """An archive whose names are in an encoding that it does not state: Python itself would mark UTF-8."""
    path = archive(tmp_path, members)
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("gbk", "小狗"), ("gbk", "小猫"), ("gbk", "小学"), ("shift-jis", "子猫"), ("euc-kr", "고양"), ("cp850", "cafè")],
)
def test_folders_whose_names_cannot_be_told_are_refused(tmp_path, into, encoding, name):
    """Two bytes of Chinese can be Cyrillic letters of UTF-8 by accident."""
    name = name.encode(encoding)
    path = renamed(tmp_path, {"0000/1.png": picture()}, b"0000/", name + b"/")
    with pytest.raises(InputError, match=r"in an encoding that it does not state.*UTF-8"):
        unpack(path, into)
    assert not list(into.iterdir())


def test_names_in_utf_8_without_a_mark_and_names_of_files_alone(tmp_path, into):
    path = renamed(
        tmp_path, {"000000/1.png": picture(), "dog/0000.png": picture(1)}, b"000000/", "小猫".encode() + b"/"
    )
    path.write_bytes(path.read_bytes().replace(b"dog/0000", b"dog/" + "小猫".encode("gbk")))
    unpack(path, into)
    found = pictures_by_folder(into)
    assert set(found.pictures) == {"小猫", "dog"}


@pytest.mark.parametrize("name", ["caf\u00e9", "cafe\u0301", "Кошка", "小猫", "Ñandú", "1\u00ba a\u00f1o"])
def test_utf_8_without_a_mark_is_read(name):
    assert uploads._is_utf8(name.encode())


def test_backslashes_of_windows_part_folders(tmp_path, into):
    path = archive(tmp_path, {"cat/1.png": picture(), "dog/2.png": picture(1)})
    path.write_bytes(path.read_bytes().replace(b"cat/1", b"cat\\1").replace(b"dog/2", b"dog\\2"))
    unpack(path, into)
    assert set(pictures_by_folder(into).pictures) == {"cat", "dog"}


def test_letters_with_accents_are_one_name_and_blank_names_are_none(tmp_path, into):
    members = {"caf\u00e9/1.png": picture(), "cafe\u0301/2.png": picture(1), "_/3.png": picture(2)}
    unpack(archive(tmp_path, members), into)
    found = pictures_by_folder(into)
    assert {name: len(paths) for name, paths in found.pictures.items()} == {"caf\u00e9": 2}
    assert any("blank: 1 (_/3.png)" in problem for problem in found.problems)


def test_a_picture_under_two_names_is_refused_by_the_names_that_were_sent(tmp_path, into):
    file = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(file, "BMP")
    unpack(archive(tmp_path, {"cat/mia.png": picture(), "dog/rex.bmp": file.getvalue()}), into)
    with pytest.raises(
        InputError, match=r"cat/mia.png and dog/rex.bmp: the same picture has the names 'cat' and 'dog'"
    ):
        pictures_by_folder(into)


def test_a_file_that_is_twice_in_an_archive_is_refused_without_a_path_of_this_machine(tmp_path, into):
    path = archive(tmp_path, {"cat/1.png": picture(), "cat/2.png": picture(1)})
    path.write_bytes(path.read_bytes().replace(b"cat/2", b"cat/1"))
    with pytest.raises(InputError, match=r"cat/1.png: is twice in the archive") as error:
        unpack(path, into)
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(InputError, match="too long"):
        unpack(archive(tmp_path, {"cat/" + "é" * 150 + ".png": picture()}), into)


def test_spaces_and_joiners_of_any_kind_may_stand_in_names(tmp_path, into):
    shot, child = "Screenshot at 9.41\u202fAM.png", "\u06af\u0631\u0628\u0647\u200c\u0647\u0627"
    members = {f"two\u3000words/{shot}": picture(), f"{child}/\u200eIMG.png": picture(1)}
    unpack(archive(tmp_path, members), into)
    assert set(pictures_by_folder(into).pictures) == {"two words", child}
    with pytest.raises(InputError, match="cannot be read"):
        unpack(archive(tmp_path, {"cat\u202e/1.png": picture()}), into)


def test_the_name_in_the_unicode_field_is_read(tmp_path, into):
    raw = "\u5c0f\u732b".encode("gbk") + b"/1.png"
    path = tmp_path / "sent.zip"
    with zipfile.ZipFile(path, "w") as file:
        for crc in (zlib.crc32(raw), 0):  # the second one is of another name, and says nothing
            member = zipfile.ZipInfo(f"000{crc > 0:d}/1.png")
            field = b"\x01" + struct.pack("<I", crc) + "\u5c0f\u732b/1.png".encode()
            member.extra = struct.pack("<HH", 0x7075, len(field)) + field
            file.writestr(member, picture(crc % 7))
    path.write_bytes(path.read_bytes().replace(b"0001/1.png", raw))
    unpack(path, into)
    assert set(pictures_by_folder(into).pictures) == {"\u5c0f\u732b", "0000"}


def test_a_manifest_that_was_sent_is_named(tmp_path, into):
    unpack(archive(tmp_path, {"cat/1.png": picture(), "dog/2.png": picture(1), "manifest.jsonl": b"{}"}), into)
    assert "manifest.jsonl: not read here; names are those of the folders." in pictures_by_folder(into).problems
