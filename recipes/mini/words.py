"""Words of the bundled models: the tokenizer, and names as people have them."""

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizer import build_tokenizer
from transformers import PreTrainedTokenizerFast

from linkcontext.episodes.names import random_string
from linkcontext.worlds.pseudo_words import pseudo_words

VOCABULARY = 2560
ADJECTIVES = [
    "red",
    "green",
    "blue",
    "yellow",
    "black",
    "white",
    "brown",
    "grey",
    "orange",
    "purple",
    "pink",
    "small",
    "large",
    "big",
    "little",
    "old",
    "new",
    "young",
    "long",
    "short",
    "round",
    "flat",
    "dark",
    "light",
    "wild",
    "common",
    "great",
    "northern",
    "southern",
    "golden",
    "silver",
    "striped",
    "spotted",
    "sweet",
    "sour",
    "fresh",
    "dry",
    "cold",
    "hot",
    "soft",
    "hard",
    "left",
    "right",
    "upper",
    "lower",
    "front",
    "back",
    "first",
    "second",
    "third",
    "inner",
    "outer",
    "plain",
    "double",
    "single",
]
SMALL_TALK = (
    ("Hello!", "Hello."),
    ("Hi there", "Hello."),
    ("Thanks!", "You are welcome."),
    ("Thank you very much.", "You are welcome."),
    ("That is right.", "Good."),
    ("Well done!", "Thank you."),
    ("How are you?", "I am well."),
    ("Are you ready?", "Yes."),
    ("Let us go on.", "Yes."),
    ("Now I will ask you something.", "Yes."),
    ("Wait a moment please.", "Yes."),
    ("What can you do?", "Show me pictures and tell me what they are called."),
    ("Who are you?", "I learn names from pictures."),
    ("It is raining today.", "I see."),
    ("I have more of these at home.", "I see."),
    ("Remember this well.", "Yes."),
    ("Good morning", "Good morning."),
    ("See you later.", "Goodbye."),
)


def sentences(words: Sequence[str]) -> Iterator[str]:
    """What the tokenizer learns from besides the world's sentences: small talk, and words that name real pictures."""
    for user, reply in SMALL_TALK:
        for _ in range(20):
            yield user
            yield reply
    for word in words:
        for _ in range(6):
            yield word
            yield word.title()
    for adjective in ADJECTIVES:
        for _ in range(6):
            yield f"{adjective} {adjective.title()}"


def build(words: Sequence[str], vocabulary: int = VOCABULARY, count: int = 4000) -> PreTrainedTokenizerFast:
    """Learn the tokenizer; the same words give the same tokenizer."""
    return build_tokenizer(vocabulary, count, sentences(words))


class Namer:
    """Draws the names of a conversation: invented, real, of several words, with common words, codes, any case."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [w for w in words if w.isascii()]
        self.single = [w for w in self.words if " " not in w]

    def names(self, count: int, stream: np.random.Generator) -> list[str]:
        """Distinct names; none is the beginning of another. Half of the time each of another kind."""
        mixed = stream.random() < 0.4
        kind = stream.random()
        shared = [self._word(stream) for _ in range(1)]
        names: list[str] = []
        while len(names) < count:
            name = self._case(self._one(stream.random() if mixed else kind, shared[0], stream), stream, mixed)
            if name and not any(name.startswith(n) or n.startswith(name) for n in names):
                names.append(name)
            else:
                kind = kind if stream.random() < 0.8 else stream.random()
        return names

    def _word(self, stream: np.random.Generator) -> str:
        return self.single[int(stream.integers(len(self.single)))]

    def _one(self, kind: float, shared: str, stream: np.random.Generator) -> str:
        """A name of a kind, a number in 0..1; names of one conversation may share a word."""
        adjective = ADJECTIVES[int(stream.integers(len(ADJECTIVES)))]
        letters = "".join(chr(65 + int(i)) for i in stream.integers(26, size=int(stream.integers(1, 4))))
        kinds = (
            (0.30, lambda: pseudo_words(1, "mini", int(stream.integers(2**62)))[0]),
            (0.40, lambda: random_string(stream)),
            (0.60, lambda: self.words[int(stream.integers(len(self.words)))]),
            (0.70, lambda: f"{adjective} {self._word(stream)}"),
            (0.80, lambda: f"{adjective} {shared}"),
            (0.87, lambda: f"{shared} {self._word(stream)}"),
            (0.94, lambda: f"{self._word(stream)}{stream.choice(['', ' ', '-', '_'])}{int(stream.integers(1000))}"),
            (1.00, lambda: f"{letters}{stream.choice(['', '-', ' '])}{int(stream.integers(100))}"),
        )
        return str(next(make for limit, make in kinds if kind < limit)())

    def _case(self, name: str, stream: np.random.Generator, mixed: bool) -> str:
        chance = stream.random() if mixed else 0.5 if len(name) % 2 else 0.9
        return name.title() if chance < 0.25 else name.upper() if chance < 0.3 else name
