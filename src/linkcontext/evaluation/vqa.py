"""Short free-form answers: what counts as the same, and the accuracy of VQA, where ten people answered.

After Antol et al., "VQA: Visual Question Answering" (2015), and the evaluation of VQA v2.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

AGREED = 3  # an answer that so many others gave is fully right

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(NUMBERS)}}

_JOINED = re.compile(r"['’]|(?<=\d),(?=\d)|\.(?!\d)")  # don't = dont, 1,000 = 1000, 2. = 2 but not 2.5
_PARTED = re.compile(r"[;:/\[\]\"“”{}()=+\\_\-<>@`,?!*]")


@lru_cache(maxsize=65536)  # the same few answers come again and again
def normalise_answer(answer: str) -> str:
    """Lower case, without punctuation and articles, numbers up to ten as digits, single spaces.

    Apostrophes are dropped, which makes "dont" and "don't" one answer as the table of contractions of the
    official evaluation does. An answer that is nothing but articles stays: "A" may be the letter of a choice.
    """
    words = [DIGITS.get(word, word) for word in _PARTED.sub(" ", _JOINED.sub("", answer.lower())).split()]
    return " ".join([word for word in words if word not in ARTICLES] or words)


def exact(reply: str, answer: str) -> float:
    """1 where both are the same after `normalise`, else 0."""
    return float(normalise_answer(reply) == normalise_answer(answer))


def accuracy(reply: str, answers: Sequence[str]) -> float:
    """VQA accuracy in [0, 1]: min(matches / 3, 1), averaged over the ways to leave one of the answers out."""
    said = normalise_answer(reply)
    same = [normalise_answer(answer) == said for answer in answers]
    matches = sum(same)
    # Where the one left out is a match, one match fewer is left.
    return sum(min((matches - left_out) / AGREED, 1.0) for left_out in same) / len(same)
