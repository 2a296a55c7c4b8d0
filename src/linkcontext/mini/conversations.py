"""What the mini language models read in training. Every conversation is a pure function of (stage, step, index).

induction   random words, then the same words again: learning to copy what came before
words       a question about a few random words, as it will be about a picture: the bridge to pictures
taught      turns about taught concepts that have nothing to do with one another: names, counts, descriptions
incoherent  the same, after turns that call a few of these concepts by wrong names: what was said before is
            no help, as in much of what real models were trained on, and the picture alone decides
link        invented names for concepts; a name is asked for again when another picture of its concept comes
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from linkcontext.episodes.names import random_string
from linkcontext.records import Turn
from linkcontext.seeds import rng
from linkcontext.worlds import concepts, questions
from linkcontext.worlds.pseudo_words import pseudo_words


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns whose items are "pool/concept/picture"; `supervised` says which answers carry the loss."""

    turns: tuple[Turn, ...]
    supervised: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class LinkShape:
    """How a link conversation is laid out."""

    ways: int
    turns: int
    repeats: float  # how often a picture comes that was shown before: looking up before recognising
    hard: float  # how often the concepts are hard neighbours of each other


def item(pool: str, concept: int, picture: int) -> str:
    """The id of a picture of a pool."""
    return f"{pool}/{concept}/{picture}"


def names(count: int, vocabulary: Sequence[str], stream: np.random.Generator) -> list[str]:
    """Distinct invented names: pseudo-words, random strings, or words put together from pieces of the vocabulary."""
    kind = stream.random()
    if kind < 0.4:
        return pseudo_words(count, "mini", int(stream.integers(2**62)))
    found: list[str] = []
    while len(found) < count:
        pieces = stream.choice(len(vocabulary), size=int(stream.integers(1, 4)))
        name = random_string(stream) if kind < 0.55 else "".join(vocabulary[p] for p in pieces)
        if name not in found:
            found.append(name)
    return found


def link(
    shape: LinkShape,
    pool: str,
    concepts_in_pool: int,
    pictures: int,
    vocabulary: Sequence[str],
    stream: np.random.Generator,
    known: Sequence[str] = (),
) -> Conversation:
    """Concepts of a pool under new names. An answer is supervised once its concept has been named before.

    The second half of the fresh pool holds the neighbours of the first half, row by row. Concepts that have
    `known` names are called by one another's in half of the conversations.
    """
    half = concepts_in_pool // 2
    if pool == "fresh" and stream.random() < shape.hard:
        # A concept, its neighbour, and others: the two that look alike are what has to be told apart.
        first = stream.choice(half, size=shape.ways - 1, replace=False)
        chosen = np.append(first, first[0] + half)
    else:
        chosen = stream.choice(concepts_in_pool, size=shape.ways, replace=False)
    called = names(shape.ways, vocabulary, stream)
    if known and stream.random() < 0.5:
        called = [known[c] for c in np.roll(chosen, 1)]
    question = "" if stream.random() < 0.7 else str(stream.choice(questions.NAMING))
    order = np.concatenate([stream.permutation(shape.ways) for _ in range(-(-shape.turns // shape.ways))])[
        : shape.turns
    ]
    if stream.random() < 0.5:  # half of the conversations come in no balanced order
        order = stream.integers(shape.ways, size=shape.turns)
    fresh_pictures = [list(stream.permutation(pictures)) for _ in range(shape.ways)]
    shown: list[list[int]] = [[] for _ in range(shape.ways)]
    turns, supervised = [], []
    for which in order:
        again = shown[which] and (stream.random() < shape.repeats or not fresh_pictures[which])
        picture = shown[which][stream.integers(len(shown[which]))] if again else fresh_pictures[which].pop()
        supervised.append(bool(shown[which]))
        shown[which].append(int(picture))
        turns.append(Turn(item(pool, int(chosen[which]), int(picture)), str(which), called[which], question))
    return Conversation(tuple(turns), tuple(supervised))


def taught(
    facts: Sequence[concepts.Facts],
    called: Sequence[str],
    pictures: int,
    turns: int,
    stream: np.random.Generator,
) -> Conversation:
    """Turns about taught concepts, drawn apart from one another: every answer is in its picture alone."""
    said = []
    for _ in range(turns):
        which = int(stream.integers(len(facts)))
        picture = item("taught", which, int(stream.integers(pictures)))
        said.append(ask(facts[which], called[which], picture, stream))
    return Conversation(tuple(said), (True,) * turns)


def incoherent(
    facts: Sequence[concepts.Facts],
    called: Sequence[str],
    pictures: int,
    turns: int,
    stream: np.random.Generator,
) -> Conversation:
    """A few taught concepts under wrong names, in no order; then questions about them, which are supervised."""
    chosen = stream.choice(len(facts), size=int(stream.integers(2, 6)), replace=False)
    said = []
    for _ in range(turns):
        which, wrong = int(stream.choice(chosen)), int(stream.integers(len(facts)))
        if stream.random() < 0.7:  # mostly a name that comes again, so that copying would be easy
            wrong = int(stream.choice(chosen))
        said.append(Turn(item("taught", which, int(stream.integers(pictures))), "", called[wrong]))
    asked = [int(stream.choice(chosen)) for _ in range(3)]
    right = [ask(facts[w], called[w], item("taught", w, int(stream.integers(pictures))), stream) for w in asked]
    return Conversation((*said, *right), (False,) * turns + (True,) * len(right))


def ask(facts: concepts.Facts, name: str, picture: str, stream: np.random.Generator) -> Turn:
    """One question about a picture: half of the time its name, else a description, a count or an attribute."""
    kind = stream.random()
    turn = Turn(picture, "", name, str(stream.choice(questions.NAMING)))
    if kind < 0.5:
        return turn
    if kind < 0.7:
        return replace(turn, question=str(stream.choice(questions.DESCRIBING)), answer=questions.caption(facts))
    found = questions.about(facts)
    chosen = found[2] if kind < 0.8 else found[int(stream.integers(len(found)))]  # counting is the third
    return replace(turn, question=chosen.question, answer=chosen.answer)


def induction(vocabulary: int, special: int, length: int, stream: np.random.Generator) -> tuple[list[int], list[bool]]:
    """Random tokens and the same again from a random offset; what is repeated is supervised."""
    block = int(stream.integers(8, 25))
    words = stream.integers(special, vocabulary, size=block)
    start = int(stream.integers(block // 2))
    again = np.resize(words[start:], length - block)  # from there to the end, over and over
    # The first token of the repetition cannot be known.
    return [*words.tolist(), *again.tolist()], [False] * (block + 1) + [True] * (length - block - 1)


def stream(stage: str, step: int, index: int) -> np.random.Generator:
    """The randomness of one conversation."""
    return rng("mini", stage, step, index)
