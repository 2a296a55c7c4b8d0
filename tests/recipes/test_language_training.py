"""Training keeps the circuits, and its conversations are what they say."""

import re
from collections import Counter

import circuits
import numpy as np
import pytest
import torch
from conversations import (
    NONE,
    STATEMENTS,
    Linker,
    LinkShape,
    Pool,
    Taught,
    choices,
    facts,
    lettered,
    letters,
    misnamed,
    repeat,
)
from language import HEAD, optimizer
from test_circuits import model  # noqa: F401 - a fixture
from words import Namer

from linkcontext.worlds.questions import attribute_questions

WORDS = ["apple", "ear", "red bus", "house", "snow plough", "tree", "key", "lamp", "wheel", "boat", "ring", "cup"]


def stream(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


def test_a_step_of_training_moves_no_circuit(model):  # noqa: F811
    text = model.model.language_model
    before = {name: value.clone() for name, value in text.state_dict().items()}
    optim = optimizer(model)
    for group in optim.param_groups:
        group["lr"] = 1e-2
    ids = torch.randint(4, 200, (2, 24), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    optim.step()
    moved = {name for name, value in text.state_dict().items() if not torch.equal(value, before[name])}
    assert any("mlp" in name for name in moved)
    for number, layer in enumerate(text.layers):
        fixed = circuits.FIXED.get(number, 0) * HEAD
        here = f"layers.{number}.self_attn."
        for projection in ("q_proj", "k_proj", "v_proj"):
            kept = before[f"{here}{projection}.weight"][:fixed]
            assert torch.equal(getattr(layer.self_attn, projection).weight[:fixed], kept)
        rows = circuits.kept(circuits.blocks(circuits_width(text)), number)
        assert torch.equal(layer.mlp.down_proj.weight[rows], before[f"layers.{number}.mlp.down_proj.weight"][rows])
        assert torch.equal(layer.self_attn.o_proj.weight[rows], before[f"{here}o_proj.weight"][rows])
    columns = circuits.kept(circuits.blocks(circuits_width(text)), 0)
    assert "embed_tokens.weight" in moved
    assert torch.equal(text.embed_tokens.weight[:, columns], before["embed_tokens.weight"][:, columns])
    assert f"layers.{circuits.COMPARING}.self_attn.o_proj.weight" in moved  # how loud the findings are


def circuits_width(text) -> int:
    return text.config.hidden_size


@pytest.mark.parametrize("seed", range(30))
def test_names_of_a_conversation_are_told_apart_by_every_beginning(seed):
    names = Namer(WORDS).names(6, stream(seed))
    assert len(names) == 6
    assert all(name == name.strip() and name for name in names)
    assert not any(a != b and a.startswith(b) for a in names for b in names)


def test_names_have_words_phrases_codes_and_capitals():
    names = [name for seed in range(300) for name in Namer(WORDS).names(2, stream(seed))]
    for kind in (str.islower, str.isupper, str.istitle):
        assert sum(map(kind, names)) > 20
    assert sum(" " in name for name in names) > 60
    assert sum(any(c.isdigit() for c in name) for name in names) > 60


def pool(classes: int = 8, pictures: int = 30) -> Pool:
    return Pool("world", [pictures] * classes)


@pytest.mark.parametrize("seed", range(20))
def test_without_repeats_no_picture_is_shown_twice_and_a_name_counts_from_its_second_turn(seed):
    exchanges = Linker(LinkShape(3, 18), pool(), Namer(WORDS), stream(seed)).draw()
    shown = [one.picture for one in exchanges]
    assert len(set(shown)) == len(shown) == 18
    called: dict[str, str] = {}
    for one in exchanges:
        cls = one.picture.split("/")[1]
        assert one.loss == (cls in called)
        assert called.setdefault(cls, one.answer) == one.answer
    assert len(set(called.values())) == len(called)


def test_a_thing_that_was_not_taught_is_none_of_these():
    shape = LinkShape(2, 18, others=1.0)
    answers: dict[bool, set[str]] = {True: set(), False: set()}
    for seed in range(20):
        exchanges = Linker(shape, pool(), Namer(WORDS), stream(seed)).draw()
        taught = {one.picture.split("/")[1] for one in exchanges if one.answer != NONE}
        for one in exchanges:
            answers[one.picture.split("/")[1] in taught].add(one.answer)
    assert answers[False] == {NONE}
    assert NONE not in answers[True]


def test_letters_name_what_the_choices_say():
    for seed in range(20):
        exchanges = Linker(LinkShape(4, 16, choices=1.0), pool(), Namer(WORDS), stream(seed)).draw()
        called = {one.picture.split("/")[1]: one.answer for one in exchanges if "Answer with" not in one.question}
        asked = [one for one in exchanges if "Answer with" in one.question]
        assert asked
        for one in asked:
            name = called[one.picture.split("/")[1]]
            assert f"{one.answer}. {name} " in one.question


def test_options_are_listed_once_and_the_letter_is_that_of_the_answer():
    chosen = Counter()
    for seed in range(200):
        question, letter = lettered("What is it?", ["cat", "dog", "cow"], "cow", stream(seed))
        listed, _, rest = question.removeprefix("What is it? ").partition(" Answer")
        assert rest == " with the option's letter."
        assert sorted(listed.split()[1::2]) == ["cat", "cow", "dog"]
        assert listed.split()[::2] == ["A.", "B.", "C."]
        assert f"{letter}. cow" in listed
        chosen[letter] += 1
    assert min(chosen.values()) > 40
    question, letter = lettered("Which?", [str(number) for number in range(20)], "19", stream(0))
    assert f"{letter}. 19" in question
    assert "H. " in question
    assert "I. " not in question


def option(exchange) -> str:
    """What stands behind the letter of an answer."""
    listed = exchange.question.partition(f"{exchange.answer}. ")[2].removesuffix(" Answer with the option's letter.")
    return re.split(r" [A-H]\. ", listed)[0]


def test_the_answer_in_a_question_stands_behind_its_letter():
    for seed in range(40):
        for one in letters(3, Namer(WORDS), stream(seed)):
            assert not one.picture
            assert any(one.question.startswith(statement.format(option(one))) for statement in STATEMENTS)


def test_a_choice_about_a_taught_concept_has_the_answer_that_its_facts_give():
    taught = Taught(facts_of(6), ["ant", "bee", "cow", "dog", "elk", "fox"], 40)
    kinds = Counter()
    for seed in range(100):
        exchanges = choices(taught, 4, stream(seed))
        kinds[len({one.question.partition("?")[0] for one in exchanges}) == 1] += 1
        for one in exchanges:
            which = int(one.picture.split("/")[1])
            asked = one.question.partition("?")[0] + "?"
            answers = {q.question: q.answer for q in attribute_questions(taught.facts[which])}
            assert option(one) == answers.get(asked, taught.names[which])
    assert min(kinds.values()) > 10


def test_small_talk_has_no_picture_and_changes_no_name():
    exchanges = Linker(LinkShape(2, 12, talk=1.0), pool(), Namer(WORDS), stream(3)).draw()
    assert any(not one.picture for one in exchanges)
    assert sum(bool(one.picture) for one in exchanges) == 12


def test_wrong_names_are_not_learnt_and_the_questions_behind_them_are():
    taught = Taught(facts_of(6), ["ant", "bee", "cow", "dog", "elk", "fox"], 40)
    belongs, nowhere = 0, 0
    for seed in range(40):
        exchanges = misnamed(taught, 6, Namer(WORDS), stream(seed))
        shown, asked = exchanges[:6], exchanges[6:]
        assert not any(one.loss for one in shown)
        assert len(asked) == 3
        assert all(one.loss for one in asked)
        known = {one.answer for one in shown} <= set(taught.names)
        belongs, nowhere = belongs + known, nowhere + (not known)
    assert min(belongs, nowhere) > 8


def test_names_of_its_own_knowledge_are_asked_of_mini_in_first_turns_alone():
    taught = Taught(facts_of(6), ["ant", "bee", "cow", "dog", "elk", "fox"], 40)
    first, later = Counter(), Counter()
    for row in range(200):
        exchanges = facts(taught, 4, stream(row), named=0.0)
        first[exchanges[0].answer in taught.names] += 1
        later.update(exchange.answer in taught.names for exchange in exchanges[1:])
    assert later[True] == 0
    assert 60 < first[True] < 140


def facts_of(count: int):
    from linkcontext.worlds import concepts  # noqa: PLC0415

    return concepts.facts(concepts.decode(concepts.draw_concepts(count, "test")))


def test_what_is_repeated_can_be_known():
    tokens, known = repeat(500, 6, 64, stream(1))
    block = known.index(True) - 1
    assert len(tokens) == 64
    again = tokens[block:]
    start = next(i for i in range(block) if tokens[i : i + 4] == again[:4])
    assert again[: block - start] == tokens[start:block]
