"""Strategies: their chances by hand, and what a lesson never does."""

import dataclasses
import math
from collections import Counter

import pytest

from linkcontext.data.class_folders import open_folder
from linkcontext.episodes.link import sample_episodes
from linkcontext.errors import InputError
from linkcontext.train.samplers import Lessons, Strategy, nth, read_questions


@pytest.fixture(scope="module")
def dataset(pictures):
    return open_folder(pictures)


def lessons(dataset, count, neighbours=None, questions=(), **options):
    made = Lessons.of(dataset, Strategy(**{"support": 4, **options}), neighbours, questions)
    return [made.lesson(i) for i in range(count)]


def test_chances_by_hand():
    assert Strategy("2-way").chances() == {16: 1.0}
    assert Strategy("2-way-random").chances() == pytest.approx(dict.fromkeys(range(2, 17), 1 / 15))
    assert Strategy("2-way-weight", support=4).chances() == pytest.approx(
        {2: math.exp(2) / 82.1, 3: math.exp(3) / 82.1, 4: math.exp(4) / 82.1}, rel=1e-3
    )
    code = Strategy("lcl-code-weight", support=8).chances()
    assert list(code) == [2, 4, 6, 8]
    assert code[8] / code[6] == pytest.approx(math.exp(0.5))
    assert list(Strategy("2-way-random", ways=3, support=5).chances()) == [3, 4, 5]


@pytest.mark.parametrize("kind", ["2-way-random", "2-way-weight", "lcl-code-weight"])
def test_lessons_have_as_many_pictures_as_the_chances_say(dataset, kind):
    count = 600
    found = Counter(len(lesson.support) for lesson in lessons(dataset, count, kind=kind))
    for pictures, chance in Strategy(kind, support=4).chances().items():
        assert found[pictures] == pytest.approx(count * chance, abs=4 * math.sqrt(count * chance * (1 - chance)))


@pytest.mark.parametrize("ways", [2, 3])
def test_classes_are_balanced_and_no_query_is_shown(dataset, ways):
    firsts, asked, more = Counter(), Counter(), Counter()
    for lesson in lessons(dataset, 300, kind="2-way", ways=ways, support=2 * ways + 1, queries=1):
        shown = Counter(turn.class_id for turn in lesson.support)
        assert sorted(shown.values()) == [2] * (ways - 1) + [3]
        assert not {q.item for q in lesson.queries} & {t.item for t in lesson.support}
        names = {turn.class_id: turn.answer for turn in (*lesson.support, *lesson.queries)}
        assert len(set(names.values())) == ways
        firsts[lesson.support[0].class_id] += 1
        asked[sorted(shown).index(lesson.queries[0].class_id)] += 1
        more[sorted(shown).index(max(shown, key=shown.get))] += 1
    for counter, sides in ((asked, ways), (more, ways)):
        assert min(counter.values()) > 0.6 * 300 / sides


@pytest.mark.parametrize("seed", [0, 1, 2024])
def test_no_episode_of_an_evaluation_is_trained_on(dataset, seed):
    """An evaluation draws with the plan's seed as it is, which people choose small; a training never uses that seed."""
    plan = Strategy("2-way", support=4, seed=seed).plan()
    assert plan.seed != seed
    evaluated = sample_episodes(dataset, dataclasses.replace(plan, seed=seed, episodes=40)).episodes
    shown = {frozenset(turn.item for turn in episode.support) for episode in evaluated}
    trained = lessons(dataset, 40, kind="2-way", seed=seed)
    assert not shown & {frozenset(turn.item for turn in lesson.support) for lesson in trained}


def test_every_class_is_first_equally_often():
    order = [nth("abcde", i, "test") for i in range(50)]
    assert all(sorted(order[i : i + 5]) == list("abcde") for i in range(0, 50, 5))
    assert len({tuple(order[i : i + 5]) for i in range(0, 50, 5)}) > 3


def test_names_of_the_paper_are_letters_for_one_class_and_real_for_the_others(dataset):
    real = set(dataset.names().values())
    for lesson in lessons(dataset, 40, names="lcl", ways=3):
        named = {turn.class_id: turn.answer for turn in lesson.support}
        new = [name for name in named.values() if name not in real]
        assert len(new) == 1
        assert new[0].isalpha() and new[0].islower() and 1 <= len(new[0]) <= 10
        assert all(named[q.class_id] == q.answer for q in lesson.queries)


def test_our_names_are_all_new(dataset):
    real = set(dataset.names().values())
    told = [turn.answer for lesson in lessons(dataset, 40) for turn in lesson.support]
    assert not real & set(told)


def test_negatives_come_from_the_neighbours_by_the_rule(dataset):
    classes = sorted(dataset.by_class())
    near = {c: [other for other in classes if other != c][:3] for c in classes}
    met = Counter()
    for lesson in lessons(dataset, 600, near, negatives="neighbours", rule="linear", names="lcl"):
        real = {turn.class_id for turn in lesson.support if turn.answer == dataset.names()[turn.class_id]}
        (negative,) = real
        (first,) = {turn.class_id for turn in lesson.support} - real
        met[near[first].index(negative)] += 1
    assert [met[j] / 600 for j in range(3)] == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=0.08)


def test_the_manifests_own_neighbours_serve_without_a_file(dataset):
    own = {item.class_id: set(item.facts["neighbours"]) for item in dataset.items}
    for lesson in lessons(dataset, 20, negatives="neighbours"):
        a, b = {turn.class_id for turn in lesson.support}
        assert b in own[a]


def test_questions_come_from_the_file_and_only_for_queries(dataset, tmp_path):
    (tmp_path / "ask.txt").write_text("Which one?\n\n What now? \n")
    questions = read_questions(tmp_path / "ask.txt")
    assert questions == ("Which one?", "What now?")
    found = lessons(dataset, 30, questions=questions, queries=3)
    assert {q.question for lesson in found for q in lesson.queries} == set(questions)
    assert {turn.question for lesson in found for turn in lesson.support} == {""}
    (tmp_path / "none.txt").write_text("\n \n\u200b\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no question"):
        read_questions(tmp_path / "none.txt")


def test_a_lesson_depends_on_its_number_alone_and_another_seed_gives_others(dataset):
    made = Lessons.of(dataset, Strategy(support=4))
    assert [made.lesson(i) for i in (5, 3)] == [lessons(dataset, 6)[i] for i in (5, 3)]
    assert lessons(dataset, 5) != lessons(dataset, 5, seed=1)


def test_what_cannot_be_drawn_is_a_sentence(dataset):
    with pytest.raises(InputError, match=r"9 of 10 pictures|8 of 10 pictures needed"):
        lessons(dataset, 1, support=18)
    with pytest.raises(InputError, match="--support 1"):
        lessons(dataset, 1, support=1)
    with pytest.raises(InputError, match="no picture is in the split"):
        lessons(dataset, 1, split="train")
    thin = dataclasses.replace(
        dataset, items=tuple(i for i in dataset.items if i.class_id in sorted(dataset.names())[:1])
    )
    with pytest.raises(InputError, match="usable classes: 1"):
        lessons(thin, 1)
