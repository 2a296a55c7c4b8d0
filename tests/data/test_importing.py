import json

import pytest
from PIL import Image

from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import MANIFEST
from linkcontext.data.problems import Problems
from linkcontext.data.readers.conversations import read_conversations
from linkcontext.errors import InputError
from linkcontext.source import import_files


def seed(number, picture, answer="A"):
    choices = {f"choice_{letter}": word for letter, word in zip("abcd", ("One", "Two", "Three", "Four"), strict=True)}
    told = {"question_id": number, "question_type_id": 5, "data_id": picture, "question": "How many?", "answer": answer}
    return {**told, "data_type": "image", **choices}


@pytest.fixture
def seeds(tmp_path, picture):
    """SEED-Bench with five questions about three pictures, of which one is damaged, and one about none."""
    place = tmp_path / "SEED-Bench-image"
    picture(place / "1.png", 1).rename(place / "1_2")  # as published: without a suffix
    picture(place / "b.jpg", 2)
    (place / "c.png").write_bytes(b"")
    questions = [
        seed(1, "1_2"),
        seed(2, "b.jpg"),
        {**seed(3, "1_2", "B"), "question": "How many dogs?"},
        seed(4, "c.png"),
        seed(5, "gone"),
        seed(6, "b.jpg"),
    ]
    path = tmp_path / "SEED-Bench.json"
    path.write_text(json.dumps({"questions": questions, "question_type": {"Instances Counting": 5}}))
    return path


def test_pictures_with_questions_become_a_folder_that_is_read(seeds, tmp_path):
    out = tmp_path / "out"
    result = import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), str(out))
    assert result.contents == (
        "3 questions about 2 pictures",
        "Instances Counting: 3 questions, concepts: 1",
    )
    lost, twice, empty = result.problems
    assert "1 times (gone, ...). Unpack the pictures, or say where they are with --images" in lost
    assert "more than once, kept once: 1" in twice
    assert "c.png: the file is empty" in empty
    dataset = open_folder(out, strict=True)
    assert [(item.path, len(item.questions)) for item in dataset.items] == [("1_2.png", 2), ("b.jpg", 1)]
    first = dataset.items[0]
    assert [question.answer for question in first.questions] == ["One", "Two"]
    assert first.questions[0].candidates == ("One", "Two", "Three", "Four")
    assert (out / "1_2.png").samefile(tmp_path / "SEED-Bench-image" / "1_2")


def test_where_no_picture_can_be_opened_nothing_is_written(seeds, tmp_path):
    for name in ("1_2", "b.jpg"):
        (tmp_path / "SEED-Bench-image" / name).write_bytes(b"no picture")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"holds no picture that can be used\. Left out: "):
        import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), str(tmp_path / "out"))
    assert sorted(tmp_path.iterdir()) == before


def test_a_task_of_vl_icl_is_imported_from_its_own_folder(tmp_path, picture, monkeypatch):
    folder = tmp_path / "clevr"
    picture(folder / "a.png", 1)
    record = {"id": 1, "question": "How many?", "image": ["a.png"], "answer": 3}
    for name in ("query", "support"):
        (folder / f"{name}.json").write_text(json.dumps([record] if name == "query" else []))
    monkeypatch.chdir(folder)
    assert import_files("vl-icl", ".", None, str(tmp_path / "out")).contents[0] == "1 question about 1 picture"
    assert open_folder(tmp_path / "out", strict=True).items[0].questions[0].task == "clevr"


def test_without_links_pictures_are_copied(seeds, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "b.jpg").read_bytes() == (tmp_path / "SEED-Bench-image" / "b.jpg").read_bytes()


def test_strict_stops_at_the_first_problem_and_writes_nothing(seeds, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=r"record 4 \(question_id 5\): its picture gone is not below .* Give its folder with --images"
    ):
        import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), str(tmp_path / "out"), strict=True)
    questions = json.loads(seeds.read_text())
    questions["questions"] = questions["questions"][:4]
    seeds.write_text(json.dumps(questions))
    with pytest.raises(InputError, match=r"c\.png: the file is empty"):
        import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), str(tmp_path / "out"), strict=True)
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_imported(seeds, tmp_path):
    with pytest.raises(InputError, match="the folder is not empty"):
        import_files("seed", str(seeds), None, str(tmp_path))
    with pytest.raises(InputError, match=r"holds no question that can be used\. Left out: .*gone"):
        import_files("seed", str(seeds), str(tmp_path / "nowhere"), None)
    with pytest.raises(InputError, match="hub needs --layout conversations, and --out"):
        import_files("seed", "hf:x", None, None)
    rows = [["/etc/x.png", {"POS": ["a"], "NEG": ["b"]}], ["../x.png", {"POS": ["a"], "NEG": ["b"]}]]
    path = tmp_path / "Attribute" / "color.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"record 0: a picture needs a path inside the folder, without \.\."):
        import_files("vl-checklist", str(path), None, None)


