"""Conversations that share a sense: by hand, and what must hold for all of them."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.annotations import Subject, subjects
from linkcontext.episodes.link import copy_first, copy_last, sample_episodes
from linkcontext.episodes.plan import LETTERS, EpisodePlan, TaskPlan
from linkcontext.episodes.questions import TaskSampler, with_letters
from linkcontext.errors import InputError
from linkcontext.jsonl import from_dict, to_json
from linkcontext.records import Item, Question

COLOURS = ("red", "green", "blue")
STYLES = ("red, big", "big and red")


def gallery(count=72):
    """Pictures with a shared subject each (colour, size), an own one (caption) and an invented one (rule)."""
    items = []
    for n in range(count):
        colour, size = COLOURS[n % 3], ("big", "small")[n // 3 % 2]
        texts = (f"{colour}, {size}", f"{size} and {colour}")
        asked = (
            Question("attribute", "colour", "What colour?", colour, COLOURS),
            Question("attribute", "size", "What size?", size, ("big", "small")),
            Question("caption", "brief", "Describe.", texts[0], texts),
            Question("caption", "long", "Describe.", texts[1], texts),
            Question("rule", "by colour", "What is this?", colour),
        )
        items.append(Item(f"{n:03d}.png", f"{n:03d}.png", "picture", "picture", f"{n:064d}", questions=asked))
    return Dataset(Path("gallery"), tuple(items))


def talks(data=None, **changes):
    return TaskSampler.of(data or gallery(), replace(TaskPlan(shots=(0, 2, 6), episodes=60), **changes))


def told(episode, data):
    """What each turn's picture truly answers, by concept."""
    facts = {item.id: {q.concept: q.answer for q in item.questions} for item in data.items}
    return [facts[turn.item] for turn in episode.support], [facts[turn.item] for turn in episode.queries]


def test_subjects_are_known_by_where_their_candidates_come_from():
    kinds = {subject.name: subject.kind for (subject,) in talks().subjects}
    assert kinds == {
        "attribute/colour": "shared",
        "attribute/size": "shared",
        "caption/brief": "own",
        "caption/long": "own",
        "rule/by colour": "invented",
    }


def test_why_a_subject_cannot_be_asked():
    data = gallery()

    def left_out(changed, **plan):
        items = tuple(replace(i, questions=tuple(map(changed, i.questions))) for i in data.items)
        return {left.class_id: left.shortfall for left in talks(replace(data, items=items), **plan).left_out}

    def some_without(question):  # of one subject, some questions with candidates and some without
        return replace(question, candidates=()) if question.answer == "red, big" else question

    assert left_out(some_without) == {"caption/brief": "some of its questions have candidates, and some none"}
    apart = replace(data, items=tuple(replace(item, split="a") for item in data.items))
    with pytest.raises(InputError, match="attribute/colour: no query is about it"):
        talks(apart, support_split="a", query_split="b")

    def many(question):
        return (
            replace(question, candidates=(*question.candidates, *"abcdefgh"))
            if question.task == "caption"
            else question
        )

    assert not left_out(many)
    assert set(left_out(many, form="choice")) == {"caption/brief", "caption/long"}
    with pytest.raises(InputError, match="10 options, but there are only 8 letters"):
        left_out(many, form="choice", tasks=("caption",))


def test_an_open_episode_of_a_shared_subject():
    data = gallery()
    for episode in talks(data, tasks=("attribute/colour",), options=2).episodes():
        options = [candidate.name for candidate in episode.candidates]
        assert len(options) == 2
        supports, queries = told(episode, data)
        assert [turn.answer for turn in episode.support] == [fact["colour"] for fact in supports]
        assert Counter(fact["colour"] for fact in queries) == dict.fromkeys(options, 1)
        assert {turn.answer for turn in episode.support} <= set(options)
        assert episode.task == "attribute/colour open"
        assert (episode.ways, episode.shots_per_class, episode.names) == (1, (0, 2, 6), "real")


def test_invented_answers_are_new_names_for_the_same_thing():
    data = gallery()
    for episode in talks(data, tasks=("rule",)).episodes():
        shown = {candidate.truth: candidate.name for candidate in episode.candidates}
        assert set(shown) == set(COLOURS)
        assert not set(shown.values()) & set(COLOURS)
        supports, _ = told(episode, data)
        assert [turn.answer for turn in episode.support] == [shown[fact["by colour"]] for fact in supports]


