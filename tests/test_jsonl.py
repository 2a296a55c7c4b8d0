import errno
import json
import os
import re
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkcontext import jsonl
from linkcontext.errors import InputError
from linkcontext.jsonl import appending, from_dict, read_jsonl, to_json, write_jsonl
from linkcontext.records import Candidate, Episode, Item, Prediction, Score, Turn
from linkcontext.storage import write_text

ITEM = Item("owl/1.png", "owl/1.png", "owl", "Owl", "ab12", facts={"colour": "red", "neighbours": ["cat"]})
EPISODE = Episode(
    id="e00000",
    task="link",
    names="pseudo",
    ways=2,
    shots_per_class=(0, 1),
    candidates=(Candidate("owl", "bapero", "Owl"), Candidate("cat", "tiplo", "Cat")),
    support=(Turn("owl/1.png", "owl", "bapero"), Turn("cat/1.png", "cat", "tiplo")),
    queries=(Turn("cat/2.png", "cat", "tiplo", "What is this?"), Turn("owl/2.png", "owl", "bapero")),
)
PREDICTION = Prediction(
    episode_id="e00000",
    query_id="e00000/q1",
    shots_per_class=1,
    candidates=(Score("owl", "bapero", -0.5, -1.25, 3), Score("cat", "tiplo", -2.0, -1.0, 2)),
    gold="owl",
    reply=None,
    correct={"likelihood_sum": True},
    prompt_sha256="00ff",
    support_ids=("owl/1.png", "cat/1.png"),
    baselines={"copy_first": "owl", "nearest_centroid": None},
)


def in_folder(folder):
    return sorted(path.name for path in folder.iterdir())


def test_json_by_hand():
    assert to_json(ITEM) == (
        '{"id":"owl/1.png","path":"owl/1.png","class":"owl","name":"Owl","sha256":"ab12","split":"",'
        '"group":"","facts":{"colour":"red","neighbours":["cat"]},"questions":[],"pixels":""}'
    )
    assert to_json(EPISODE.queries[0]) == (
        '{"item":"cat/2.png","class":"cat","answer":"tiplo","question":"What is this?","others":[]}'
    )
    assert to_json(Candidate("käuzchen", "é", "Ü")) == '{"class":"käuzchen","name":"é","truth":"Ü"}'


@pytest.mark.parametrize("record", [ITEM, EPISODE, PREDICTION], ids=["item", "episode", "prediction"])
def test_round_trip_through_a_file(record, tmp_path):
    path = tmp_path / "new" / "folder" / "records.jsonl"
    write_jsonl([record, record], path)
    assert list(read_jsonl(type(record), path)) == [record, record]
    assert path.read_bytes().count(b"\n") == 2


texts = st.text(max_size=8)
items = st.builds(Item, texts, texts, texts, texts, texts, texts, texts, st.dictionaries(texts, st.integers() | texts))


@settings(max_examples=40, deadline=None)
@given(st.lists(items, max_size=2))
def test_any_text_survives(records):
    lines = [to_json(record) for record in records]
    assert all("\n" not in line and "\r" not in line for line in lines)
    assert [from_dict(Item, json.loads(line), "here") for line in lines] == records


