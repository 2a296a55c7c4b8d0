import json

import pytest

from linkcontext.data.problems import Problems
from linkcontext.data.readers.visual_genome import ACTIONS, KINDS, read_visual_genome
from linkcontext.errors import InputError
from linkcontext.records import Question

COLOURS, MOVEMENTS = KINDS[0][2], KINDS[-1][2]


def things(*pairs):
    return [{"names": [name], "attributes": list(said), "object_id": 1} for name, *said in pairs]


def test_visual_genome_attributes_by_hand(read):
    one = things(("clock", "green", "tall"), ("Car", "Gray", "parked"), ("man", "walking"), ("bird",))
    two = things(
        ("cup", "red", "white"), ("dog", "big"), ("dog", "little"), ("door", "open"), ("door", "open", "wooden")
    )
    old = [{"object_names": ["sky"], "attributes": ["blue"]}]
    content = [{"image_id": 1, "attributes": one}, {"image_id": 2, "attributes": two}, {"id": 3, "attributes": old}]
    imported, problems = read(read_visual_genome, content)
    assert problems == []
    assert [asked.question for asked in imported] == [
        Question("attribute", "colour", "What colour is the clock?", "green", COLOURS),
        Question("attribute", "colour", "What colour is the car?", "grey", COLOURS),
        Question("attribute", "action", "What is the man doing?", "walking", MOVEMENTS),
        Question("attribute", "state", "Is the door open or closed?", "open", ("open", "closed")),
        Question("attribute", "material", "What is the door made of?", "wood", KINDS[1][2]),
        Question("attribute", "colour", "What colour is the sky?", "blue", COLOURS),
    ]
    assert imported[0].pictures == (("VG_100K/1.jpg", "VG_100K_2/1.jpg", "1.jpg"),)


def relation(one, said, other):
    return {"predicate": said, "subject": {"name": one}, "object": {"names": [other]}}


def test_visual_genome_relations_by_hand_and_where_pictures_lie(read, tmp_path):
    told = [relation("key", "ON", "board"), relation("man", "wears", "hat"), relation("cup", "near", "jug")]
    told += [relation("a", "on", "b"), relation("a", "under", "b"), relation("x", "made of", "y")]
    place = {"image_id": 7, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/9.jpg"}
    (tmp_path / "image_data.json").write_text(json.dumps([place]))
    imported, problems = read(
        read_visual_genome, [{"image_id": 7, "relationships": told}], "relationships.json", tmp_path
    )
    assert problems == []
    assert [asked.question for asked in imported] == [
        Question("relation", "spatial", "Is the key on or under the board?", "on", ("on", "under")),
        Question("relation", "action", "What is the man doing with the hat?", "wearing", ACTIONS),
        Question("relation", "spatial", "Is the cup next to or far from the jug?", "next to", ("next to", "far from")),
    ]
    assert {asked.pictures for asked in imported} == {(("VG_100K_2/9.jpg",),)}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"attributes": []}, "record 1: `image_id` is missing"),
        ({"image_id": 1, "attributes": []}, "an earlier record has the `image_id` 1"),
        ({"image_id": 2}, r"record 1 \(image_id 2\): `attributes` is missing or not a list"),
        ({"image_id": 2, "attributes": [{"attributes": ["red"]}]}, "an object has no `names`"),
        ({"image_id": 2, "attributes": things(("cup", 3))}, "3 is not a text"),
        ({"image_id": 2, "relationships": [{"predicate": "on"}]}, "`subject` is missing"),
        ([], "record 1: `image_id` is missing"),
    ],
)
def test_wrong_records_of_visual_genome(read, tmp_path, record, sentence):
    imported, problems = read(read_visual_genome, [{"image_id": 1, "attributes": things(("cup", "red"))}, record])
    assert len(imported) == len(problems) == 1
    with pytest.raises(InputError, match=sentence):
        list(read_visual_genome(tmp_path / "x.json", Problems(strict=True)))
