"""Metrics of short replies, as SMMILE and CoViP define them."""

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BOXED = re.compile(r"(?://|\\)boxed\{([^}]*)\}")


def same_words(reply: str, answer: str) -> float:
    """1 if both are equal in lower case, without ASCII punctuation, and with single spaces; else 0 (SMMILE's flexible
    exact match).
    """
    return float(_words(reply) == _words(answer))


def token_f1(reply: str, answer: str) -> float:
    """F1 of the different words of a reply and of the answer, separated by spaces, in lower case (CoViP's F1).

    If the reply has an answer in a box, `//boxed{...}` or `\\boxed{...}`, the last one counts alone.
    """
    boxed: list[str] = _BOXED.findall(reply)
    predicted, true = ({*text.lower().split()} for text in (boxed[-1] if boxed else reply, answer))
    if not predicted or not true:
        return float(predicted == true)
    return 2 * len(predicted & true) / (len(predicted) + len(true))


def _words(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION).split()