@pytest.fixture
def pairs(tmp_path, picture):
    """VL-ICL's matching of two pictures: three queries and eight pairs of a support, of both answers. One picture is in
    both, another is damaged."""
    folder = tmp_path / "matching_mi"
    for n in range(12):
        picture(folder / f"{n}.png", n)
    (folder / "bad.png").write_bytes(b"no picture")

    def told(a, b, answer):
        return {"image": [f"{a}.png", f"{b}.png"], "question": "Same?", "answer": answer}

    query = [{"id": n, **told(n, 11, "yes" if n else "no")} for n in range(3)] + [{"id": 9, **told("bad", 3, "yes")}]
    support = [{"id": n, "same": told(2 + n, 2 + n, "yes"), "diff": told(2 + n, 6 + n, "no")} for n in range(4)]
    (folder / "query.json").write_text(json.dumps(query))
    (folder / "support.json").write_text(json.dumps(support))
    return folder


def test_questions_about_several_pictures_keep_them_all(pairs, tmp_path):
    result = import_files("vl-icl", str(pairs), None, str(tmp_path / "out"))
    assert result.contents == (
        "11 questions about 11 pictures, 11 of them about several at once",
        "matching_mi: 11 questions, concepts: 1",
    )
    assert [problem.partition("bad.png")[1] for problem in result.problems] == ["bad.png"]
    dataset = open_folder(tmp_path / "out", strict=True)
    assert [len(item.questions) for item in dataset.items] == [1, 1, 0, 3, 2, 2, 2, 0, 0, 0, 0]
    written = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")]
    assert sorted(written) == sorted([*(item.id for item in dataset.items), MANIFEST])
    in_both = dataset.item("matching_mi/2.png")
    assert in_both.split == "query"
    assert [(q.answer, q.others, q.split) for q in in_both.questions] == [
        ("yes", ("matching_mi/11.png",), ""),
        ("yes", ("matching_mi/2.png",), "support"),
        ("no", ("matching_mi/6.png",), "support"),
    ]


def test_a_folder_that_was_imported_is_read_whole_whatever_its_paths(pairs, tmp_path, picture):
    query = json.loads((pairs / "query.json").read_text())
    picture(pairs / ".h" / "a.png", 20)
    query[0]["image"][1] = "./11.png"
    query[1]["image"][1] = ".h/a.png"
    (pairs / "query.json").write_text(json.dumps(query))
    result = import_files("vl-icl", str(pairs), None, str(tmp_path / "out"))
    assert result.contents[0] == "10 questions about 10 pictures, 10 of them about several at once"
    assert "record 1: a picture needs a path inside the folder, without .." in result.problems[0]
    dataset = open_folder(tmp_path / "out", strict=True)
    assert dataset.item("matching_mi/0.png").questions[0].others == ("matching_mi/11.png",)
    (tmp_path / "out" / "matching_mi" / "6.png").write_bytes(b"spoilt")
    left = open_folder(tmp_path / "out")
    assert [len(left.item(f"matching_mi/{n}.png").questions) for n in (2, 3)] == [2, 2]
    assert "questions left out because one of their pictures is: 1" in left.problems[-1]


def test_a_picture_is_never_written_into_another(tmp_path, picture):
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2).rename(tmp_path / "a")
    before = (tmp_path / "a.png").read_bytes()
    questions = [seed(1, "a.png"), seed(2, "a")]
    path = tmp_path / "SEED-Bench.json"
    path.write_text(json.dumps({"questions": questions, "question_type": {"Instances Counting": 5}}))
    (problem,) = import_files("seed", str(path), None, str(tmp_path / "out")).problems
    assert "another picture is called a.png already" in problem
    assert (tmp_path / "a.png").read_bytes() == before


