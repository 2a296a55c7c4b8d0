"""Strict matching: a generated reply is right if it names the right candidate and no other.

A name counts only as a whole: not inside a longer word ("fox" in "foxes"), a longer number ("1" in "1.5", "-1",
"1,000" or "3/4"), or a term with punctuation ("C" in "C#", "t" in "don't", "net" in ".NET"). Scripts that are written
without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) do not mark the end of a word, so a name counts there
between any two characters: "熊猫" names "猫" unless "熊猫" is a candidate as well. Korean particles may follow a name,
elided articles ("l'") may precede it, and "'s" may follow it.

Folders that are exported for lmms-eval contain a copy of this file, so it imports nothing of linkcontext.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from linkcontext.records import Candidate

NEAR = 24  # characters before and after a name that are looked at
TRADEMARKS = str.maketrans("", "", "™℠®©")  # NFKC would turn ™ into the letters "tm"
# Characters that look and mean the same: apostrophes, minus signs, fraction slashes, Arabic number marks.
SAME = str.maketrans("’ʼ‘‛´`−﹣⁄∕٫٬٪♯", "''''''--//.,%#")
# Superscripts are marked, because NFKC would turn "5²" into "52".
SUPERSCRIPT = regex.compile(r"(?<=\p{Nd})(?=[⁰¹²³⁴-⁹])")
# Invisible characters, except the joiner inside an emoji, and the variant and keycap marks of emoji.
INVISIBLE = regex.compile(r"(?!\u200d(?=\p{Extended_Pictographic}))\p{Default_Ignorable_Code_Point}|\u20e3")

WORD = r"[\p{L}\p{N}\p{M}_]"  # `\w` lacks the vowel signs of Indic scripts and would split their words
SPACELESS = r"[\p{Han}\p{Hiragana}\p{Bopomofo}\p{Yi}\p{Line_Break=SA}]"  # SA: Thai, Lao, Khmer, Burmese and their kin
PARTICLES = r"""(?: 들? (?:
    (?:이|였|이었)?(?:다|지만|고|며|라고|라는|란|나|든지|네요?|군요?|죠|지요|어요)
  | (?:입|였습|이었습)니(?:다|까) | (?:이에|예|이예|에)요 | 이?(?:야|요) | [인일임](?:데요?|가요?|까요?|지)?
  | (?:에서|에게|한테|으?로[서써]?|와|과|하고|이?랑|까지|부터|보다|처럼|만큼)[는도만의]?
  | [은는이가을를의에도만뿐께] | 마다 | 조차 | 밖에
  ) | 들 )(?!\p{Hangul})"""
ELIDED = r"(?:[ldjmtscn]|(?:jus|lors|puis|quel)?qu|un|gl|(?:de|ne|su|que)ll|d?all)"  # French, Italian, Catalan

_word = regex.compile(WORD)
_spaceless = regex.compile(SPACELESS)
_hangul = regex.compile(r"\p{Hangul}")
_katakana = regex.compile(r"\p{Word_Break=Katakana}")  # its words are written without a break inside
_particles = regex.compile(PARTICLES, regex.VERBOSE)

# Text directly before or after a name that makes it part of something longer.
_BEFORE_NUMBER = regex.compile(
    r"""(?: \p{Nd}[.,:'/^*×·÷]      # 1.5  1,000  3:30  3/4  2*3
          | \p{Nd}\.{2,}           # 1..5
          | (?<![\p{L}.])[.]        # .5, but not the end of a sentence before a list's number
          | [-–+±≤≥\p{Sc}]          # -1  F-16  1–2  $5
          | (?<!\w)[<>]             # >5, but not the mark-up around <b>5</b>
        )\Z""",
    regex.VERBOSE,
)
_AFTER_NUMBER = regex.compile(
    r"""  [.,:'/^*×·÷]\p{Nd}
        | \.{2,}\p{Nd}              # 1..5
        | [ ]\p{Nd}+/\p{Nd}         # 1 1/2
        | [-–]\w
        | [+]
        | [ ]?[%‰‱°\p{Sc}]          # 50% and 50 %
    """,
    regex.VERBOSE,
)
# Groups of thousands written with spaces: 1 000 000.
_GROUPS_BEFORE = regex.compile(r"(?<!\p{Nd})\p{Nd}{1,3}(?: \p{Nd}{3})* \Z")
_GROUP = regex.compile(r"\p{Nd}{3}(?!\p{Nd})")
_GROUPS_AFTER = regex.compile(r"(?: \p{Nd}{3})+(?!\p{Nd})")
_BEFORE_WORD = regex.compile(
    rf"""(?: (?:\A|[\s("'\[])[.]    # .NET
           | \w[&@#]                # R&D  me@home
           | (?!{ELIDED}'\Z)(?<!\w)\w+'  # don't, but not l'avion
         )\Z""",
    regex.VERBOSE,
)
_AFTER_WORD = regex.compile(
    r"""  [+#]                      # C++  C#  A+
        | [&@]\w                    # AT&T
        | [-–]\p{Nd}                # F-16
        | '(?!s(?!\w))\p{L}         # don't, but not plimbo's
    """,
    regex.VERBOSE,
)
# Beside a single letter a hyphen makes one term, as in Objective-C and X-ray.
_HYPHEN_BEFORE, _HYPHEN_AFTER = regex.compile(r"\w[-–]\Z"), regex.compile(r"[-–]\w")


@lru_cache(maxsize=65536)  # an episode's few names are normalised again for every reply
def normalise_reply(text: str) -> str:
    """The text in NFKC, case-folded, with digits of all scripts as 0-9 and runs of white space as one space.

    Invisible characters are removed, and all kinds of apostrophes and of minus signs become one.
    """
    text = SUPERSCRIPT.sub("^", text).translate(TRADEMARKS)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = INVISIBLE.sub("", text).translate(SAME)
    text = "".join(str(unicodedata.decimal(c)) if not c.isascii() and c.isdecimal() else c for c in text)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def match(reply: str, candidates: "Sequence[Candidate]") -> str | None:
    """The class id of the only candidate that `reply` names; None if it names none or several.

    Names are compared after `normalise_reply`, and only as wholes. Longer names are searched first and their characters
    are used up, so "kit fox" does not also name "fox", whereas "a kit fox or a fox" names both. A name that two
    candidates share names both of them.
    """
    text = normalise_reply(reply)
    used = [False] * len(text)
    edges = {0, len(text)} if text.isascii() else {m.start() for m in regex.finditer(r"\X", text)} | {len(text)}
    named: set[str] = set()
    names = {normalise_reply(candidate.name) for candidate in candidates} - {""}
    for length in sorted({len(name) for name in names}, reverse=True):
        # Names of one length are all searched before their characters are used up: their order must not matter.
        spans = {name: _spans(name, text, edges, used) for name in names if len(name) == length}
        named |= {name for name, starts in spans.items() if starts}
        for start in (start for starts in spans.values() for start in starts):
            used[start : start + length] = [True] * length
    winners = {candidate.class_id for candidate in candidates if normalise_reply(candidate.name) in named}
    return winners.pop() if len(winners) == 1 else None


def _spans(name: str, text: str, edges: set[int], used: Sequence[bool]) -> list[int]:
    """The positions at which `name` stands in `text` as a whole and outside of longer names."""
    starts = []
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        whole = text.isascii() or (start in edges and end in edges)  # a letter is not separated from its accents
        if whole and not any(used[start:end]) and _free_before(text, start, end) and _free_after(text, start, end):
            starts.append(start)
        start = text.find(name, start + 1)
    return starts


def _free_before(text: str, start: int, end: int) -> bool:
    """Whether the text before a name is not part of the same term."""
    left, first = text[max(0, start - NEAR) : start], text[start]
    if left and _joined(first, left[-1]):
        return False
    if first.isdecimal():
        grouped = _GROUPS_BEFORE.search(left) and _GROUP.match(text, start)
        return not _BEFORE_NUMBER.search(left) and not grouped
    if not _word.match(first) or _spaceless.match(first):
        return True
    letter = end - start == 1 and _HYPHEN_BEFORE.search(left)
    return not _BEFORE_WORD.search(left) and not letter and not _dotted(text, start - 1)


def _free_after(text: str, start: int, end: int) -> bool:
    """Whether the text after a name is not part of the same term; a Korean particle may follow."""
    right, last = text[end : end + NEAR], text[end - 1]
    if _hangul.match(right) and not last.isdecimal() and not _spaceless.match(last):
        return _particles.match(right) is not None
    if right and _joined(last, right[0]):
        return False
    if last.isdecimal():
        grouped = regex.search(r"(?<!\p{Nd})\p{Nd}{1,3}\Z", text[start:end]) and _GROUPS_AFTER.match(right)
        return not _AFTER_NUMBER.match(right) and not grouped
    if _spaceless.match(last):
        return True
    letter = end - start == 1 and _HYPHEN_AFTER.match(right)
    return not _AFTER_WORD.match(right) and not letter and not (_word.match(last) and _dotted(text, end))


def _joined(own: str, beside: str) -> bool:
    """Whether the character `beside` a name continues the word of the name's first or last character, `own`.

    If a name begins or ends with punctuation ("C++"), a letter or digit beside it makes it another term.
    """
    if not _word.match(beside):
        return False
    if unicodedata.numeric(own, None) is not None and unicodedata.numeric(beside, None) is not None:
        return True  # Chinese numerals are letters: "十一" is one number
    if _spaceless.match(own) or _spaceless.match(beside):
        return False
    if _katakana.match(own) or _katakana.match(beside):
        return bool(_katakana.match(own) and _katakana.match(beside))
    counted = (own.isdecimal() and _hangul.match(beside)) or (beside.isdecimal() and _hangul.match(own))
    return not counted


def _dotted(text: str, dot: int) -> bool:
    """Whether the character at `dot` is a full stop inside a term such as node.js or U.S., unlike that in "B.fox"."""
    if not 0 < dot < len(text) - 1 or text[dot] != ".":
        return False
    before = regex.search(r"\p{L}+\Z", text[max(0, dot - NEAR) : dot])
    after = regex.match(r"\p{L}+", text[dot + 1 : dot + 1 + NEAR])
    if before is None or after is None or _spaceless.search(before[0][-1] + after[0][0]):
        return False
    return len(before[0]) > 1 or len(after[0]) == 1
