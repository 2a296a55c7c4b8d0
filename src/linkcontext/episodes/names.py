"""The names that an episode gives its classes: real, swapped, pseudo-words or random letters."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from linkcontext.seeds import Name, rng
from linkcontext.worlds.pseudo_words import pseudo_words

NameKind = Literal["real", "pseudo", "random", "swapped"]


def random_string(stream: np.random.Generator) -> str:
    """1 to 10 lower-case letters; length and letters are uniform, as in Link-Context Learning."""
    letters = stream.integers(0, 26, size=stream.integers(1, 11))
    return "".join(chr(ord("a") + int(letter)) for letter in letters)


def shown_names(kind: NameKind, truths: Sequence[str], *seed_names: Name, avoid: Collection[str] = ()) -> list[str]:
    """The names of the classes of one episode, given their true names; a pure function of the arguments.

    `pseudo` and `random` names are new, distinct and not in `avoid`. `swapped` permutes the true names in one random
    cycle, so no class keeps its own; it needs at least two classes.
    """
    if kind == "real":
        return list(truths)
    if kind == "pseudo":
        return pseudo_words(len(truths), *seed_names, avoid=avoid)
    stream = rng("shown_names", kind, *seed_names)
    if kind == "random":
        return _random_strings(len(truths), stream, avoid)
    circle = [int(place) for place in stream.permutation(len(truths))]
    following = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return [truths[following[place]] for place in range(len(truths))]


def _random_strings(count: int, stream: np.random.Generator, avoid: Collection[str]) -> list[str]:
    """`count` different random strings in order of drawing."""
    taken = {word.casefold() for word in avoid}
    strings: dict[str, None] = {}
    while len(strings) < count:
        string = random_string(stream)
        if string not in taken:
            strings[string] = None
    return list(strings)
