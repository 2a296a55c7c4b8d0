"""Pseudo-words: invented names.

A pseudo-word is built from a fixed inventory of syllables, so a byte-pair tokenizer that was trained on `SYLLABLES`
spells every pseudo-word in a few tokens: tafup = ta + fup, lerksablo = lerk + sa + blo.
"""

import itertools
import re
from collections.abc import Collection

import numpy as np

from linkcontext.errors import InputError
from linkcontext.seeds import Name, rng

_SINGLE = tuple("bdfgklmnprstvz")
_CLUSTER = ("bl", "br", "dr", "fl", "gr", "kl", "pl", "sn", "st", "tr")
_CODA = ("b", "g", "k", "m", "p", "v", "x", "rk", "lk", "nt")
_VOWELS = "aeiou"
_SIMPLE = tuple(onset + vowel for onset in _SINGLE for vowel in _VOWELS)  # the only syllables after a coda
_OPEN = _SIMPLE + tuple(onset + vowel for onset in _CLUSTER for vowel in _VOWELS)
# One coda for each onset and vowel keeps the inventory small; the strides spread the codas evenly.
_RHYMED = [
    onset + vowel + _CODA[(3 * row + 2 * column) % len(_CODA)]
    for row, onset in enumerate(_SINGLE)
    for column, vowel in enumerate(_VOWELS)
]
_CLOSED = tuple(syllable for syllable in _RHYMED if syllable[0] != syllable[-1])  # "pop" and "rar" stutter

SYLLABLES: tuple[str, ...] = _OPEN + _CLOSED
"""The 184 syllables of all pseudo-words."""

_LAST = tuple(syllable for syllable in SYLLABLES if syllable[-1] != "e")  # a final e would be silent
_SHORTEST = 5  # letters, because most four-letter combinations are real words

# The words that the inventory can spell among the 30,000 most frequent English words and names, and a few rarer ones.
_REAL = """
banana barista bikini bogota bravo bruno dakota debra dimitri diploma domino dorado drama fatima fedora
flora florida gemini genera geneva gestapo granada granola grenada greta gustavo gusto kamala katrina kerala
kosovo laguna latina latino lenovo libido lolita lukaku madam malibu manila marina marino medina medusa
metro milano molina moreno mustafa napoli naruto nebula nepali nevada nikita nitro pablo pamela panama
parent pasta pedro pelosi pesto petra petri plato plaza pluto potato ramona referent regina retina retro
rivera rodrigo romano romero sabrina safari sakura saliva selena serena sinatra snafu somali sonata sonoma
stamina stefano stimuli subaru sumatra suzuki tamara tampa tanaka telugu teresa tetra tobago toledo tomato
topeka torino tripoli verona vista vitro zebra
"""
REAL_WORDS = frozenset(_REAL.split())
# Offensive stems.
_UNKIND = re.compile(
    "bokep|dago|dik|fag|fuk|gimp|kafi|klit|kok|kum|nazi|negr|nig|paki|pedo|peni|porn|put|rape|rapi|slut|tit|vagi"
)
_MOST = 50_000  # words of one call, because candidates are drawn until enough have been accepted


def pseudo_words(count: int, *seed_names: Name, avoid: Collection[str] = ()) -> list[str]:
    """Draw `count` pseudo-words of 2 or 3 syllables, as a pure function of `seed_names` and `avoid`.

    They are all different. None is a prefix of another, a frequent English word, or in `avoid` (ignoring case). A
    shorter list of the same names is a prefix of a longer one. Raises `InputError` for more than 50,000 words.
    """
    if count > _MOST:
        raise InputError(f"{count} pseudo-words are needed, and at most {_MOST} can be made. Use fewer classes.")
    stream = rng("pseudo_words", *seed_names)
    taken = REAL_WORDS.union(word.casefold() for word in avoid)
    words: dict[str, None] = {}  # in order of drawing
    beginnings: set[str] = set()
    while len(words) < count:
        word = _draw_word(stream)
        starts = [word[:end] for end in range(_SHORTEST, len(word))]
        if word not in taken and word not in beginnings and words.keys().isdisjoint(starts):
            words[word] = None
            beginnings.update((*starts, word))
    return list(words)


def _draw_word(stream: np.random.Generator) -> str:
    """Draw one pronounceable and inoffensive word."""
    while True:
        first, middle, last = (int(stream.integers(len(parts))) for parts in (SYLLABLES, _OPEN, _LAST))
        three = stream.random() < 0.4
        parts = [SYLLABLES[first], *([_OPEN[middle]] if three else []), _LAST[last]]
        word = "".join(parts)
        smooth = all(_follows(after, before) for before, after in itertools.pairwise(parts))
        if smooth and len(word) >= _SHORTEST and not _UNKIND.search(word):
            return word


def _follows(after: str, before: str) -> bool:
    """Whether `after` can follow `before`: after a coda, only a single and different consonant is pronounceable."""
    return before[-1] in _VOWELS or (after[1] in _VOWELS and after[0] != before[-1])
