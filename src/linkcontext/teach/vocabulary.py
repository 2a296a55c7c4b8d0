"""Which words a model with a small vocabulary knows. It spells all others in pieces, and then often invents words."""

import re
from collections.abc import Iterable

from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.names import is_same_thing

SMALL = 10_000  # tokens. Published models have three times as many and more, and can write any word
_WORD = re.compile(r"[^\W\d_]+")
_ONE_LETTER_WORDS = ("a", "i")


def unknown_words(model: ScoringModel, text: str, names: Iterable[str] = ()) -> list[str]:
    """The words of a text for which the model has no token of its own, without those of `names`.

    Empty for a model of more than `SMALL` tokens and for one behind a server, whose vocabulary is not asked for.
    """
    if model.lacks("token ids") or len(model.loaded.tokenizer) > SMALL:
        return []
    tokenize = model.loaded.tokenizer.tokenize
    taught = {word for name in names for word in _WORD.findall(name)}

    def is_known(word: str) -> bool:
        forms = {form for text in (word, word.lower(), word.capitalize()) for form in (text, f" {text}")}
        is_word = len(word) > 1 or word.lower() in _ONE_LETTER_WORDS
        has_token = is_word and any(len(tokenize(form)) == 1 for form in forms)
        return has_token or any(is_same_thing(word, name) for name in taught)

    return [word for word in _WORD.findall(text) if not is_known(word)]
