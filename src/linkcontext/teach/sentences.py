"""What a sentence of a dialogue does: it teaches, corrects or forgets a name, asks something, or is small talk."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from linkcontext.errors import InputError

MAX_WORDS = 4  # of a name in a sentence: "this is a picture I took on ..." teaches no name
NO_NAMES = ("not", "wrong", "right", "correct", "true", "false", "it", "this", "that", "a", "an", "the")
QUOTES = "\"'“”‘’«» "
# The first word of a sentence that asks or requests something, with or without a question mark.
REQUEST = re.compile(
    r"(?:what|which|who|whose|whom|where|when|why|how|is|are|was|were|does|do|did|can|could|would|will|should|has|have|"
    r"may|describe|name|count|tell|list|show|explain|say|write|compare|point|find|give|read|translate|think|look|guess)"
    r"(?:['’]s|n['’]t)?\b",
    re.IGNORECASE,
)

_IT = r"(?:this|that|it|these|those|they)"
_IS = (
    rf"(?:{_IT}(?:\s+one)?(?:['’]s|['’]re|\s+is|\s+are|\s+should\s+be)(?:\s+all)?|should\s+be|i\s+mean(?:t)?|"
    rf"here(?:['’]s|\s+is|\s+are)|(?:its|the)\s+name\s+is|call\s+(?:{_IT}|them)|(?=(?:and\s+)?another\s))"
    r"\s*\b(?:(?:called|named|also|another)\b\s*)*"
)
_NAMED = r"(?P<article>(?:an?|the|another|some|more)\s+)?(?P<name>.+?)(?:,?\s+(?:too|as\s+well|again))?"
_CALLED = rf"{_NAMED}[\s.!。！]*"
CALLED = re.compile(r"\b(?:called|named|name\s+is|call)\b", re.IGNORECASE)
TEACHING = re.compile(rf"(?:and\s+)?{_IS}{_CALLED}", re.IGNORECASE)
_NOT = rf"(?:{_IT}\s*(?:is\s*n['’]?t|['’]s\s+not|is\s+not|are\s+not|are\s*n['’]?t))"
_RIGHT = r"(?:right|correct|true|so|it)"
_WRONG = (
    rf"(?:no|nope|wrong(?:\s+answer)?|incorrect|actually|sorry|not\s+{_RIGHT}|{_NOT}\s+{_RIGHT}|"
    rf"(?:{_IT}(?:['’]s|\s+is|\s+was)|you(?:['’]re|\s+are|\s+were))\s+(?:wrong|incorrect|false|mistaken|not\s+{_RIGHT}))"
)
_STOPS = r"[\s,.:;!-]*"
_NOT_THAT = rf"(?:(?:{_NOT}|not)\s+(?:an?\s+|the\s+)?[^,;.]+[,;.]\s*(?:but\s+)?)"  # "it is not a banana, "
CORRECTING = re.compile(rf"(?:(?:{_WRONG}\b{_STOPS})+{_NOT_THAT}?|{_NOT_THAT})(?P<is>{_IS})?{_CALLED}", re.IGNORECASE)
WRONG = re.compile(rf"(?:{_WRONG}\b{_STOPS})*(?:{_WRONG}|{_NOT})[\s.!]*", re.IGNORECASE)  # and no name
NOT_AT_THE_END = re.compile(r",\s*(?:and\s+)?not\s+[^,]+$", re.IGNORECASE)  # "it is a lime, not a banana"
FORGETTING = re.compile(rf"(?:forget|remove|delete)\s+(?:about\s+)?{_CALLED}", re.IGNORECASE)
NAMING = re.compile(
    rf"(?:and\s+)?(?:(?:what|who|which)(?:['’]s|\s+is|\s+are|\s+thing\s+is|\s+one\s+is)\s+{_IT}"
    r"(?:\s+(?:called|one|thing|now|here))*|what\s+(?:do\s+you\s+see|am\s+i\s+looking\s+at)|"
    rf"(?:(?:can|could|do)\s+you\s+)?(?:name|recogni[sz]e|know)\s+{_IT}|tell\s+me\s+what\s+{_IT}\s+(?:is|are)|"
    r"what(?:['’]s|\s+is)\s+(?:in|on)\s+(?:this|that|the)\s+(?:picture|photo|image)|"
    rf"(?:(?:what|how)\s+about\s+)?{_IT}(?:\s+(?:one|thing|picture|photo|here|now))*|"
    r"(?:and\s+)?now|(?:try|ask|guess)(?:\s+again)?|again|what\s+do\s+you\s+think(?:\s+it\s+is)?)?[\s?.!？。]*",
    re.IGNORECASE,
)
CHECKING = re.compile(rf"(?:and\s+)?(?:is|are)\s+{_IT}(?:\s+one)?\s+(?:really\s+)?{_NAMED}[\s?？]+", re.IGNORECASE)
TALK = re.compile(
    r"(?:(?:hi|hello|hey|hallo|good\s+(?:morning|day|afternoon|evening|night)|(?:no,?\s+)?thank(?:s|\s+you)|thx|cheers|"
    r"ok(?:ay)?|yes|yep|yeah|sure|good|great|nice|cool|perfect|well\s+done|please|bye|goodbye|see\s+you|help|"
    rf"never\s*mind|no\s+(?:problem|worries)|how\s+are\s+you|(?:{_IT}(?:['’]s|\s+is)\s+)?(?:right|correct|true)|"
    r"who\s+are\s+you|what\s+are\s+you|what(?:['’]s|\s+is)\s+your\s+name|what\s+(?:can|could)\s+(?:you|i)\s+do(?:\s+here)?|"
    r"how\s+does\s+(?:this|that|it)\s+work|(?:what|which|whom|who)\s+(?:names?\s+|things?\s+)?(?:do|did|have|can)\s+"
    r"(?:you|i)\s+(?:know|learn(?:ed|t)?|(?:been\s+)?ta?ught|teach\s+you|recogni[sz]e|remember))"
    r"(?:\s+(?:so\s+far|there|now|again|today|very\s+much|so\s+much|a\s+lot|everyone|you))*[\s,.!?？]*)+",
    re.IGNORECASE,
)

Kind = Literal["teach", "forget", "name", "check", "ask", "talk", "unclear"]


@dataclass(frozen=True, slots=True)
class Intent:
    """What a sentence does.

    `kind` is "teach" (also to correct), "forget", "name" (asks for the name), "check" (asks whether it is `name`),
    "ask" (asks something else), "talk" (a greeting, or a question about the dialogue itself), or "unclear": `reply`
    then says how the sentence can be worded.
    """

    kind: Kind
    name: str = ""
    reply: str = ""


def understand(sentence: str, has_pictures: bool, known_name: Callable[[str], str | None]) -> Intent:
    """What a sentence does.

    `has_pictures` says whether pictures come with it; `known_name` looks up a taught name. Raises `InputError` if the
    sentence is worded like a lesson and holds no usable name.
    """
    if (match := FORGETTING.fullmatch(sentence)) and not has_pictures:
        return Intent("forget", match["name"].strip(QUOTES))
    if NAMING.fullmatch(sentence):
        return Intent("name")
    if TALK.fullmatch(sentence):
        return Intent("name" if has_pictures else "talk")
    if sentence.endswith(("?", "？")):
        match = CHECKING.fullmatch(sentence)
        return Intent("check", match["name"]) if match and known_name(match["name"]) else Intent("ask")
    return _lesson(NOT_AT_THE_END.sub("", sentence), has_pictures, known_name) or _other(sentence, known_name)


def _lesson(sentence: str, has_pictures: bool, known_name: Callable[[str], str | None]) -> Intent | None:
    """What a sentence teaches or corrects; None if it does neither."""
    if WRONG.fullmatch(sentence):
        return Intent("unclear", reply='What is it, then? Say "it is a NAME".')
    correction = CORRECTING.fullmatch(sentence)
    if (match := correction or TEACHING.fullmatch(sentence)) is None:
        return None
    name = match["name"].strip(QUOTES)
    words = name.casefold().split()
    if correction and not (correction["is"] or match["article"] or known_name(name)):  # "no, not yet"
        suggestion = Intent("unclear", reply=f'If that is its name, say "it is called {name}".')
        return suggestion if len(words) <= MAX_WORDS else None
    if not words or words[0] in NO_NAMES or len(words) > MAX_WORDS:
        raise InputError(
            f"{sentence[:60]!r}: holds no name that can be taught. Say what it is, in at most {MAX_WORDS} words: "
            "'this is a NAME'."
        )
    is_plain = match["article"] or CALLED.search(sentence[: match.start("name")]) or known_name(name)
    if not (has_pictures or is_plain):  # "it is raining" is about no picture
        raise InputError(f"{sentence[:60]!r}: if that is a name, say 'it is called {name}', or show a picture with it.")
    return Intent("teach", name)


def _other(sentence: str, known_name: Callable[[str], str | None]) -> Intent:
    """A request, or a bare name, which could be a question or a lesson."""
    if len(sentence.split()) > MAX_WORDS or REQUEST.match(sentence):
        return Intent("ask")
    name = re.sub(r"^(?:an?|the|and)\s+|[\s.!,]+$", "", sentence, flags=re.IGNORECASE).strip(QUOTES)
    name = (known_name(name) or name)[:60]
    return Intent("unclear", reply=f'To teach that name, say "it is called {name}". To ask something, end with "?".')
