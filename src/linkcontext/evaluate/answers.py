"""Strict matching: which one candidate, if exactly one, does a generated reply name?"""

import unicodedata
from collections.abc import Sequence

from linkcontext.records import Candidate


def normalise(text: str) -> str:
    """Compatibility-composed (NFKC), case-folded, every run of white space one space."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def match(reply: str, candidates: Sequence[Candidate]) -> str | None:
    """The class id of the one candidate whose shown name is in `reply`; None when there are none or several.

    Names are compared after `normalise` and only as whole words. The longest names are looked for first
    and what they cover is used up, so "kit fox" does not also name "fox"; "a kit fox or a fox" names both.
    A name that two candidates share decides for neither.
    """
    rest = normalise(reply)
    named: set[str] = set()
    names = {normalise(candidate.name) for candidate in candidates} - {""}
    for length in sorted({len(name) for name in names}, reverse=True):
        # Names of one length are all found before any is used up: no order among candidates may decide.
        spans = {name: found for name in names if len(name) == length and (found := _whole_word_spans(name, rest))}
        named |= set(spans)
        for start in sorted(start for found in spans.values() for start in found):
            rest = rest[:start] + "\0" * length + rest[start + length :]
    winners = {candidate.class_id for candidate in candidates if normalise(candidate.name) in named}
    return winners.pop() if len(winners) == 1 else None


def _whole_word_spans(name: str, text: str) -> list[int]:
    """Where `name` starts in `text`, wherever the characters around it belong to no word."""
    starts = []
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        inside = (start > 0 and _in_word(text[start - 1])) or (end < len(text) and _in_word(text[end]))
        if not inside:
            starts.append(start)
        start = text.find(name, start + 1)
    return starts


def _in_word(character: str) -> bool:
    # Letters, digits and marks: `\w` leaves the vowel signs of Indic scripts out and would cut their words.
    return character == "_" or unicodedata.category(character)[0] in "LNM"
