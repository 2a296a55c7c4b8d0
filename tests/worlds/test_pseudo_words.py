import itertools
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkcontext.episodes.names import random_string, shown_names
from linkcontext.errors import InputError
from linkcontext.seeds import rng
from linkcontext.worlds.pseudo_words import REAL_WORDS, SYLLABLES, pseudo_words

ONE_SYLLABLE = "(?:" + "|".join(sorted(SYLLABLES, key=len, reverse=True)) + ")"


def test_pseudo_words_by_hand():
    # A change here renames every concept of every world that was ever drawn.
    assert pseudo_words(4, "world", 7) == ["klibru", "sanebla", "drabrebra", "blomatra"]


def test_the_syllable_inventory_is_small_and_distinct():
    assert len(SYLLABLES) == len(set(SYLLABLES)) == 184
    assert all(re.fullmatch("[a-z]{2,4}", syllable) for syllable in SYLLABLES)
    assert {"ba", "plu", "vork", "lerk"} & set(SYLLABLES) == {"ba", "plu", "lerk"}


def test_words_are_two_or_three_syllables_and_can_be_said():
    words = pseudo_words(2000, "said")
    for word in words:
        assert re.fullmatch(f"{ONE_SYLLABLE}{{2,3}}", word), word
        assert not re.search("[^aeiou]{4}|[aeiou]{2}", word), word
        assert not re.search(r"([^aeiou])\1", word), word
        assert 5 <= len(word) <= 12 and word[-1] != "e"
    lengths = Counter(len(re.findall("[aeiou]", word)) for word in words)
    assert set(lengths) == {2, 3} and min(lengths.values()) > 400


def test_no_word_begins_another_and_none_is_real_or_unkind():
    words = sorted(pseudo_words(5000, "prefix"))
    assert len(set(words)) == 5000
    # In sorted order a word is directly followed by one that it begins, if there is any.
    assert not [pair for pair in itertools.pairwise(words) if pair[1].startswith(pair[0])]
    assert not REAL_WORDS.intersection(words)
    assert not [word for word in words if re.search("fuk|nazi|nig|porn|rape|slut", word)]


def test_real_words_are_ones_that_could_have_come():
    # The list would be idle talk if the inventory could not spell what it forbids.
    assert all(re.fullmatch(f"{ONE_SYLLABLE}{{2,3}}", word) for word in REAL_WORDS)
    assert {"banana", "zebra", "potato"} <= REAL_WORDS


def test_words_to_avoid_are_replaced_and_the_others_stay():
    words = pseudo_words(50, "avoid")
    banned = words[3].upper()
    others = pseudo_words(50, "avoid", avoid=[banned])
    assert words[3] not in others
    assert others[:49] == words[:3] + words[4:]


def test_words_depend_on_their_names_alone():
    assert pseudo_words(5, "a", 1) == pseudo_words(9, "a", 1)[:5]
    assert set(pseudo_words(9, "a", 1)).isdisjoint(pseudo_words(9, "a", 2))
    assert pseudo_words(0, "a") == []


def test_too_many_words_are_refused():
    with pytest.raises(InputError, match="50001 pseudo-words are needed, and at most 50000"):
        pseudo_words(50_001, "many")


def test_random_strings_are_one_to_ten_letters():
    stream = rng("strings")
    strings = [random_string(stream) for _ in range(5000)]
    assert all(re.fullmatch("[a-z]{1,10}", string) for string in strings)
    lengths = Counter(map(len, strings))
    assert set(lengths) == set(range(1, 11))
    assert all(400 < count < 600 for count in lengths.values())  # 500 each, within 4.7 standard deviations
    assert set("".join(strings)) == set("abcdefghijklmnopqrstuvwxyz")


def test_shown_names_by_hand():
    assert shown_names("real", ["Owl", "cat"], "e", 0) == ["Owl", "cat"]
    assert shown_names("swapped", ["owl", "cat"], "e", 0) == ["cat", "owl"]
    assert shown_names("pseudo", ["owl", "cat"], "e", 0) == pseudo_words(2, "e", 0)


def test_swaps_are_every_one_and_none_is_preferred():
    swaps = Counter(tuple(shown_names("swapped", "abc", "e", index)) for index in range(2000))
    assert set(swaps) == {("b", "c", "a"), ("c", "a", "b")}  # both derangements of three
    assert all(900 < count < 1100 for count in swaps.values())  # within 4.5 standard deviations


@settings(max_examples=60, deadline=None)
@given(ways=st.integers(2, 8), kind=st.sampled_from(["pseudo", "random", "swapped"]), seed=st.integers(0, 9999))
def test_shown_names_are_distinct_and_never_the_true_ones(ways, kind, seed):
    truths = [f"{letter}" for letter in "abcdefgh"[:ways]]
    names = shown_names(kind, truths, "episode", seed, avoid=truths)
    assert len(set(names)) == ways
    assert all(name != truth for name, truth in zip(names, truths, strict=True))
    assert set(names) == set(truths) if kind == "swapped" else set(names).isdisjoint(truths)
    assert names == shown_names(kind, truths, "episode", seed, avoid=truths)
