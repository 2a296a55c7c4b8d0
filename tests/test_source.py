"""The table of readers, and the data sets and file formats that another package adds by one file."""

import json

import pytest

from linkcontext import cli
from linkcontext.data.class_folders import open_folder
from linkcontext.data.reader import Reader
from linkcontext.errors import InputError
from linkcontext.plugins import find_part
from linkcontext.source import DATA_SETS, FILE_FORMATS, GROUP, READERS, data_help, import_files, layout_help, open_data


@pytest.fixture
def examples(documented):
    """A file format and a data set: all that a package writes, but for the line of its pyproject.toml."""
    return documented("A format")


def test_every_reader_of_the_table_is_there():
    for names, fields in ((DATA_SETS, {"open"}), (FILE_FORMATS, {"questions", "conversations"})):
        for name in names:
            reader = find_part(READERS, GROUP, name, Reader)
            assert {field for field in ("open", "questions", "conversations") if getattr(reader, field)} <= fields
    assert not DATA_SETS.keys() & FILE_FORMATS.keys()
    assert all(listed.help.startswith(name) for name, listed in DATA_SETS.items())


def test_the_help_has_every_name():
    assert all(f"{name}" in data_help() for name in DATA_SETS)
    assert [line.partition(":")[0] for line in layout_help().splitlines()] == [*FILE_FORMATS]


def test_a_data_set_is_one_file_of_another_package(installed, examples, pictures, tmp_path, capsys):
    installed("plug_sketches", examples[1], f"[{GROUP}]", "sketches = plug_sketches:SKETCHES")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sketches").symlink_to(pictures)
    assert open_data(f"sketches:{tmp_path / 'data'}").items == open_folder(pictures).items
    cli.main(["data", f"sketches:{tmp_path / 'data'}"])
    assert "48 pictures, 6 classes of 8 to 8" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match=r"no such folder, and sketch is not a data set\. Give .*digits, .*sketches"):
        open_data("sketch:x")


def test_a_file_format_is_one_file_of_another_package(installed, examples, picture, tmp_path, capsys):
    installed("plug_captions", examples[0], f"[{GROUP}]", "captions = plug_captions:CAPTIONS")
    for number in range(3):
        picture(tmp_path / f"{number}.png", number)
    records = [{"picture": f"{n}.png", "caption": f"right {n}", "wrong": [f"wrong {n}"]} for n in range(2)]
    records.append({"picture": "2.png", "caption": "one", "wrong": ["One"]})
    (tmp_path / "captions.json").write_text(json.dumps(records))
    command = ["data", str(tmp_path / "captions.json"), "--layout", "captions", "--out", str(tmp_path / "out")]
    cli.main(command)
    text = " ".join(capsys.readouterr().out.split())
    assert "2 questions about 2 pictures" in text
    assert "two options are the same" in text
    questions = [question for item in open_data(str(tmp_path / "out")).items for question in item.questions]
    assert [(q.answer, q.candidates) for q in questions] == [
        (f"right {n}", (f"right {n}", f"wrong {n}")) for n in range(2)
    ]
    with pytest.raises(InputError, match=r"captions is a file format\. First run `linkcontext data FILE --layout capt"):
        open_data("captions:x")


def test_an_unknown_layout_is_named_with_those_there_are(installed, examples):
    installed("plug_captions", examples[0], f"[{GROUP}]", "captions = plug_captions:CAPTIONS")
    with pytest.raises(InputError, match=r"--layout coco: not one of conversations, seed, .*truemicl, captions"):
        import_files("coco", "x", None, None)
    with pytest.raises(InputError, match="--layout digits: is a data set, not a file format"):
        import_files("digits", "x", None, None)


def test_a_broken_package_is_named(installed):
    installed("plug_broken", "X = print", f"[{GROUP}]", "broken = plug_broken:X")
    with pytest.raises(InputError, match=r"broken: the package plug_broken gives .*reader\.Reader is expected"):
        open_data("broken:x")


def test_a_folder_is_opened_by_its_path_or_as_folder(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("world", "a:b", "C"):
        (tmp_path / name).symlink_to(pictures)
        assert len(open_data(name).items) == len(open_data(f"folder:{name}").items) == 48
    for name in ("nowhere", "hf", "a:c"):
        with pytest.raises(InputError, match=f"{name}: no such folder"):
            open_data(name)


def test_arguments_of_drawn_data_are_checked():
    for spec, sentence in {
        "world:x": "whole number, world:taught or world:replay",
        "world:1234567890": "whole number",
        "scenes:": "scenes:SEED with a whole number",
        "digits:x": "Write --data digits",
    }.items():
        with pytest.raises(InputError, match=f"--data {spec}: .*{sentence}"):
            open_data(spec)