def test_own_candidates_are_those_of_the_query():
    for episode in talks(tasks=("caption/long",)).episodes():
        (query,) = episode.queries
        assert query.answer in {candidate.name for candidate in episode.candidates}
        assert all(" and " in turn.answer for turn in (*episode.support, query))


def letters_of(turn):
    question, _, listed = turn.question.removesuffix(" Answer with the option's letter.").partition("A. ")
    options = f"A. {listed}"
    found = {}
    for letter in LETTERS:
        _, mark, rest = options.partition(f"{letter}. ")
        if mark:
            found[letter] = rest.split(f" {LETTERS[LETTERS.index(letter) + 1]}. ")[0]
    return question, found


@pytest.mark.parametrize("task", ["attribute", "caption", "rule"])
def test_a_choice_names_the_right_letter(task):
    data = gallery()
    plain = talks(data, tasks=(task,), form="open").episodes()
    for episode in talks(data, tasks=(task,), form="choice").episodes():
        concept = episode.task.split("/")[1].removesuffix(" choice")
        supports, queries = told(episode, data)
        for turn, fact in zip((*episode.support, *episode.queries), (*supports, *queries), strict=True):
            _, options = letters_of(turn)
            assert len(set(options.values())) == len(options) == len(episode.candidates)
            if task != "rule":  # whose names are invented
                assert options[turn.answer] == fact[concept]
        assert Counter(turn.answer for turn in episode.queries) == dict.fromkeys(
            [c.name for c in episode.candidates], 1
        )
    assert [e.id for e in plain] == [f"e{n:05d}" for n in range(60)]


@pytest.mark.parametrize("form", ["open", "choice"])
def test_what_is_seen_can_be_said_instead(form):
    shown, said = (talks(tasks=("attribute", "rule"), form=form, text_only=text).episodes() for text in (False, True))
    for one, other in zip(shown, said, strict=True):
        assert other.candidates == one.candidates
        pairs = zip((*one.support, *one.queries), (*other.support, *other.queries), strict=True)
        for seen, told in pairs:
            right = letters_of(seen)[1][seen.answer] if form == "choice" else seen.answer
            assert (told.item, told.answer) == ("", seen.answer)
            assert told.question == f"It is {right}. {seen.question}"


@pytest.mark.parametrize("form", ["open", "choice", "mixed"])
@pytest.mark.parametrize("coherence", ["concept", "task", "none"])
def test_blind_policies_are_at_chance_and_no_picture_comes_twice(form, coherence):
    for episode in talks(form=form, coherence=coherence).episodes():
        seen = [turn.item for turn in (*episode.support, *episode.queries)]
        assert len(set(seen)) == len(seen)
        if len(episode.queries) == 1:
            continue
        for k in episode.shots_per_class:
            shown = episode.shown(k)
            assert len(shown) == k
            for answer in (copy_first(shown), copy_last(shown), *(c.class_id for c in episode.candidates)):
                hits = sum(query.class_id == answer for query in episode.queries)
                known = answer in {c.class_id for c in episode.candidates}
                assert hits * len(episode.candidates) == (len(episode.queries) if known else 0)


def test_coherence_says_what_a_support_is_about():
    def subjects(coherence):
        data = gallery()
        asked = {q.question: (q.task, q.concept) for item in data.items for q in item.questions if q.task != "caption"}
        episodes = talks(data, coherence=coherence, tasks=("attribute",)).episodes()
        return [({asked.get(t.question, ("caption", "")) for t in e.support}, e.task) for e in episodes]

    assert all(len(found) == 1 for found, _ in subjects("concept"))
    task = subjects("task")
    assert {t for found, _ in task for t, _ in found} == {"attribute"}
    assert any(len(found) == 2 for found, _ in task)
    assert any(t != "attribute" for found, _ in subjects("none") for t, _ in found)
    assert all(name.endswith(" task-coherent") for _, name in task)
    captions = talks(form="caption", coherence="none").episodes()
    assert {t.question for e in captions for t in (*e.support, *e.queries)} == {"Describe."}


def test_options_right_answers_and_supports_are_drawn_evenly():
    episodes = talks(tasks=("attribute/colour",), form="choice", options=3, episodes=300).episodes()
    first = Counter(episode.support[0].answer for episode in episodes)
    asked = Counter(episode.queries[0].answer for episode in episodes)
    assert set(first) == set(asked) == set("ABC")
    assert max(abs(n - 100) for n in (*first.values(), *asked.values())) < 35


