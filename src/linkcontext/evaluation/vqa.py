"""Metrics of short free-form answers: exact match after normalisation, and VQA accuracy over ten people's answers.

After Antol et al., "VQA: Visual Question Answering" (2015), and the evaluation code of VQA v2.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

AGREED = 3  # an answer is fully right if this many others gave it

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(NUMBERS)}}

_JOINED = re.compile(r"['’]|(?<=\d),(?=\d)|\.(?!\d)")  # don't = dont, 1,000 = 1000, 2. = 2 but not 2.5
_PARTED = re.compile(r"[;:/\[\]\"“”{}()=+\\_\-<>@`,?!*]")


@lru_cache(maxsize=65536)  # the same few answers are repeated
def normalise_answer(answer: str) -> str:
    """The answer in lower case, without punctuation and articles, with numbers up to ten as digits and single spaces.

    Apostrophes are removed, which makes "dont" and "don't" equal, as the official evaluation does by a table of
    contractions. An answer of articles alone is kept: "A" may be the letter of a choice.
    """
    words = [DIGITS.get(word, word) for word in _PARTED.sub(" ", _JOINED.sub("", answer.lower())).split()]
    return " ".join([word for word in words if word not in ARTICLES] or words)


def exact(reply: str, answer: str) -> float:
    """1 if both are equal after `normalise_answer`, else 0."""
    return float(normalise_answer(reply) == normalise_answer(answer))


def accuracy(reply: str, answers: Sequence[str]) -> float:
    """VQA accuracy in [0, 1]: min(matches / 3, 1), averaged over leaving out each of the answers once."""
    normalised = normalise_answer(reply)
    same = [normalise_answer(answer) == normalised for answer in answers]
    matches = sum(same)
    # Leaving out a match leaves one match fewer.
    return sum(min((matches - left_out) / AGREED, 1.0) for left_out in same) / len(same)