def talk(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_conversations_are_checked_and_written_with_the_places_of_their_pictures(tmp_path, picture):
    picture(tmp_path / "images" / "a.png")
    rows = [{"id": "1", "image": "a.png", "conversations": talk("<image>\nQ", "A") + talk("R", "B")}]
    rows += [{"id": "2", "image": "gone.png", "conversations": talk("<image>", "A")}, {"id": "3"}]
    rows += [{"id": "4", "conversations": talk("Q", "A")}]
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(rows))
    for out in (None, str(tmp_path / "out")):
        result = import_files("conversations", str(path), None, out)
        assert result.contents == ("2 conversations, 3 answers, 1 picture",)
        assert "record 2 (id 3): `conversations` is missing" in result.problems[0]
        assert "a picture is not below" in result.problems[1]
    told = list(read_conversations(tmp_path / "out" / "conversations.json", Problems(strict=True)))
    assert [each.pictures for each in told] == [(str((tmp_path / "images" / "a.png").resolve()),), ()]
    with pytest.raises(InputError, match=r"its picture gone\.png is not below"):
        import_files("conversations", str(path), None, None, strict=True)
    path.write_text("[]")
    with pytest.raises(InputError, match="holds no conversation that can be used"):
        import_files("conversations", str(path), None, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("several", [True, False])
def test_a_hugging_face_data_set_of_conversations(tmp_path, picture, several):
    datasets = pytest.importorskip("datasets", reason="needs linkcontext[hub]")
    contents = [picture(tmp_path / f"{n}.png", n).read_bytes() for n in range(3)]
    shown = [{"bytes": content, "path": None} for content in contents]
    if several:
        turns = [[{"role": "user", "content": "<image>Q<image>"}, {"role": "assistant", "content": "A"}]] * 2
        columns, feature = {"messages": turns, "images": [shown[:2], shown[2:]]}, datasets.List(datasets.Image())
    else:
        columns, feature = {"conversations": [talk("<image>\nQ", "A")] * 3, "image": shown}, datasets.Image()
    table = datasets.Dataset.from_dict(columns).cast_column("images" if several else "image", feature)
    table.to_parquet(tmp_path / "t.parquet")
    out = tmp_path / "out"
    result = import_files("conversations", f"hf:{tmp_path / 't.parquet'}", None, str(out))
    told = list(read_conversations(out / "conversations.json", Problems(strict=True)))
    if several:
        assert result.contents == ("1 conversation, 1 answer, 2 pictures",)
        assert "split train, row 1: the text has 2 <image> marks and the record 1 pictures" in result.problems[0]
        assert told[0].pictures == ("pictures/train-0000000-0.png", "pictures/train-0000000-1.png")
    else:
        assert [each.pictures for each in told] == [(f"pictures/train-{n:07d}-0.png",) for n in range(3)]
    first = [(out / path).read_bytes() for path in told[0].pictures]
    assert first == contents[: len(first)]


def test_questions_that_contradict_each_other_are_left_out_with_their_number(seeds, tmp_path):
    told = json.loads(seeds.read_text())
    told["questions"] += [seed(7, "b.jpg", "C"), {**seed(8, "b.jpg", "C"), "question": "How many dogs?"}]
    seeds.write_text(json.dumps(told))
    result = import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), str(tmp_path / "out"))
    assert any("different answers about the same picture: 2 (b.jpg, b.jpg)" in each for each in result.problems)
    dataset = open_folder(tmp_path / "out")
    assert [q.question for q in dataset.item("b.jpg").questions] == ["How many dogs?"]
    with pytest.raises(InputError, match="different answers about the same picture"):
        told["questions"] = [seed(1, "b.jpg"), seed(2, "b.jpg", "B")]
        seeds.write_text(json.dumps(told))
        import_files("seed", str(seeds), str(tmp_path / "SEED-Bench-image"), None, strict=True)


def test_questions_that_contradict_each_other_about_copies_of_a_picture_are_left_out(seeds, tmp_path):
    told = json.loads(seeds.read_text())
    place = tmp_path / "SEED-Bench-image"
    Image.open(place / "b.jpg").save(place / "copy.png")
    told["questions"] = [seed(1, "b.jpg"), seed(2, "copy.png", "B"), {**seed(3, "copy.png"), "question": "How long?"}]
    seeds.write_text(json.dumps(told))
    result = import_files("seed", str(seeds), str(place), str(tmp_path / "out"))
    assert any("different answers about the same picture: 2 (b.jpg, copy.png)" in each for each in result.problems)
    assert result.contents[0] == "1 question about 1 picture"
    assert [item.path for item in open_folder(tmp_path / "out").items] == ["copy.png"]


def test_what_is_not_called_a_picture_must_begin_as_one(tmp_path, picture):
    picture(tmp_path / "a.png").rename(tmp_path / "good")
    (tmp_path / "clip").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0")
    (tmp_path / "notes.txt").write_bytes(b"words")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."}]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"image": name, "conversations": turns} for name in ("good", "clip", "notes.txt")]))
    result = import_files("conversations", str(path), None, None)
    assert result.contents == ("1 conversation, 1 answer, 1 picture",)
    assert "clip: has the format video" in result.problems[0]
    assert "notes.txt: not a picture" in result.problems[1]