def test_an_episode_is_a_function_of_the_plan_the_data_and_its_number():
    data = gallery()
    mixed = replace(data, items=data.items[::-1])
    assert talks(data).episodes() == talks(mixed).episodes()
    assert talks(data, episodes=5).episodes() == talks(data).episodes()[:5]
    assert talks(data).episodes() != talks(data, seed=1).episodes()
    assert len(talks(data).episode(3, 5).support) == 5


def test_splits_are_kept_apart():
    data = gallery()
    items = tuple(replace(item, split=("train", "test")[n % 2]) for n, item in enumerate(data.items))
    of = {item.id: item.split for item in items}
    for episode in talks(replace(data, items=items), support_split="train", query_split="test", shots=(4,)).episodes():
        assert {of[turn.item] for turn in episode.support} == {"train"}
        assert {of[turn.item] for turn in episode.queries} == {"test"}


def test_pictures_without_questions_are_asked_what_they_are():
    items = [Item(f"{c}{n}", f"{c}{n}.png", c, c, f"{c}{n}".zfill(64)) for c in "abcd" for n in range(10)]
    episodes = talks(Dataset(Path("zoo"), tuple(items)), names="real").episodes()
    assert {episode.task for episode in episodes} == {"naming/class open"}
    assert all(turn.answer == turn.item[0] for episode in episodes for turn in episode.support)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": ("smell",)}, "--tasks smell: .* has no such task"),
        ({"options": 1}, "--options 1"),
        ({"shots": (90,)}, "no two answers have 47 pictures"),
        ({"shots": (-1,)}, "none below 0"),
        ({"form": "caption", "tasks": ("attribute",)}, "no task is a caption"),
        ({"balanced": True, "coherence": "task"}, "--balanced: not with --coherence task"),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        talks(**changes)


def test_link_episodes_with_letters():
    items = [Item(f"{c}{n}", f"{c}{n}.png", c, c, f"{c}{n}".zfill(64)) for c in "abcd" for n in range(9)]
    plan = EpisodePlan(ways=3, shots_per_class=(0, 2), episodes=20, queries=6, names="real")
    for episode in sample_episodes(Dataset(Path("zoo"), tuple(items)), plan).episodes:
        letters = with_letters(episode, "test")
        assert letters.task == "link choice"
        for turn, was in zip((*letters.support, *letters.queries), (*episode.support, *episode.queries), strict=True):
            assert turn.item == was.item
            assert letters_of(turn)[1][turn.answer] == was.answer
        assert Counter(turn.answer for turn in letters.queries) == {"A": 2, "B": 2, "C": 2}


def test_questions_survive_the_file():
    item = gallery().items[0]
    assert from_dict(Item, json.loads(to_json(item)), "here") == item


def test_what_has_too_few_pictures_is_listed():
    found = talks(gallery(31), shots=(27,))  # two colours must have 27 + 4 together, or three
    assert {subject.name for (subject,) in found.subjects} == {"caption/brief", "caption/long"}
    assert [out.class_id for out in found.left_out] == ["attribute/colour", "attribute/size", "rule/by colour"]
    assert found.left_out[0].shortfall == "no two answers have 16 pictures; the commonest has 11"


def test_an_option_that_is_used_up_comes_no_more():
    plan = {"tasks": ("attribute/colour",), "shots": (24,), "options": 3}  # all 30 pictures but three, of ten each
    for episode in talks(gallery(30), **plan).episodes():
        shown = [turn.item for turn in (*episode.support, *episode.queries)]
        assert len(set(shown)) == len(shown) == 27
        assert max(Counter(turn.answer for turn in episode.support).values()) <= 9


def test_a_balanced_support_has_every_option_once_in_a_round():
    plan = {"tasks": ("attribute/colour",), "shots": (0, 3, 6, 9), "balanced": True}
    for form in ("open", "choice"):
        orders = set()
        for episode in talks(gallery(), **plan, form=form).episodes():
            colours = [answers["colour"] for answers in told(episode, gallery())[0]]
            assert all(sorted(colours[at : at + 3]) == sorted(COLOURS) for at in (0, 3, 6))
            orders.add(tuple(colours[:3]))
            for shots in (3, 6, 9):  # blind to the query, and right by chance
                for policy in (copy_first, copy_last):
                    hits = [query.class_id == policy(episode.shown(shots)) for query in episode.queries]
                    assert sum(hits) == 1
        assert len(orders) == 6


