import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from linkcontext.data import neighbours
from linkcontext.data.manifest import digest
from linkcontext.data.neighbours import (
    NeighbourClass,
    NeighbourList,
    check_weights,
    draw_sheet,
    neighbour_lists,
    provenance_file,
    rank,
    read_neighbours,
    read_provenance,
    write_neighbours,
)
from linkcontext.errors import InputError

PAPER = (0.5, 0.8, 0.5)
IMAGE = np.array([[1, 0], [0.6, 0.8], [0, 1], [0, 1]])
TEXT = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], float)
NAMES = {"a": "ape", "b": "bee", "c": "cat", "d": "dog"}


def units(stream, count, width):
    rows = stream.normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def table(image, text, weights, keep=100, chunk=256):
    return [(order.tolist(), near.tolist()) for order, near in rank(image, text, weights, keep, chunk)]


def test_by_hand():
    # a-b: .5 * 0 + .8 (0 + .6) + .5 * .6 = .78      a-c, a-d: .5 * 1 + .8 (1 + 0) + .5 * 0 = 1.3
    # b-c, b-d: .5 * 0 + .8 (.6 + 1) + .5 * .8 = 1.68      c-d: .5 * 1 + .8 (0 + 0) + .5 * 1 = 1
    assert table(IMAGE, TEXT, PAPER) == [
        ([2, 3, 1], [1.3, 1.3, 0.78]),
        ([2, 3, 0], [1.68, 1.68, 0.78]),
        ([1, 0, 3], [1.68, 1.3, 1.0]),
        ([1, 0, 2], [1.68, 1.3, 1.0]),
    ]


def test_each_weight_by_hand():
    assert [table(IMAGE, TEXT, w)[0] for w in ((1, 0, 0), (0, 1, 0), (0, 0, 1))] == [
        ([2, 3, 1], [1.0, 1.0, 0.0]),  # names alone
        ([2, 3, 1], [1.0, 1.0, 0.6]),  # image a with text c; text a with image b
        ([1, 2, 3], [0.6, 0.0, 0.0]),  # pictures alone
    ]


def test_ties_go_by_class_even_where_the_list_ends():
    assert table(IMAGE, TEXT, PAPER, keep=1) == [([2], [1.3]), ([2], [1.68]), ([1], [1.68]), ([1], [1.68])]


@pytest.mark.parametrize("weights", [PAPER, (1.0, 0.0, 0.3), (7.0, 100.0, 0.01)])
def test_equals_the_dense_way(weights):
    stream = np.random.default_rng(0)
    image, text = units(stream, 300, 48), units(stream, 300, 48)
    tt, it, ii = weights
    dense = tt * text @ text.T + it * (image @ text.T + text @ image.T) + ii * image @ image.T
    np.fill_diagonal(dense, -np.inf)
    for row, (order, near) in zip(dense, rank(image, text, weights, 20), strict=True):
        assert np.abs(row[order] - near).max() < 5e-7 + 6e-8 * sum(weights)  # six digits of 26 bits
        assert np.abs(row[order] - np.sort(row)[:-21:-1]).max() < 6e-8 * sum(weights)  # the same but for near ties


@pytest.mark.parametrize("chunk", [1, 7, 299, 5000])
def test_the_chunk_does_not_matter_to_the_last_bit(chunk):
    stream = np.random.default_rng(1)
    image, text = units(stream, 300, 64), units(stream, 300, 64)
    assert table(image, text, PAPER, 299, chunk) == table(image, text, PAPER, 299)


def test_lines_by_hand():
    rows = list(neighbour_lists(NAMES, IMAGE, TEXT, PAPER, "linear", 0))
    assert rows[0] == NeighbourList(
        "a", "ape", (NeighbourClass("c", 1.3), NeighbourClass("d", 1.3), NeighbourClass("b", 0.78))
    )


