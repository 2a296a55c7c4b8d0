import json

import pytest

from linkcontext.data.readers import json_records
from linkcontext.data.readers.json_records import first_key, read_key, read_records
from linkcontext.errors import InputError


@pytest.fixture
def file(tmp_path):
    def write(content, name="x.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_list_and_json_lines_are_the_same_records_and_know_their_lines(file):
    path = file('\ufeff [\n{"a": 1},\n\n {"a": "ä,]"}, [3]]\n')
    assert list(read_records(path)) == [
        (f"{path}:2: record 0", {"a": 1}),
        (f"{path}:4: record 1", {"a": "ä,]"}),
        (f"{path}:4: record 2", [3]),
    ]
    path = file('{"a": 1}\n\n{"b":\n2}\n')
    assert list(read_records(path)) == [(f"{path}:1: record 0", {"a": 1}), (f"{path}:3: record 1", {"b": 2})]
    assert list(read_records(file("[]"))) == list(read_records(file(""))) == []


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_where_the_window_ends_changes_nothing(file, monkeypatch, block):
    monkeypatch.setattr(json_records, "BLOCK", block)
    told = [{"id": n, "text": 'ü€😀\\"\n' * n, "list": [True, None, -1.5e3, "x" * 3 * n]} for n in range(9)]
    for content in (json.dumps(told, indent=1), "\n".join(map(json.dumps, told)), json.dumps(told, ensure_ascii=False)):
        assert [record for _, record in read_records(file(content))] == told
    assert [value for _, value in read_records(file("[12345, 678, true]"))] == [12345, 678, True]
    whole = {"info": [1, {"questions": 3}], "questions": told, "type": {"x": 1}}
    assert [record for _, record in read_records(file(json.dumps(whole)), "questions")] == told


def test_a_list_inside_an_object_and_what_stands_beside_it(file):
    path = file('{"annotations": [1, 2],\n"questions": [\n{"q": 1}], "type": {"x": 1}}')
    assert list(read_records(path, "questions")) == [(f"{path}:3: record 0", {"q": 1})]
    assert list(read_records(path, "nothing")) == []
    assert read_key(path, "type") == {"x": 1}
    assert read_key(path, "nothing") is None
    assert first_key(path, ("questions", "type")) == "questions"
    assert first_key(file('[{"id": {"messages": 1}, "conversations": []}]'), ("messages", "conversations")) == (
        "conversations"
    )
    assert first_key(file("[]"), ("messages",)) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'[{"a": 1},\n{"b": "\xff"}]', r":2: not UTF-8 .*Save the file as UTF-8"),
        ('[{"a": "ä"}]'.encode("utf-16"), ":1: not UTF-8"),
        ('[{"a": 1},\n{"b":', ":2: not JSON .*Is the download complete"),
        ('[{"a": 1},\n\n{"b": nothing, "c": 1}]', ":3: not JSON"),
        ('[{"a": 1} {"b": 1}]', r":1: not JSON \(\] expected\)"),
        ('[{"a": 1}] more', "there is more after the end"),
        ("[" * 100_000, "nested too deeply"),
        (f"[{'9' * 5000}]", "not JSON .*digits"),
        (r'["\ud83d"]', "one half of a character"),
        (b"\x80\x04\x95", "a pickle, which is never read: unpickling runs whatever code .* for JSON"),
        (b"PK\x03\x04", "compressed. Unpack it"),
    ],
)
def test_damaged_files_are_named_with_the_line(file, content, sentence):
    path = file(content)
    with pytest.raises(InputError, match=sentence) as error:
        list(read_records(path))
    assert str(path) in str(error.value)


def test_pickles_are_told_by_name_too_and_missing_files_are_named(file, tmp_path):
    with pytest.raises(InputError, match="unpickling runs"):
        list(read_records(file("(lp0\n.", "x.pkl")))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_records(tmp_path / "gone.json"))


@pytest.mark.parametrize("around", ['["{}"]', '{{"a": "{}"}}', '\n{{"questions": [{{"a": "{}"}}]}}'])
def test_a_record_without_an_end_is_refused_before_it_is_in_memory(file, monkeypatch, around):
    monkeypatch.setattr(json_records, "LIMIT", 20_000)
    monkeypatch.setattr(json_records, "BLOCK", 1_000)
    path, read = file(around.format("x" * 500_000)), []
    more = json_records._Window._more
    monkeypatch.setattr(json_records._Window, "_more", lambda self: (read.append(len(self.text)), more(self))[1])
    with pytest.raises(InputError, match=r":\d: a record of more than 0 MB"):
        list(read_records(path, "questions" if "questions" in around else ""))
    assert max(read) < 50_000
    assert len(list(read_records(file(around.format("x" * 9_000)), "questions" if "questions" in around else ""))) == 1


def test_ten_megabytes_in_one_line_are_refused(file):
    path = file(json.dumps({"id": 1}) + "\n" + json.dumps({"id": 2, "image": "A" * 10_000_001}))
    with pytest.raises(InputError, match=r":2: a record of more than 10 MB. Pictures are named by their paths"):
        list(read_records(path))


def test_a_list_or_a_folder_in_the_place_of_an_object_is_told(file, tmp_path):
    with pytest.raises(InputError, match="the file holds a list, but an object was expected"):
        read_key(file("[1]"), "questions")
    with pytest.raises(InputError, match="it is a folder"):
        next(read_records(tmp_path))