@pytest.mark.parametrize("coherence", ["task", "none"])
def test_where_others_have_shown_all_of_a_subject_the_query_s_stands_in(coherence):
    words = [f"w{n}" for n in range(8)]
    items = []
    for n in range(24):
        own = tuple(words[(n + k) % 8] for k in range(8))
        asked = [Question("t", "own", "Which?", own[0], own)]
        asked += [Question("t", "two", "Two?", words[n % 2], ("w0", "w1"))] if n < 10 else []
        items.append(Item(f"{n}.png", f"{n}.png", "p", "p", f"{n:064d}", questions=tuple(asked)))
    plan = {"form": "choice", "coherence": coherence, "options": 2, "shots": (0, 8), "names": "real"}
    found = talks(Dataset(Path("few"), tuple(items)), **plan, episodes=400)
    assert {subject.name for (subject,) in found.subjects} == {"t/own", "t/two"}
    for episode in found.episodes():
        shown = [turn.item for turn in (*episode.support, *episode.queries)]
        assert len(set(shown)) == len(shown) == 8 + len(episode.queries)


@pytest.mark.parametrize("form", ["open", "choice"])
def test_answers_that_nothing_is_asked_about_are_no_candidates(form):
    def item(n, answers, split):
        asked = Question("t", "c", "Which?", "wxyz"[n % answers], tuple("wxyz"))
        return Item(f"{n}{split}.png", f"{n}{split}.png", "p", "p", f"{n:032d}{split:>32}", split, questions=(asked,))

    items = [item(n, 4, "support") for n in range(60)] + [item(n, 2, "query") for n in range(10)]
    plan = {"support_split": "support", "query_split": "query", "form": form, "names": "real"}
    for episode in talks(Dataset(Path("apart"), tuple(items)), **plan).episodes():
        assert len(episode.candidates) == len(episode.queries) == 2
        assert {query.class_id for query in episode.queries} == {c.class_id for c in episode.candidates}


def test_looking_for_subjects_grows_with_the_pictures_and_not_faster():
    class Counted(tuple):
        looks = 0

        def __iter__(self):
            Counted.looks += len(self)
            return super().__iter__()

    def looks(classes):
        items = [Item(f"{n}", f"{n}", f"{n % classes}", f"{n % classes}", f"{n:064d}") for n in range(20 * classes)]
        plan = TaskPlan(shots=(2,))
        (subject,) = subjects(Dataset(Path("many"), tuple(items)), plan)
        sides = ({a: Counted(found) for a, found in side.items()} for side in (subject.supports, subject.queries))
        before = Counted.looks
        assert Subject(subject.task, subject.concept, "", *sides).usable(plan)
        return Counted.looks - before

    assert looks(40) < 2.5 * looks(20)


def pairs(split, numbers):
    """Pictures, of which each is compared with itself and with the next. They are of no split, and all in both."""
    items = []
    for n in numbers:
        asked = [("yes", n), ("no", (n + 1) % len(numbers))]
        questions = [
            Question("match", "alike", "Same?", answer, others=(f"{other}.png",), split=part)
            for answer, other in asked
            for part in split
        ]
        items.append(Item(f"{n}.png", f"{n}.png", "p", "p", f"{n:064d}", questions=tuple(questions)))
    return Dataset(Path("pairs"), tuple(items))


@pytest.mark.parametrize("form", ["open", "choice"])
def test_questions_about_two_pictures(form):
    data = pairs(("support", "query"), range(9))
    plan = {"support_split": "support", "query_split": "query", "shots": (0, 8), "form": form, "names": "real"}
    found = talks(data, **plan, episodes=40).episodes()
    for episode in found:
        turns = (*episode.support, *episode.queries)
        assert all(len(turn.pictures) == 2 for turn in turns)
        image_set = [frozenset(turn.pictures) for turn in turns]
        assert (
            len(set(image_set)) == len(image_set) == 10
        )  # no pair is shown twice, though both splits have all of them
        right = {"yes": 1, "no": 2}  # pictures that differ
        for turn in turns:
            answer = letters_of(turn)[1][turn.answer] if form == "choice" else turn.answer
            assert len(set(turn.pictures)) == right[answer]
        assert len({turn.answer for turn in episode.queries}) == 2
    assert len({turn.item for episode in found for turn in episode.queries}) == 9
    with pytest.raises(InputError, match="no two answers have 7 pictures; the commonest has 6"):
        talks(pairs(("support", "query"), range(6)), **plan | {"shots": (10,)})


