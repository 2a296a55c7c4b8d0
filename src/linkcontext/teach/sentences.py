"""Which sentences teach a name, correct one, forget one, or ask for one."""

import re
from collections.abc import Callable

from linkcontext.errors import InputError

MAX_WORDS = 4  # of a name in a sentence: "this is a picture I took on ..." teaches no name
NO_NAMES = ("not", "wrong", "right", "correct", "true", "false", "it", "this", "that")

_IS = r"(?:this|that|it|these|those|they)(?:['’]s|\s+is|\s+are)\s+(?:(?:called|named)\s+)?"
_CALLED = r"(?P<article>(?:an?|the)\s+)?(?P<name>.+?)[\s.!]*"
TEACHING = re.compile(rf"(?:and\s+)?{_IS}{_CALLED}", re.IGNORECASE)
_WRONG = r"(?:(?:this|that|it)(?:['’]s|\s+is)\s+(?:wrong|not\s+right|incorrect)|no|wrong|actually)"
CORRECTING = re.compile(rf"{_WRONG}\b[\s,.:;!-]*(?P<is>{_IS})?{_CALLED}", re.IGNORECASE)
FORGETTING = re.compile(rf"forget\s+(?:about\s+)?{_CALLED}", re.IGNORECASE)
NAMING = re.compile(
    r"(?:and\s+)?(?:(?:what|who|which)(?:['’]s|\s+is|\s+are|\s+thing\s+is)\s+(?:this|that|it|these)(?:\s+called|\s+one)?|"
    r"what\s+do\s+you\s+see|name\s+(?:this|it))?[\s?.!]*",
    re.IGNORECASE,
)


def taught_name(sentence: str, has_pictures: bool, known_name: Callable[[str], str | None]) -> str | None:
    """The name that a sentence teaches or corrects to, or None if it asks something.

    `has_pictures` says whether pictures come with the sentence; `known_name` looks up a taught name. Raises
    `InputError` if the sentence is worded like a lesson and holds no usable name.
    """
    if sentence.endswith("?"):
        return None
    if match := CORRECTING.fullmatch(sentence):
        if not (match["is"] or match["article"] or known_name(match["name"])):  # "no, thank you"
            return None
    elif not (match := TEACHING.fullmatch(sentence)):
        return None
    name = match["name"]
    if name.casefold().split()[0] in NO_NAMES or len(name.split()) > MAX_WORDS:
        raise InputError(
            f"{sentence[:60]!r}: holds no name that can be taught. Say what it is, in at most {MAX_WORDS} words: "
            "'this is a NAME'."
        )
    if not has_pictures and not match["article"] and known_name(name) is None:  # "it is raining" is about no picture
        raise InputError(f"{sentence[:60]!r}: if that is a name, say 'this is a {name}', or show a picture with it.")
    return name
