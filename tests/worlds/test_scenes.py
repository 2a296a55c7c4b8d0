"""Scenes: what is drawn is what the questions say."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from linkcontext.data.class_folders import open_folder
from linkcontext.errors import InputError
from linkcontext.worlds import concepts, render, scenes
from linkcontext.worlds.scenes import KINDS, PLACES, RULES, thing_questions, write_scenes


def made(kind, count=40):
    return [KINDS[kind]("test", kind, n) for n in range(count)]


def test_every_kind_of_picture_is_written_with_its_questions(tmp_path):
    written = write_scenes(tmp_path / "a", seed=5, classes=2, images=2, scenes=2, size=16)
    again = write_scenes(tmp_path / "b", seed=5, classes=2, images=2, scenes=2, size=16)
    assert written.items == again.items == open_folder(tmp_path / "a").items
    assert len(written.items) == 2 * 2 + 2 * len(KINDS)
    tasks = {question.task for item in written.items for question in item.questions}
    assert tasks == {
        *("naming", "attribute", "count", "caption", "rule"),
        *("location", "relation", "same-different"),
    }
    with pytest.raises(InputError, match="the folder is not empty"):
        write_scenes(tmp_path / "a", seed=5)


def test_a_scene_depends_on_its_own_names_alone(tmp_path):
    few = write_scenes(tmp_path / "few", seed=5, classes=2, images=1, scenes=1, size=16)
    more = write_scenes(tmp_path / "more", seed=5, classes=3, images=2, scenes=2, size=16)
    known = {item.id: item.sha256 for item in more.items}
    assert all(known[item.id] == item.sha256 for item in few.items if not item.id.startswith("thing"))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_candidates_and_all_of_them_come(kind):
    found = made(kind, 120)
    for scene in found:
        assert len(scene.places) == len(scene.things)
        assert all(question.answer in question.candidates for question in scene.questions)
    for concept in {question.concept for scene in found for question in scene.questions}:
        asked = [q for scene in found for q in scene.questions if q.concept == concept]
        assert {q.answer for q in asked} == set(asked[0].candidates)


def test_places_are_where_the_answer_says():
    for scene in made("place"):
        (x, y, *_), wanted = scene.places[0], PLACES[scene.questions[0].answer]
        assert np.hypot(x - wanted[0], y - wanted[1]) < 0.15


def test_herds_and_sums_have_as_many_things_as_they_say():
    for scene in made("herd"):
        assert len(scene.places) == int(scene.questions[0].answer)
    for scene in made("sum"):
        left = sum(x < 0 for x, *_ in scene.places)
        told = {question.concept: question.answer for question in scene.questions}
        right = len(scene.places) - left
        assert told == {name: str(rule(left, right)) for name, (rule, _) in RULES.items()}
        assert told["sum"] == str(len(scene.places))


def test_of_two_things_the_named_colour_is_where_it_says():
    for scene in made("two"):
        (question,) = scene.questions
        colour = question.question.removeprefix("Where is the ").removesuffix(" one?")
        first, second = concepts.facts(concepts.decode(scene.things))
        assert first.parts[0].colour == colour != second.parts[0].colour
        (x, y, *_), (x2, y2, *_) = scene.places
        wanted = {"left": x < x2, "right": x > x2, "above": y < y2, "below": y > y2}
        assert wanted[question.answer]


def test_twins_are_the_same_concept_or_not():
    for scene in made("twins"):
        assert torch.equal(scene.things[0], scene.things[1]) == (scene.questions[0].answer == "same")


def test_traces_lie_behind_what_moves():
    for scene in made("motion"):
        dx, dy = scenes.MOTIONS[scene.questions[0].answer]
        *traces, (x, y, _, cover) = scene.places
        assert cover == 1
        assert len(traces) == (3 if dx or dy else 0)
        assert all((x - tx) * dx + (y - ty) * dy > 0 for tx, ty, *_ in traces)


def test_night_is_darker_and_large_covers_more(tmp_path):
    data = write_scenes(tmp_path / "a", seed=5, classes=2, images=1, scenes=24, size=24)
    light = {"day": [], "night": []}
    for item in data.items:
        if item.class_id == "light":
            light[item.questions[0].answer].append(np.asarray(Image.open(data.root / item.path)).mean())
    assert max(light["night"]) < 255 * scenes.NIGHT < np.mean(light["day"])


def test_a_layer_that_is_not_there_paints_nothing():
    things = concepts.draw_concepts(2, "test")[None].expand(3, -1, -1)
    instances = render.draw_instances(3, "test")
    one = torch.tensor([[[0.2, 0.1, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0]]]).expand(3, -1, -1)
    alone = render.compose(things[:, :1], one[:, :1], instances, 24)
    assert torch.equal(render.compose(things, one, instances, 24), alone)
    both = one.clone()
    both[:, 1, 2] = 0.5
    assert not torch.equal(render.compose(things, both, instances, 24), alone)


def test_what_is_asked_about_one_thing():
    (fact,) = concepts.facts(concepts.decode(concepts.draw_concepts(1, "test")))
    asked = thing_questions(fact, "plim")
    told = {(q.task, q.concept): q for q in asked}
    assert told["naming", "thing"].answer == "plim"
    assert told["rule", "by colour"].answer == told["attribute", "colour"].answer
    assert told["rule", "by colour"].candidates == ()
    styles = [q for q in asked if q.task == "caption"]
    assert Counter(q.answer for q in styles) == dict.fromkeys(styles[0].candidates, 1)