def test_pictures_beside_others_are_asked_nothing_themselves():
    data = pairs(("",), range(8))
    extra = Item("8.png", "8.png", "cat", "cat", "8" * 64)
    asked = replace(data.items[0].questions[0], others=("8.png",), answer="no")
    first = replace(data.items[0], questions=(asked, *data.items[0].questions))
    found = talks(replace(data, items=(first, *data.items[1:], extra)), shots=(2,))
    assert [subject.name for (subject,) in found.subjects] == ["match/alike"]
    assert not found.left_out


def contexts(pictures=5):
    """Three words in each of four contexts, that mean other things in each; asked about is one in each."""
    items = []
    for n in range(4 * 3 * pictures + 4):
        context, word = (n % 4, n // 4 % 3) if n < 4 * 3 * pictures else (n % 4, 0)
        asked = Question("bind", "words", "This is a", "abc"[word], ("a", "b", "c"), context=f"{context}")
        split = "support" if n < 4 * 3 * pictures else "query"
        items.append(Item(f"{n}.png", f"{n}.png", "p", "p", f"{n:064d}", split, questions=(asked,)))
    return Dataset(Path("contexts"), tuple(items))


def test_contexts_are_asked_in_turn_and_never_meet():
    plan = {"support_split": "support", "query_split": "query", "shots": (8,), "names": "real", "episodes": 12}
    data = contexts()
    of = {item.id: item.questions[0].context for item in data.items}
    for coherence in ("concept", "task", "none"):
        asked = []
        for episode in talks(data, **plan, coherence=coherence).episodes():
            assert episode.task.startswith("bind/words open")
            (query,) = episode.queries
            asked.append(of[query.item])
            assert {of[turn.item] for turn in episode.support} == {of[query.item]}
        assert all(sorted(asked[at : at + 4]) == [*"0123"] for at in (0, 4, 8))
    poor = tuple(item for item in data.items if of[item.id] != "2" or item.split == "query")
    (left,) = talks(replace(data, items=poor), **plan).left_out
    assert left.shortfall == "1 of 4 contexts: no two answers have 4 pictures; the commonest has 0"
    with pytest.raises(InputError, match="no two answers have 8 pictures; the commonest has 5"):
        talks(data, **plan | {"shots": (16,)})


def test_a_picture_that_has_two_answers_comes_once():
    items = [
        Item(
            f"{n}.png",
            f"{n}.png",
            "p",
            "p",
            f"{n:064d}",
            questions=tuple(
                Question("attribute", "colour", f"What colour is the {thing}?", colour, COLOURS)
                for thing, colour in (("cup", "red"), ("jug", "blue"))
            ),
        )
        for n in range(10)
    ]
    for episode in talks(Dataset(Path("two"), tuple(items)), shots=(6,)).episodes():
        seen = [turn.item for turn in (*episode.support, *episode.queries)]
        assert len(set(seen)) == len(seen) == 8


def test_one_picture_to_ask_about_is_enough_where_supports_are_apart():
    items = [
        Item(
            f"{n}.png",
            f"{n}.png",
            "p",
            "p",
            f"{n:064d}",
            split="query" if n == 0 else "support",
            questions=(Question("open_mi", "q1", "What is this?", ("dax", "lum")[n % 2], ("dax", "lum")),),
        )
        for n in range(9)
    ]
    plan = {"support_split": "support", "query_split": "query", "shots": (4,), "form": "choice"}
    for episode in talks(Dataset(Path("mi"), tuple(items)), **plan).episodes():
        (query,) = episode.queries
        assert query.item == "0.png"
        assert letters_of(query)[1][query.answer] == "dax"
        assert {turn.item for turn in episode.support} <= {item.id for item in items[1:]}


def test_more_options_than_letters_are_a_sentence():
    many = tuple(f"answer {n}" for n in range(9))
    items = [
        Item(
            f"{n}.png",
            f"{n}.png",
            "p",
            "p",
            f"{n:064d}",
            questions=(Question("caption", "long", "Describe.", "answer 0", (*many, f"other {n}")),),
        )
        for n in range(30)
    ]
    with pytest.raises(InputError, match="10 options, but there are only 8 letters"):
        talks(Dataset(Path("many"), tuple(items)), form="choice").episodes()
