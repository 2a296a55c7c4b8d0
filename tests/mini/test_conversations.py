"""What the bundled models read in training: by hand and by invariance."""

import numpy as np
import pytest

from linkcontext.mini import conversations as talk
from linkcontext.worlds import concepts

WORDS = ("ab", "cd", "ef", "gh")
FACTS = concepts.facts(concepts.decode(concepts.draw(12, "t")))
CALLED = [f"name{i}" for i in range(12)]


def linked(index, **changes):
    shape = talk.LinkShape(**{"ways": 3, "turns": 9, "repeats": 0.0, "hard": 0.0, **changes})
    return talk.link(shape, "fresh", 20, 12, WORDS, talk.stream("t", 0, index))


def test_a_conversation_depends_on_its_stage_step_and_index_alone():
    assert linked(3) == linked(3)
    assert linked(3) != linked(4)


@pytest.mark.parametrize("index", range(20))
def test_link_names_once_and_asks_again(index):
    said = linked(index)
    called = {}
    for turn, supervised in zip(said.turns, said.supervised, strict=True):
        assert supervised == (turn.class_id in called)
        assert called.setdefault(turn.class_id, turn.answer) == turn.answer
    assert len(set(called.values())) == len(called)
    pictures = [turn.item for turn in said.turns]
    assert len(set(pictures)) == len(pictures), "without repeats no picture comes twice: it could be looked up"


def test_repeats_are_exact_pictures():
    said = linked(0, repeats=1.0, turns=9)
    seen = set()
    for turn, supervised in zip(said.turns, said.supervised, strict=True):
        assert (turn.item in seen) == supervised
        seen.add(turn.item)


def test_hard_neighbours_meet():
    for index in range(10):
        chosen = {int(turn.item.split("/")[1]) for turn in linked(index, hard=1.0, turns=12).turns}
        assert any(c + 10 in chosen for c in chosen)


def test_known_names_are_swapped_without_a_fixed_point():
    shape = talk.LinkShape(ways=2, turns=6, repeats=0.0, hard=0.0)
    swapped = 0
    for index in range(30):
        said = talk.link(shape, "taught", 12, 12, WORDS, talk.stream("t", 1, index), CALLED)
        for turn in said.turns:
            if turn.answer in CALLED:
                swapped += 1
                assert turn.answer != CALLED[int(turn.item.split("/")[1])]
    assert swapped > 30


def test_taught_answers_are_true():
    said = talk.taught(FACTS, CALLED, 5, 40, talk.stream("t", 2, 0))
    naming = 0
    for turn in said.turns:
        which = int(turn.item.split("/")[1])
        if turn.answer.startswith("name"):
            naming += 1
            assert turn.answer == CALLED[which]
        if turn.question.startswith("How many"):
            assert turn.answer == str(FACTS[which].count)
    assert naming > 10
    assert all(said.supervised)


def test_incoherent_context_is_not_supervised_and_the_questions_after_it_are_true():
    wrong = 0
    for index in range(10):
        said = talk.incoherent(FACTS, CALLED, 5, 6, talk.stream("t", 3, index))
        assert said.supervised == (False,) * 6 + (True,) * 3
        wrong += sum(turn.answer != CALLED[int(turn.item.split("/")[1])] for turn in said.turns[:6])
        for turn in said.turns[6:]:
            if turn.answer.startswith("name"):
                assert turn.answer == CALLED[int(turn.item.split("/")[1])]
    assert wrong > 30


def test_induction_supervises_what_can_be_known():
    words, known = talk.induction(100, 6, 60, talk.stream("t", 4, 0))
    assert len(words) == len(known) == 60
    assert min(words) >= 6
    block = known.index(True) - 1
    for i in range(block, 60):
        before = [j for j in range(i) if words[j] == words[i - 1]][:-1] if known[i] else []
        if known[i]:
            assert any(words[j + 1] == words[i] for j in before if j + 1 < i), (
                "it must have been seen after the same word"
            )


def test_names_are_distinct_and_of_several_kinds():
    kinds = set()
    for index in range(40):
        found = talk.names(4, WORDS, talk.stream("t", 5, index))
        assert len(set(found)) == 4
        kinds.add(all(len(n) % 2 == 0 and {n[i : i + 2] for i in range(0, len(n), 2)} <= set(WORDS) for n in found))
    assert kinds == {True, False}


def test_the_streams_of_steps_differ():
    assert not np.array_equal(talk.stream("a", 0, 1).random(3), talk.stream("a", 1, 0).random(3))
