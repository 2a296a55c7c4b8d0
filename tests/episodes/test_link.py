import itertools
import math
import multiprocessing
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import _classes, copy_first, copy_last, draw_episode, sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.pool import LeftOut, _class_pool, _least_loss, by_rule, has_enough, open_pool
from linkcontext.errors import InputError
from linkcontext.jsonl import to_json
from linkcontext.records import Candidate, Episode, Item, Turn

SMALL = EpisodePlan(shots_per_class=(0, 1, 3), episodes=12)


def picture(class_id, number, **changes):
    item_id = f"{class_id}/{number:02d}.png"
    return replace(Item(item_id, item_id, class_id, f"the {class_id}", f"content of {item_id}"), **changes)


def dataset(*items):
    return Dataset(Path("pictures"), items)


def zoo(classes=6, pictures=9):
    """Every class names the next ones as its neighbours, in a circle."""
    ids = [f"class{letter}" for letter in "abcdefghijkl"[:classes]]
    near = {class_id: [*ids[place + 1 :], *ids[:place]] for place, class_id in enumerate(ids)}
    return dataset(*(picture(c, n, facts={"neighbours": near[c]}) for c in ids for n in range(pictures)))


def contents(items, turns):
    by_id = {item.id: item.sha256 for item in items}
    return [by_id[turn.item] for turn in turns]


# By hand


def test_an_episode_by_hand():
    owls_and_cats = dataset(*(picture(c, n) for c in ("cat", "owl") for n in range(2)))
    plan = EpisodePlan(shots_per_class=(1, 0), episodes=1, names="swapped")
    (episode,) = sample_episodes(owls_and_cats, plan).episodes
    # A change here re-draws every episode that was ever reported.
    assert episode == Episode(
        id="e00000",
        task="link",
        names="swapped",
        ways=2,
        shots_per_class=(0, 1),
        candidates=(Candidate("owl", "the cat", "the owl"), Candidate("cat", "the owl", "the cat")),
        support=(Turn("cat/00.png", "cat", "the owl"), Turn("owl/00.png", "owl", "the cat")),
        queries=(Turn("owl/01.png", "owl", "the cat"), Turn("cat/01.png", "cat", "the owl")),
    )


def test_a_query_is_answered_with_the_name_shown():
    episode = sample_episodes(zoo(), replace(SMALL, ways=3, queries=6)).episodes[4]
    names = {candidate.class_id: candidate.name for candidate in episode.candidates}
    assert (episode.id, episode.task, episode.names, episode.ways) == ("e00004", "link", "pseudo", 3)
    assert episode.shots_per_class == (0, 1, 3)
    assert len(episode.support) == 9 and len(episode.queries) == 6 and len(names) == 3
    assert all(turn.answer == names[turn.class_id] for turn in (*episode.support, *episode.queries))
    assert all(turn.item.startswith(turn.class_id + "/") for turn in (*episode.support, *episode.queries))
    assert [c.name for c in episode.candidates] == sorted(names.values())
    assert all(c.truth == f"the {c.class_id}" for c in episode.candidates)


def test_shuffled_episodes_are_one_for_each_shot_count():
    episodes = sample_episodes(zoo(), replace(SMALL, order="shuffled", episodes=2)).episodes
    assert [e.id for e in episodes] == [f"e0000{index}-k{shots}" for index in range(2) for shots in ("00", "01", "03")]
    assert [e.shots_per_class for e in episodes[:3]] == [(0,), (1,), (3,)]
    assert [len(e.support) for e in episodes[:3]] == [0, 2, 6]
    assert episodes[0].task == "link-shuffled"
    assert {e.queries for e in episodes[:3]} == {episodes[0].queries}
    assert {e.candidates for e in episodes[:3]} == {episodes[0].candidates}
    drawn_anew = sample_episodes(zoo(), replace(SMALL, order="shuffled", episodes=40, shots_per_class=(1, 2))).episodes
    pairs = [(e, f) for e, f in itertools.pairwise(drawn_anew) if e.queries == f.queries]
    assert len(pairs) == 40
    assert sum(set(e.support) <= set(f.support) for e, f in pairs) < 20


