"""Pseudo-words: names for things that have none.

A pseudo-word is built from a closed inventory of syllables, so that a byte-pair tokenizer that has seen
`SYLLABLES` spells every one of them in a few tokens: tafup = ta + fup, lerksablo = lerk + sa + blo.
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
_SIMPLE = tuple(onset + vowel for onset in _SINGLE for vowel in _VOWELS)  # the only ones after a coda
_OPEN = _SIMPLE + tuple(onset + vowel for onset in _CLUSTER for vowel in _VOWELS)
# One coda for each onset and vowel keeps the inventory small; the strides spread the codas evenly.
_RHYMED = [
    onset + vowel + _CODA[(3 * row + 2 * column) % len(_CODA)]
    for row, onset in enumerate(_SINGLE)
    for column, vowel in enumerate(_VOWELS)
]
_CLOSED = tuple(syllable for syllable in _RHYMED if syllable[0] != syllable[-1])  # "pop" and "rar" stutter

SYLLABLES: tuple[str, ...] = _OPEN + _CLOSED
"""The 184 syllables every pseudo-word is made of."""

_LAST = tuple(syllable for syllable in SYLLABLES if syllable[-1] != "e")  # a final e would be silent
_SHORTEST = 5  # letters; four-letter words are mostly taken

# What the inventory can spell of the 30,000 most frequent English words and names, and a few rarer words.
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
# Stems that nobody wants to read in a name.
_UNKIND = re.compile(
    "bokep|dago|dik|fag|fuk|gimp|kafi|klit|kok|kum|nazi|negr|nig|paki|pedo|peni|porn|put|rape|rapi|slut|tit|vagi"
)
_MOST = 50_000  # words of one call: they are found by drawing until enough have been accepted


def pseudo_words(count: int, *seed_names: Name, avoid: Collection[str] = ()) -> list[str]:
    """Draw `count` pseudo-words of 2 or 3 syllables, a pure function of `seed_names`.

    All differ, none is the beginning of another, none is a frequent English word or stands in `avoid`
    (compared without case). A longer list from the same names begins with the shorter one.
    Raises `InputError` above 50,000 words.
    """
    if count > _MOST:
        raise InputError(f"{count} pseudo-words were asked for; at most {_MOST} can be made. Use fewer classes.")
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
    """One word that can be said aloud and read without blushing."""
    while True:
        first, middle, last = (int(stream.integers(len(parts))) for parts in (SYLLABLES, _OPEN, _LAST))
        three = stream.random() < 0.4
        parts = [SYLLABLES[first], *([_OPEN[middle]] if three else []), _LAST[last]]
        word = "".join(parts)
        smooth = all(_follows(after, before) for before, after in itertools.pairwise(parts))
        if smooth and len(word) >= _SHORTEST and not _UNKIND.search(word):
            return word


def _follows(after: str, before: str) -> bool:
    """After a coda comes a single, other consonant: `tavplim` and `tavva` can't be said."""
    return before[-1] in _VOWELS or (after[1] in _VOWELS and after[0] != before[-1])