def test_lists_are_as_long_as_the_rule_says():
    stream = np.random.default_rng(2)
    image, text, names = units(stream, 150, 16), units(stream, 150, 16), {f"{i:03}": f"name {i}" for i in range(150)}
    ranked = [[f"{i:03}" for i in order] for order, _ in rank(image, text, PAPER, 149)]
    for rule in ("topk", "linear"):
        rows = list(neighbour_lists(names, image, text, PAPER, rule, 0))
        assert [[near.class_id for near in row.neighbours] for row in rows] == [order[:100] for order in ranked]
    parts = list(neighbour_lists(names, image, text, PAPER, "intervals", 0))
    for row, order in zip(parts, ranked, strict=True):
        places = [order.index(near.class_id) for near in row.neighbours]
        assert [place * 36 // 149 for place in places] == pytest.approx(range(36), abs=1)
        assert all(149 * part // 36 <= place < 149 * (part + 1) // 36 for part, place in enumerate(places))
    assert parts == list(neighbour_lists(names, image, text, PAPER, "intervals", 0))
    assert parts != list(neighbour_lists(names, image, text, PAPER, "intervals", 1))


@pytest.mark.parametrize("bad", [(), (0.5, 0.8), (1, 1, 1, 1), (0, 0, 0), (1, -1, 1), (1, float("nan"), 1)])
def test_weights_are_three_numbers(bad):
    with pytest.raises(InputError, match=r"^--weights .*: give three numbers.*\.$"):
        check_weights(bad)


@pytest.fixture
def mined(things, tmp_path):
    names = things.names()
    stream = np.random.default_rng(3)
    rows = list(neighbour_lists(names, units(stream, 6, 8), units(stream, 6, 8), PAPER, "topk", 0))
    told = {"encoder": {"name": "x"}, "weights": PAPER, "rule": "topk", "images_per_class": 9, "split": None}
    path = tmp_path / "out" / "neighbours.jsonl"
    write_neighbours(rows, path, data=digest(things), seed=0, **told)
    return path, rows


def test_what_is_read_is_what_was_written(mined, things):
    path, rows = mined
    found = read_neighbours(path, things)
    assert found == {row.class_id: tuple(near.class_id for near in row.neighbours) for row in rows}
    line = json.loads(path.read_text().splitlines()[0])
    assert list(line) == ["class", "name", "neighbours"]
    assert list(line["neighbours"][0]) == ["class", "similarity"]
    made = read_provenance(path)
    assert (made.rule, made.weights, made.classes, made.split) == ("topk", PAPER, 6, None)


def test_what_is_not_whole_or_of_another_data_set_is_a_sentence(mined, things, tmp_path):
    path, _ = mined
    other = dataclasses.replace(things, items=things.items[1:])
    with pytest.raises(InputError, match="made from other pictures than those of"):
        read_neighbours(path, other)
    whole = path.read_text()
    for cut in (whole[: len(whole) // 2], "".join(whole.splitlines(keepends=True)[:-1]), ""):
        path.write_text(cut)
        with pytest.raises(InputError, match="is incomplete, or was changed"):
            read_neighbours(path, things)
    provenance_file(path).unlink()
    with pytest.raises(InputError, match=r"neighbours\.made\.json: no such file"):
        read_neighbours(path, things)
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file"):
        read_neighbours(tmp_path / "nowhere.jsonl", things)


def test_the_sheet_has_a_row_for_each_class(mined, things, tmp_path):
    draw_sheet(things, mined[1], tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        assert picture.size == (4 * (2 * neighbours.EDGE + neighbours.LABEL), 6 * (neighbours.EDGE + neighbours.LABEL))
        assert len(picture.getcolors(1 << 20)) > 100


@pytest.mark.parametrize(
    ("key", "value"),
    [("class", []), ("neighbours", {}), ("neighbours", [5]), ("neighbours", [{"class": "b", "similarity": "x"}])],
)
def test_values_of_another_type_are_a_sentence(mined, things, key, value):
    path, _ = mined
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**line, key: value}) + "\n")
    made = json.loads(provenance_file(path).read_text())
    provenance_file(path).write_text(
        json.dumps({**made, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}) + "\n"
    )
    with pytest.raises(InputError, match=r"neighbours\.jsonl:1: "):
        read_neighbours(path, things)
    provenance_file(path).write_text(json.dumps({**made, "rule": 5}) + "\n")
    with pytest.raises(InputError, match=r"made\.json:1: rule"):
        read_neighbours(path, things)