def test_false_labels_mislead_their_share_and_the_same_turns_first():
    data = zoo(6, 9)
    plans = [replace(SMALL, ways=3, episodes=200, false_labels=share) for share in (0.0, 0.3, 1.0)]
    true, some, all_false = (sample_episodes(data, plan).episodes for plan in plans)
    assert {e.task for e in some} == {"link-false-0.3"}
    misled = 0
    for a, b, c in zip(true, some, all_false, strict=True):
        assert (a.queries, a.candidates) == (b.queries, b.candidates) == (c.queries, c.candidates)
        shown = {candidate.class_id: candidate.name for candidate in a.candidates}
        for right, maybe, wrong in zip(a.support, b.support, c.support, strict=True):
            assert maybe in (right, wrong)  # a larger share misleads the same turns in the same way
            assert wrong.item == right.item
            assert wrong.class_id != right.class_id
            assert wrong.answer == shown[wrong.class_id]
            misled += maybe == wrong
    assert misled / (200 * 9) == pytest.approx(0.3, abs=0.04)
    others = Counter(
        (e.candidates.index(next(c for c in e.candidates if c.class_id == t.class_id)))
        for e in all_false
        for t in e.support
    )
    assert max(others.values()) - min(others.values()) < 100  # of 600 each: no name is told more often


def test_policies_by_hand():
    shown = (Turn("1", "owl", "x"), Turn("2", "cat", "y"), Turn("3", "cat", "y"))
    assert (copy_first(shown), copy_last(shown)) == ("owl", "cat")
    assert (copy_first(()), copy_last(())) == (None, None)


def test_classes_with_too_few_pictures_are_left_out_and_listed():
    items = [picture(c, n) for c, count in (("cat", 4), ("elk", 3), ("owl", 9)) for n in range(count)]
    items.append(picture("elk", 7, sha256=items[5].sha256))  # a copy makes no fourth picture
    sampled = sample_episodes(dataset(*items), SMALL)
    assert sampled.left_out == (LeftOut("elk", 3, "3 of 4 pictures needed"),)
    assert {t.class_id for e in sampled.episodes for t in e.queries} == {"cat", "owl"}


def test_pictures_that_two_classes_claim_are_never_used():
    both = {"sha256": "the same"}
    items = [picture(c, n) for c in ("cat", "owl") for n in range(5)]
    disputed = (picture("cat", 7, **both), picture("owl", 8, **both))
    sampled = sample_episodes(dataset(*items, *disputed), replace(SMALL, episodes=60))
    assert sampled.disputed == ("cat/07.png", "owl/08.png")
    used = {t.item for e in sampled.episodes for t in (*e.support, *e.queries)}
    assert used == {item.id for item in items}


@pytest.mark.parametrize("names", ["real", "pseudo", "random", "swapped"])
def test_equal_names_never_meet_and_names_within_names_do(names):
    called = {"a": "Mole", "b": " mole", "c": "Ｍｏｌｅ", "d": "mole rat"}
    items = [picture(c, n, name=name) for c, name in called.items() for n in range(4)]
    episodes = sample_episodes(dataset(*items), replace(SMALL, names=names, episodes=60)).episodes
    met = {frozenset(c.class_id for c in e.candidates) for e in episodes}
    assert met == {frozenset("ad"), frozenset("bd"), frozenset("cd")}


def test_one_content_under_two_classes_of_one_name_is_not_disputed():
    called = {"a": "mole", "b": "Mole", "c": "owl"}
    items = [picture(c, n, name=name, sha256=f"{name.lower()} {n}") for c, name in called.items() for n in range(4)]
    assert sample_episodes(dataset(*items), SMALL).disputed == ()