def test_fields_with_defaults_may_be_missing():
    short = '{"id":"a","path":"a","class":"owl","name":"Owl","sha256":"1"}'
    assert from_dict(Item, json.loads(short), "here") == Item("a", "a", "owl", "Owl", "1")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"item":"a"', ":2: not JSON (Expecting ',' delimiter). The file is damaged; write it again."),
        ("[1]", ":2: expected a JSON object, got list."),
        (
            '{"item":"a","colour":1,"class_id":"owl"}',
            ":2: not a line of Turns: missing answer, class; unknown class_id, colour. "
            "Was the file written by another version?",
        ),
        (
            '{"item":"a","class":"owl"}',
            ":2: not a line of Turns: missing answer. Was the file written by another version?",
        ),
    ],
)
def test_a_bad_line_is_named(line, complaint, tmp_path):
    path = tmp_path / "turns.jsonl"
    path.write_text('{"item":"a","class":"owl","answer":"x"}\n' + line + "\n")
    reader = read_jsonl(Turn, path)
    assert next(reader) == Turn("a", "owl", "x")
    with pytest.raises(InputError) as error:
        next(reader)
    assert str(error.value) == f"{path}{complaint}"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_are_read_however_they_end(ending, mark, tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BLOCK", 7)  # lines and line breaks are cut anywhere
    path, turns = tmp_path / "turns.jsonl", [Turn("a", "owl", "x"), Turn("b", "owl", "y")]
    path.write_bytes(mark + "".join(to_json(turn) + ending for turn in turns).encode())
    assert list(read_jsonl(Turn, path)) == turns
    path.write_bytes(mark + ending.join(to_json(turn) for turn in turns).encode())
    assert list(read_jsonl(Turn, path)) == turns
    path.write_bytes(mark + (3 * ending + " ").join(["", *map(to_json, turns), ""]).encode())
    assert list(read_jsonl(Turn, path)) == turns


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'"' + b"a" * 10_000_001, r":1: more than 10 MB in a line"),
        (b'\n{"a": "\xff"}', r":2: not UTF-8"),
        (b'{"id": "\xff"}', r":1: not UTF-8 \(invalid start byte\)"),
        (b"\x80\x04K\x01.", "a pickle, which is never read.*convert it"),
    ],
)
def test_what_is_no_text_is_named(content, complaint, tmp_path):
    (tmp_path / "records.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        list(read_jsonl(Item, tmp_path / "records.jsonl"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"shots_per_class":1', '"shots_per_class":"1"', "shots_per_class must be a whole number, and is '1'"),
        ('"shots_per_class":1', '"shots_per_class":true', "shots_per_class must be a whole number, and is True"),
        ('"shots_per_class":1', '"shots_per_class":1.0', "shots_per_class must be a whole number, and is 1.0"),
        ('"shots_per_class":1', f'"shots_per_class":{10**300}', "shots_per_class must be a whole number"),
        ('"shots_per_class":1', '"shots_per_class":1' + "0" * 5000, "a number is too long"),
        ('"logprob":-0.5', '"logprob":"x"', "logprob must be a finite number, and is 'x'"),
        ('"logprob":-0.5', '"logprob":NaN', "logprob must be a finite number, and is nan"),
        ('"logprob":-0.5', '"logprob":-1e999', "logprob must be a finite number, and is -inf"),
        ('"logprob":-0.5', f'"logprob":{10**400}', "logprob must be a finite number"),
        ('"null_logprob":-1.25', '"null_logprob":[]', "null_logprob must be a finite number"),
        ('"reply":null', '"reply":5', "reply must be a text, and is 5"),
        ('"baselines":{', '"baselines":null,"x":{', "unknown x"),
        ('"baselines":{"copy_first":"owl","nearest_centroid":null}', '"baselines":null', "baselines must be an object"),
        ('"copy_first":"owl"', '"copy_first":5', "baselines must be a text, and is 5"),
        ('"likelihood_sum":true', '"likelihood_sum":1', "correct must be true or false"),
        ('"gold":"owl"', '"gold":"\\ud800"', "half a surrogate pair"),
        ('"gold":"owl"', '"gold":' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(old, new, complaint, tmp_path):
    path = tmp_path / "predictions.jsonl"
    assert old in to_json(PREDICTION)
    path.write_text(to_json(PREDICTION) + "\n" + to_json(PREDICTION).replace(old, new) + "\n")
    with pytest.raises(InputError, match=rf"predictions\.jsonl:2: .*{complaint}"):
        list(read_jsonl(Prediction, path))


def test_whole_surrogate_pairs_and_whole_numbers_for_figures_are_read(tmp_path):
    path = tmp_path / "predictions.jsonl"
    line = to_json(PREDICTION).replace('"gold":"owl"', '"gold":"\\ud83e\\udd89"').replace("-0.5", "-1")
    path.write_text(line + "\n")
    (prediction,) = read_jsonl(Prediction, path)
    assert prediction.gold == "\N{OWL}"
    assert prediction.candidates[0].logprob == -1


def test_a_bad_record_inside_a_record_is_named(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_text(to_json(EPISODE).replace('"truth":"Cat"', '"thruth":"Cat"') + "\n")
    complaint = f"{path}:1: not a line of Candidates: missing truth; unknown thruth."
    with pytest.raises(InputError, match=f"^{re.escape(complaint)}"):
        list(read_jsonl(Episode, path))


def test_reading_streams_the_file(tmp_path):
    path = tmp_path / "turns.jsonl"
    path.write_text(to_json(Turn("a", "owl", "x")) + "\nnot JSON\n")
    assert next(read_jsonl(Turn, path)) == Turn("a", "owl", "x")  # the second line has not been looked at


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    write_text("a long first version\n", path)
    write_text("ä\n", path)
    assert path.read_bytes() == "ä\n".encode()
    assert in_folder(tmp_path) == ["a.txt"]


class FullDisk:
    """A file on which nothing fits."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, text):
        self.file.write(text[: len(text) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "episodes.jsonl"
    write_jsonl([EPISODE], path)
    before, opened = path.read_bytes(), Path.open
    monkeypatch.setattr(Path, "open", lambda *args, **options: FullDisk(opened(*args, **options)))
    with pytest.raises(InputError) as error:
        write_jsonl([EPISODE] * 9, path)
    monkeypatch.undo()
    assert str(error.value).startswith(f"{path}: could not be written (No space left on device). Free some space")
    assert path.read_bytes() == before
    assert in_folder(tmp_path) == ["episodes.jsonl"]


def test_a_disk_that_is_full_only_at_the_sync_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_text("text", tmp_path / "a.txt")
    assert in_folder(tmp_path) == []


def test_nothing_is_written_when_the_records_fail_on_the_way(tmp_path):
    def records():
        yield EPISODE
        raise InputError("the second episode cannot be made")

    with pytest.raises(InputError, match="the second episode"):
        write_jsonl(records(), tmp_path / "episodes.jsonl")
    assert in_folder(tmp_path) == []


def test_records_are_appended_behind_whole_lines_at_once(tmp_path):
    path = tmp_path / "run" / "answers.jsonl"
    with appending(path) as append:
        append([ITEM])
        assert list(read_jsonl(Item, path)) == [ITEM]  # it is there before the file is closed
    with path.open("ab") as file:
        file.write(to_json(ITEM).encode()[:-5])  # killed in the middle of a line
    with appending(path) as append:
        assert list(read_jsonl(Item, path)) == [ITEM]
        append([ITEM, ITEM])
    assert list(read_jsonl(Item, path)) == [ITEM] * 3


def test_two_cannot_append_to_one_folder(tmp_path):
    path, taken = tmp_path / "a.jsonl", pytest.raises(InputError, match="another process is writing into it")
    with appending(path), taken, appending(path):
        pass
    with appending(path) as append:
        append([ITEM])


def test_a_disk_that_is_full_while_appending_is_one_sentence(tmp_path):
    path, before = tmp_path / "a.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    full = pytest.raises(InputError, match=r"a\.jsonl: could not be written .*Free some space")
    try:
        with full, appending(path) as append:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # no file may be longer than ten bytes
            append([ITEM])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with appending(path) as append:
        append([ITEM])
    assert list(read_jsonl(Item, path)) == [ITEM]
