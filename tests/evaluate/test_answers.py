import pytest

from linkcontext.evaluate.answers import match, normalise
from linkcontext.records import Candidate


def named(*names):
    return [Candidate(f"class {i}", name, name) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("reply", "names", "expected"),
    [
        ("plimbo", ("plimbo", "tavork"), "class 0"),
        ("It is a TAVORK.", ("plimbo", "tavork"), "class 1"),
        ("plimbo, plimbo!", ("plimbo", "tavork"), "class 0"),
        ("plimbo or tavork", ("plimbo", "tavork"), None),
        ("not sure", ("plimbo", "tavork"), None),
        ("", ("plimbo", "tavork"), None),
        ("plimbos", ("plimbo", "tavork"), None),  # another word
        ("a_plimbo", ("plimbo", "tavork"), None),
        ("plimbo's", ("plimbo", "tavork"), "class 0"),
        ("kit fox", ("fox", "kit fox"), "class 1"),
        ("a kit  fox\n", ("fox", "kit fox"), "class 1"),
        ("fox", ("fox", "kit fox"), "class 0"),
        ("a kit fox, a fox", ("fox", "kit fox"), None),
        ("red fox red", ("red fox", "fox red"), None),  # overlapping, equally long: both are named
        ("STRASSE", ("straße", "gasse"), "class 0"),
        ("ﬁnch", ("finch", "wren"), "class 0"),  # the ligature
        ("cafe\u0301", ("café", "cafe"), "class 0"),  # a letter and its accent, composed by NFKC
        ("कमी", ("कम", "कमी"), "class 1"),
        ("कमी", ("कम", "बड़ा"), None),  # a vowel sign belongs to the word
        ("10", ("1", "10"), "class 1"),
        ("a C++ file", ("c++", "c"), "class 0"),
        ("same", ("same", "Same"), None),  # one name, two classes
        ("anything", ("", "plimbo"), None),
        ("plimbo\0tavork", ("plimbo", "tavork"), None),
    ],
)
def test_replies_by_hand(reply, names, expected):
    assert match(reply, named(*names)) == expected


@pytest.mark.parametrize("reply", ["red fox red", "kit fox", "a kit fox, a fox", "fox"])
def test_the_order_of_candidates_decides_nothing(reply):
    candidates = named("fox", "kit fox", "red fox", "fox red")
    assert match(reply, candidates) == match(reply, candidates[::-1])


def test_normalising_twice_changes_nothing():
    for text in ("ẞ ﬁ  İ", "K \u00a0x", "Ω ͅ"):
        assert normalise(normalise(text)) == normalise(text)
