"""Concepts: vectors into attributes, and neighbours that differ by one or two of them."""

import dataclasses

import pytest
import torch

from linkcontext.worlds import concepts


def test_a_concept_depends_on_its_names_and_index_alone():
    few, many = concepts.draw_concepts(3, "w", 1), concepts.draw_concepts(9, "w", 1)
    assert torch.equal(few, many[:3])
    assert not torch.equal(few, concepts.draw_concepts(3, "w", 2))


def test_decode_by_hand():
    vector = torch.zeros(1, concepts.LENGTH)
    thing = concepts.decode(vector)
    assert concepts.FAMILIES[int(thing.family)] == "creature"
    assert int(thing.count) == 2
    fact = concepts.facts(thing)[0]
    assert fact.parts == (concepts.Part("red", "plain", "circle"),) * 2
    vector[0, concepts.SLOTS["family"]] = 0.6
    vector[0, concepts.SLOTS["count"]] = 0.99
    fact = concepts.facts(concepts.decode(vector))[0]
    assert (fact.family, fact.count) == ("glyph", 5)


def test_every_number_below_one_is_a_valid_attribute():
    edge = torch.full((1, concepts.LENGTH), 1 - 2**-24)
    thing = concepts.decode(edge)
    assert int(thing.colour.max()) < len(concepts.COLOURS)
    assert int(thing.shape.max()) < len(concepts.SHAPES)
    assert bool((thing.accent != thing.colour).all())


def test_a_neighbour_differs_in_one_or_two_slots_that_matter():
    things = concepts.draw_concepts(200, "n")
    near = concepts.neighbours(things, concepts.draw_changes(200, "n"))
    assert float(near.min()) >= 0
    assert float(near.max()) < 1
    stroke = concepts.SLOTS["stroke"]
    for before, after in zip(things, near, strict=True):
        changed = (before - after).abs() > 1e-6
        strokes = changed[stroke].view(concepts.STROKES, 6).any(1).sum()
        others = changed.sum() - changed[stroke].sum()
        assert 1 <= int(strokes + others) <= 2


@pytest.mark.parametrize("slot", ["colour", "shape", "texture"])
def test_a_changed_slot_is_always_another_attribute(slot):
    things = concepts.draw_concepts(300, "s")
    moved = things.clone()
    for shift in (0.25, 0.5, 0.75):
        moved[:, concepts.SLOTS[slot]] = (things[:, concepts.SLOTS[slot]] + shift) % 1
        before, after = (getattr(concepts.decode(v), slot) for v in (things, moved))
        assert bool((before != after).all())


def test_facts_tell_apart_what_differs():
    things = concepts.draw_concepts(300, "facts")
    told = [dataclasses.astuple(f) for f in concepts.facts(concepts.decode(things))]
    creatures = [t for t in told if t[0] == "creature"]
    assert len(set(creatures)) == len(creatures)
    assert {t[0] for t in told} == set(concepts.FAMILIES)