def test_nearest_usable_neighbours_are_taken_in_their_order():
    items = [picture(c, n, name="elk" if c in "df" else c) for c in "abcdef" for n in range(4)]
    items += [picture("g", 0)]  # too few
    near = {"a": ["g", "nowhere", "d", "f", "c", "b"], "b": ["a", "g"], "c": ["b", "a"], "e": ["e", "a", "b"]}
    plan = replace(SMALL, ways=3, negatives="neighbours", episodes=30)
    sampled = sample_episodes(dataset(*items), plan, near)
    met = {frozenset(c.class_id for c in e.candidates) for e in sampled.episodes}
    assert met == {frozenset("adc"), frozenset("cba"), frozenset("eab")}
    assert {e.task for e in sampled.episodes} == {"link-neighbours"}
    assert [(out.class_id, out.shortfall) for out in sampled.left_out] == [
        ("g", "1 of 4 pictures needed"),
        ("b", "1 of 2 usable neighbours needed; it is only ever a negative"),
        ("d", "0 of 2 usable neighbours needed; it is only ever a negative"),
        ("f", "0 of 2 usable neighbours needed; it is only ever a negative"),
    ]


@pytest.mark.parametrize("bearer", [None, "/00.png", "/08.png"], ids=["all pictures", "first", "last"])
def test_neighbours_come_from_the_facts_when_none_are_given(bearer):
    plan = replace(SMALL, negatives="neighbours")
    bare = (i if bearer is None or i.id.endswith(bearer) else replace(i, facts={}) for i in zoo(4).items)
    data = dataset(*bare)
    met = {frozenset(c.class_id for c in e.candidates) for e in sample_episodes(data, plan).episodes}
    ids = ["classa", "classb", "classc", "classd"]
    assert met == {frozenset(pair) for pair in [*itertools.pairwise(ids), (ids[3], ids[0])]}


def test_neighbours_are_drawn_with_the_weights_of_the_rule():
    def shares(count, rule):
        near = [str(i) for i in range(count)]
        found = Counter(by_rule(near, rule, "test", i)[0] for i in range(6000))
        return [found[name] / 6000 for name in near]

    assert shares(3, "nearest") == [1, 0, 0]
    assert shares(3, "topk") == pytest.approx([1 / 3] * 3, abs=0.02)
    assert shares(3, "linear") == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=0.02)
    code = shares(36, "intervals")
    assert code[0] == pytest.approx(0.054, abs=0.012)
    assert sum(code[18:]) == pytest.approx(0.257, abs=0.02)
    assert sorted(by_rule("abcdefgh", "linear", "x")) == list("abcdefgh")
    second = Counter(by_rule("abc", "linear", i)[1] for i in range(6000))
    assert second["a"] / 6000 == pytest.approx(1 / 3 * 3 / 4 + 1 / 6 * 3 / 5, abs=0.02)


def test_negatives_are_drawn_for_each_episode_and_of_two_with_one_name_the_first_drawn():
    items = [picture(c, n, name="elk" if c in "de" else c) for c in "abcde" for n in range(4)]
    near = {"a": ["b", "gone", "c", "d", "e"]}
    plan = replace(SMALL, negatives="neighbours", rule="linear", episodes=1500)
    episodes = sample_episodes(dataset(*items), plan, near).episodes
    met = Counter(c.class_id for e in episodes for c in e.candidates)
    assert [met[c] / 1500 for c in "bcde"] == pytest.approx([4 / 10, 3 / 10, 2 / 10, 1 / 10], abs=0.05)
    assert sample_episodes(dataset(*items), replace(plan, episodes=20), near).episodes == episodes[:20]
    assert {e.task for e in episodes} == {"link-neighbours"}
    more = sample_episodes(dataset(*items), replace(plan, ways=4, episodes=60), near).episodes
    assert {frozenset(c.class_id for c in e.candidates) for e in more} == {frozenset("abcd"), frozenset("abce")}
    with pytest.raises(InputError, match=r"a \(3 of 4 usable neighbours needed; it is only ever a negative"):
        sample_episodes(dataset(*items), replace(plan, ways=5), near)


# Bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"queries": 3},
            "3 queries for 2 ways: every class must be queried equally often. Give a multiple of 2.",
        ),
        (
            {"queries": 0},
            "0 queries for 2 ways: every class must be queried equally often. Give a multiple of 2.",
        ),
        ({"ways": 1}, "ways=1, episodes=12: give at least 2 ways and 1 episode."),
        ({"episodes": 0}, "ways=2, episodes=0: give at least 2 ways and 1 episode."),
        ({"shots_per_class": ()}, "shots_per_class (): give one or more different numbers, none below 0."),
        (
            {"shots_per_class": (-1,)},
            "shots_per_class (-1,): give one or more different numbers, none below 0.",
        ),
        (
            {"shots_per_class": (2, 2)},
            "shots_per_class (2, 2): give one or more different numbers, none below 0.",
        ),
        ({"names": "true"}, "'true' is not one of real, pseudo, random, swapped."),
        ({"rule": "far"}, "'far' is not one of nearest, topk, linear, intervals."),
        ({"order": "sorted"}, "'sorted' is not one of rounds, shuffled."),
        ({"query_split": "tset"}, "pictures: no picture is in the split 'tset'; the splits are ''."),
        ({"groups_apart": True}, "pictures: no picture has a group, so groups cannot be kept apart."),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(changes, sentence):
    with pytest.raises(InputError) as error:
        sample_episodes(zoo(), replace(SMALL, **changes))
    assert str(error.value) == sentence


def test_too_few_usable_classes_list_the_first_and_count_the_rest():
    items = [picture(c, n) for c in "abcdefgh" for n in range(2)] + [picture("z", n) for n in range(4)]
    with pytest.raises(InputError) as error:
        sample_episodes(dataset(*items), SMALL)
    few = ", ".join(f"{class_id} (2 of 4 pictures needed)" for class_id in "abcde")
    assert str(error.value) == (
        "pictures: usable classes: 1; an episode needs 2 with different names. "
        f"Left out: {few} and 3 more. "
        "Add pictures or classes, or ask for fewer: --ways, --shots-per-class."
    )


@pytest.mark.parametrize("items", [[], [picture("a", n) for n in range(9)]], ids=["none", "one class"])
def test_no_second_class_is_one_sentence(items):
    with pytest.raises(InputError, match=r"^pictures: usable classes: [01]; an episode needs 2 .* Add pictures"):
        sample_episodes(dataset(*items), SMALL)


def test_neighbours_must_be_known():
    items = dataset(*(picture(c, n) for c in "ab" for n in range(4)))
    plan = replace(SMALL, negatives="neighbours")
    with pytest.raises(InputError, match=r"Run `linkcontext mine`, or give --neighbours\.$"):
        sample_episodes(items, plan)
    with pytest.raises(InputError, match=r"a \(0 of 1 usable neighbours needed; it is only ever a negative"):
        sample_episodes(items, plan, {"a": ["elsewhere"]})
    wrong = dataset(*items.items, picture("c", 0, facts={"neighbours": "ab"}))
    with pytest.raises(InputError, match=r"pictures: c/00\.png: the fact `neighbours` must be a list of class ids"):
        sample_episodes(wrong, plan)


# By oracle


def blind_policies(episode, shots_per_class):
    """The class id each policy answers to every query, None where there is nothing to go by."""
    shown = episode.shown(shots_per_class)
    counts = Counter(turn.class_id for turn in shown)
    yield copy_first(shown)
    yield copy_last(shown)
    yield counts.most_common(1)[0][0] if counts else None
    yield episode.candidates[0].class_id  # alphabetically first
    yield min(candidate.class_id for candidate in episode.candidates)  # one and the same class where it can
    yield max(episode.candidates, key=lambda c: (len(c.name), c.name)).class_id


