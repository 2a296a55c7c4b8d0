"""ISEKAI out of the world: the published layout, concepts nobody was taught, names that say who was."""

import json

import pytest
import torch

from linkcontext.data.manifest import digest, read_manifest
from linkcontext.errors import InputError
from linkcontext.worlds import concepts
from linkcontext.worlds.folder import TAUGHT, TAUGHT_STREAM, facts_of, taught_names
from linkcontext.worlds.isekai import write_isekai

FIELDS = {"image_name", "positive_list", "negative_list", "positive_promt", "negative_promt", "label_name"}


def lines(folder, kind):
    return [json.loads(line) for line in (folder / f"ISEKAI-{kind}.json").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["10", "pair"])
def test_records_have_the_published_fields_and_queries_are_balanced(tmp_path, kind):
    write_isekai(tmp_path / "w", kind, 3, groups=2, images=6, size=16)
    records = lines(tmp_path / "w", kind)
    assert len(records) == 2 * 2 * 3
    for record in records:
        assert set(record) == FIELDS
        assert record["image_name"].split("/")[0] == record["label_name"]
        assert record["positive_list"] == [f"{record['positive_promt']}/000{i}.png" for i in range(3)]
        assert record["negative_list"] == [f"{record['negative_promt']}/000{i}.png" for i in range(3)]
        assert record["image_name"] not in record["positive_list"] + record["negative_list"]
        assert all(
            (tmp_path / "w" / name).is_file()
            for name in (record["image_name"], *record["positive_list"], *record["negative_list"])
        )
    positives = [record for record in records if record["label_name"] == record["positive_promt"]]
    assert len(positives) == len(records) // 2


def test_in_10_the_look_alikes_are_taught_and_the_others_are_not(tmp_path):
    write_isekai(tmp_path / "w", "10", 0, groups=4, images=2, size=16)
    taught = taught_names()
    known = concepts.facts(concepts.decode(concepts.draw_concepts(TAUGHT, *TAUGHT_STREAM)))
    told = {item.class_id: facts_of(item.facts) for item in read_manifest(tmp_path / "w").items}
    for record in lines(tmp_path / "w", "10"):
        assert record["positive_promt"] not in taught
        assert told[record["negative_promt"]] == known[taught.index(record["negative_promt"])]
        assert told[record["positive_promt"]].family == told[record["negative_promt"]].family


def test_in_pair_nothing_is_taught_and_look_alikes_differ(tmp_path):
    write_isekai(tmp_path / "w", "pair", 0, groups=3, images=2, size=16)
    names = {name for r in lines(tmp_path / "w", "pair") for name in (r["positive_promt"], r["negative_promt"])}
    assert len(names) == 6
    assert not names & set(taught_names())
    stream = ("world", "isekai", "pair", 0)
    novel = concepts.draw_concepts(3, *stream)
    alike = concepts.neighbours(novel, concepts.draw_changes(3, *stream))
    assert all(0 < n <= 12 for n in torch.count_nonzero(novel != alike, 1).tolist())  # two strokes are twelve numbers


def test_the_same_seed_writes_the_same_bytes_and_another_another_world(tmp_path):
    a, b = (write_isekai(tmp_path / name, "10", 5, groups=2, images=2, size=16) for name in "ab")
    assert digest(a) == digest(b)
    assert (tmp_path / "a" / "ISEKAI-10.json").read_bytes() == (tmp_path / "b" / "ISEKAI-10.json").read_bytes()
    for name, kind, seed in (("c", "10", 6), ("d", "pair", 5)):
        assert digest(write_isekai(tmp_path / name, kind, seed, groups=2, images=2, size=16)) != digest(a)


def test_numbers_that_make_no_benchmark_are_refused(tmp_path):
    for groups, images in ((0, 32), (TAUGHT + 1, 32), (10, 1)):
        with pytest.raises(InputError, match="at least 2 pictures"):
            write_isekai(tmp_path / "w", "10", 0, groups=groups, images=images)
    assert not (tmp_path / "w").exists()
