"""What is left out of the training pictures, and why.

1. Licences: a source is used if its licence allows changed copies for any purpose with no more than attribution.
   Share-alike (CC-BY-SA), non-commercial (CC-BY-NC) and GPL pictures are left out. MPL-2.0 stays: it binds the
   source files themselves, which are not passed on.
2. What measures the model is not trained on. The sets it is measured on are scikit-learn's digits, Fashion-MNIST,
   Omniglot, photographed hands that show digits, photographs of groceries, birds and objects, CIFAR-10, and emoji.
   - Digits, letters of Omniglot's fifty alphabets, emoji and faces like them, hands that show numbers: the *sign* is
     what is measured, however it is drawn. None is a class here.
   - Things named like a class of Fashion-MNIST or CIFAR-10 are left out as drawings too.
   - Drawn or modelled things of the kinds that are photographed elsewhere (fruit, chairs) stay: no such photograph
     is among the pictures here.
3. Flags and brands, which are trademarks, and differ from each other in ways that a name does not tell.
"""

import re
from collections.abc import Iterable

LICENCES = frozenset({
    "MIT", "Apache-2.0", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Unlicense", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0",
    "OFL-1.1", "MPL-2.0", "public domain",
})  # fmt: skip

FASHION_MNIST = frozenset(
    "tshirt shirt shirts trouser trousers pants pullover sweater dress coat sandal sandals sneaker sneakers shoe shoes "
    "bag bags handbag boot boots".split()
)
CIFAR_10 = frozenset(
    "airplane airplanes aeroplane plane aircraft automobile car cars bird birds cat cats deer dog dogs frog frogs "
    "horse horses ship ships truck trucks".split()
)
FACES = frozenset(
    "emoji emojis emoticon emotion face faces smile smiley smileys happy sad angry frown meh laugh neutral mood grin "
    "cry wink sentiment".split()
)
HANDS = frozenset("hand hands finger fingers gesture".split())
NUMBERS = frozenset(
    "number numbers numbered numeric digit digits ordered ol counter zero one two three four five six seven eight nine "
    "ten first second third today date day days week month dialpad dice domino".split()
)
LETTERS = frozenset(
    "letter letters alphabet abc font fonts type typography italic underline strikethrough superscript subscript "
    "heading header alpha beta gamma delta lambda omega pi sigma mu braille translate language".split()
)
FLAGS = frozenset({"flags"})  # `flag`, the thing on a pole, is no country's

_REASONS = {
    "a class of Fashion-MNIST": FASHION_MNIST,
    "a class of CIFAR-10": CIFAR_10,
    "a face, as emoji are": FACES,
    "a hand, as in the sign language digits": HANDS,
    "shows digits": NUMBERS,
    "shows letters": LETTERS,
    "flags": FLAGS,
}


def licence_allows(licence: str | None) -> bool:
    """Whether pictures under this SPDX licence are used. Unknown is no."""
    return licence in LICENCES


def why_excluded(words: Iterable[str]) -> str | None:
    """Why a class of this name is not trained on, or None if it is: any word of it decides."""
    words = [word.lower() for word in words]
    for word in words:
        if re.search(r"\d", word):
            return "shows digits"
        if len(word) == 1:
            return "shows letters"
        for reason, excluded in _REASONS.items():
            if word in excluded:
                return reason
    if words in (["text"], ["text", "size"], ["text", "color"], ["text", "height"]):
        return "shows letters"
    return None