@pytest.mark.parametrize("order", ["rounds", "shuffled"])
@pytest.mark.parametrize("names", ["real", "pseudo", "random", "swapped"])
@pytest.mark.parametrize("negatives", ["random", "neighbours"])
@pytest.mark.parametrize("ways", [2, 3, 4, 5])
def test_blind_policies_are_exactly_at_chance_in_every_episode(ways, negatives, names, order):
    plan = replace(SMALL, ways=ways, queries=2 * ways, negatives=negatives, names=names, order=order)
    for episode in sample_episodes(zoo(), plan).episodes:
        for shots in episode.shots_per_class:
            answers = list(blind_policies(episode, shots))
            assert (None in answers) == (shots == 0)
            for answer in answers:
                right = sum(query.class_id == answer for query in episode.queries)
                assert right * ways == (0 if answer is None else len(episode.queries))


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=6), st.integers(0, 6))
def test_least_loss_equals_trying_every_choice(supply, queries):
    choices = itertools.chain.from_iterable(itertools.combinations(supply, n) for n in range(len(supply) + 1))
    losses = [sum(s for s, _ in choice) for choice in choices if sum(q for _, q in choice) >= queries]
    assert _least_loss(supply, queries) == min(losses, default=math.inf)


pictures = st.tuples(st.integers(0, 5), st.sampled_from(["", "x", "y", "z"]), st.sampled_from(["in", "out"]))


@settings(max_examples=120, deadline=None)
@given(
    drawn=st.lists(pictures, min_size=1, max_size=7),
    splits=st.sampled_from([(None, None), ("in", "out"), ("in", None), (None, "in")]),
    shots=st.integers(0, 3),
    queries=st.integers(1, 3),
    apart=st.booleans(),
)
def test_a_class_is_usable_when_some_choice_works_and_then_one_is_drawn(drawn, splits, shots, queries, apart):
    items = [
        picture("a", n, sha256=f"a{content}", group=group, split=split)
        for n, (content, group, split) in enumerate(drawn)
    ]
    other = [picture("b", n, group=f"{n}", split=s) for n, s in enumerate(["in", "out"] * 6)]
    present = {item.split for item in items} | {"in", "out"}
    assume(set(splits) - {None} <= present)
    plan = EpisodePlan(2, (shots,), 8, 2 * queries, support_split=splits[0], query_split=splits[1], groups_apart=apart)
    class_pool = _class_pool(plan, "a", "a", items, set())
    assert has_enough(class_pool, plan, set()) == some_choice_works(items, plan, shots, queries, apart)
    if has_enough(class_pool, plan, set()):
        assert_apart([*items, *other], plan, shots, queries)


def some_choice_works(items, plan, shots, queries, apart):
    """Try every set of query pictures, given that all pictures of what they touch are lost to the support."""
    asked = {i.sha256: i for i in reversed(items) if plan.query_split in (None, i.split)}.values()
    shown = {i.sha256: i for i in reversed(items) if plan.support_split in (None, i.split)}.values()
    for chosen in itertools.combinations(asked, queries):
        touched = spread({item.sha256 for item in chosen}, items) if apart else {i.sha256 for i in chosen}
        if sum(item.sha256 not in touched for item in shown) >= shots:
            return True
    return False


def spread(touched, items):
    """All contents that hang together with these by groups and copies."""
    while True:
        groups = {item.group for item in items if item.sha256 in touched}
        wider = {item.sha256 for item in items if item.group in groups}
        if wider == touched:
            return touched
        touched = wider


def assert_apart(items, plan, shots, queries):
    by_id = {item.id: item for item in items}
    for episode in sample_episodes(dataset(*items), plan).episodes:
        held, asked = ([by_id[t.item] for t in side] for side in (episode.support, episode.queries))
        assert Counter(i.class_id for i in held) == {c: shots for c in "ab" if shots}
        assert Counter(i.class_id for i in asked) == dict.fromkeys("ab", queries)
        assert len({i.sha256 for i in (*held, *asked)}) == 2 * (shots + queries)  # no content twice
        assert all(plan.support_split in (None, i.split) for i in held)
        assert all(plan.query_split in (None, i.split) for i in asked)
        if plan.groups_apart:
            assert not {(i.class_id, i.group) for i in held} & {(i.class_id, i.group) for i in asked}


def test_pictures_are_drawn_uniformly():
    data = dataset(*(picture(c, n) for c in "ab" for n in range(4)))
    episodes = sample_episodes(data, EpisodePlan(shots_per_class=(2,), episodes=1000)).episodes
    for turns in ([t for e in episodes for t in e.queries], [t for e in episodes for t in e.support[:2]]):
        counts = Counter(turn.item for turn in turns)
        assert len(counts) == 8
        assert all(abs(count - 250) < 65 for count in counts.values())  # 4.7 standard deviations
    firsts = Counter(e.support[0].class_id for e in episodes)
    assert abs(firsts["a"] - 500) < 70  # 4.4 standard deviations


@pytest.mark.parametrize("order", ["rounds", "shuffled"])
def test_every_order_of_the_classes_is_equally_likely(order):
    plan = EpisodePlan(3, (2,), 600, order=order, seed=1)
    episodes = sample_episodes(zoo(3), plan).episodes
    orders = [Counter(tuple(t.class_id for t in e.queries) for e in episodes)]
    if order == "rounds":
        orders += [Counter(tuple(t.class_id for t in e.support[at : at + 3]) for e in episodes) for at in (0, 3)]
        same = sum(first == second for first, second in (halves(e.support) for e in episodes))
        assert abs(same - 100) < 45  # one round says nothing about the next
    for counts in orders:
        assert len(counts) == 6
        assert all(abs(count - 100) < 45 for count in counts.values())  # 4.9 standard deviations
    sequences = Counter(tuple(t.class_id for t in e.support) for e in episodes)
    assert len(sequences) <= 36 if order == "rounds" else 85 <= len(sequences) <= 90  # 6! / 2!^3 shuffles
    queried_as_shown = sum(e.queries[0].class_id == e.support[0].class_id for e in episodes)
    assert abs(queried_as_shown - 200) < 55  # 4.8 standard deviations


def halves(support):
    classes = [turn.class_id for turn in support]
    return classes[:3], classes[3:]


def test_the_first_class_is_not_the_first_queried():
    plan = replace(SMALL, negatives="neighbours", episodes=400)
    pool = open_pool(zoo(), plan)
    same = sum(draw_episode(pool, i)[0].queries[0].class_id == _classes(pool, i)[0].class_id for i in range(400))
    assert abs(same - 200) < 45  # 4.5 standard deviations


def test_random_negatives_are_every_set_of_classes_equally_often():
    episodes = sample_episodes(zoo(6, 2), EpisodePlan(3, (1,), 600)).episodes
    met = Counter(frozenset(c.class_id for c in e.candidates) for e in episodes)
    assert len(met) == 20
    assert all(abs(count - 30) < 25 for count in met.values())  # 4.7 standard deviations


def test_one_class_s_pictures_say_nothing_about_another_s():
    episodes = sample_episodes(zoo(2, 9), EpisodePlan(shots_per_class=(1,), episodes=400)).episodes
    for turns in ([e.support for e in episodes], [e.queries for e in episodes]):
        same = sum(one.item[-6:] == two.item[-6:] for one, two in turns)
        assert abs(same - 400 / 9) < 30  # 4.8 standard deviations


# By invariance


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_every_whole_round_is_balanced_and_no_content_comes_twice(ways):
    data = zoo()
    for episode in sample_episodes(data, replace(SMALL, ways=ways, shots_per_class=(7,), queries=2 * ways)).episodes:
        for shots in range(8):
            counts = Counter(turn.class_id for turn in episode.shown(shots))
            assert set(counts.values()) <= {shots} and len(counts) == (ways if shots else 0)
        drawn = contents(data.items, (*episode.support, *episode.queries))
        assert len(drawn) == len(set(drawn)) == 9 * ways


def test_more_shots_only_lengthen_the_support():
    few = sample_episodes(zoo(), replace(SMALL, shots_per_class=(0, 2))).episodes
    many = sample_episodes(zoo(), replace(SMALL, shots_per_class=(8, 2))).episodes
    assert {e.shots_per_class for e in many} == {(2, 8)}
    assert [(e.queries, e.candidates, e.support) for e in few] == [(e.queries, e.candidates, e.shown(2)) for e in many]


def test_names_change_nothing_but_names():
    unnamed = {
        names: [
            ([t.item for t in (*e.support, *e.queries)])
            for e in sample_episodes(zoo(), replace(SMALL, names=names)).episodes
        ]
        for names in ("real", "pseudo", "random", "swapped")
    }
    assert unnamed["real"] == unnamed["pseudo"] == unnamed["random"] == unnamed["swapped"]


def test_swapped_names_are_real_names_of_others():
    for episode in sample_episodes(zoo(), replace(SMALL, ways=4, names="swapped")).episodes:
        shown = {c.name for c in episode.candidates}
        assert shown == {c.truth for c in episode.candidates} == {f"the {c.class_id}" for c in episode.candidates}
        assert all(c.name != c.truth for c in episode.candidates)


def test_pseudo_words_are_no_words_of_real_names():
    plain = sample_episodes(zoo(), SMALL).episodes
    stolen = [candidate.name for episode in plain for candidate in episode.candidates]
    items = [replace(item, name=item.name + " " + " ".join(stolen).upper()) for item in zoo().items]
    again = sample_episodes(dataset(*items), SMALL).episodes
    assert not {c.name for e in again for c in e.candidates}.intersection(stolen)


@pytest.mark.parametrize("negatives", ["random", "neighbours"])
def test_every_class_is_first_equally_often_up_to_one(negatives):
    pool = open_pool(zoo(6), replace(SMALL, negatives=negatives))
    firsts = [_classes(pool, index)[0].class_id for index in range(20)]
    assert set(Counter(firsts[:18]).values()) == {3}
    assert set(Counter(firsts).values()) == {3, 4}
    assert len({tuple(firsts[start : start + 6]) for start in (0, 6, 12)}) == 3  # an order for each block


def test_the_order_of_the_data_set_and_the_number_of_episodes_change_nothing():
    episodes = sample_episodes(zoo(), SMALL).episodes
    assert sample_episodes(dataset(*reversed(zoo().items)), SMALL).episodes == episodes
    assert sample_episodes(zoo(), replace(SMALL, episodes=5)).episodes == episodes[:5]
    assert sample_episodes(zoo(), replace(SMALL, seed=1)).episodes != episodes
    pool = open_pool(zoo(), SMALL)
    assert [draw_episode(pool, index)[0] for index in reversed(range(12))] == [*reversed(episodes)]


def lines_of(plan, index):
    """A process of its own opens the data by itself and writes one episode."""
    return "".join(to_json(episode) + "\n" for episode in draw_episode(open_pool(zoo(), plan), index))


def test_one_process_and_three_write_the_same_bytes():
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        for plan in (SMALL, replace(SMALL, order="shuffled", names="random", negatives="neighbours")):
            alone = "".join(to_json(episode) + "\n" for episode in sample_episodes(zoo(), plan).episodes)
            together = "".join(processes.map(partial(lines_of, plan), range(plan.episodes), chunksize=1))
            assert together.encode() == alone.encode()
