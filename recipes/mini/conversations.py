"""What the language models of `mini-base` and `mini` read. Every conversation is a pure function of (stage, step, row).

repeat     random tokens and the same again: copying from context
facts      turns about taught concepts that have nothing to do with one another: names, counts, descriptions
misnamed   the same, after turns that call a few of these concepts by wrong names: what was said before is no help, as
           in much of what real models were trained on, and the picture alone decides
link       new names for things, asked for again; with small talk, attributes, choices and things that were not taught
letters    choices among letters whose answer is in the question
choices    choices among letters about what taught concepts are called and look like
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from words import SMALL_TALK, Namer

from linkcontext.episodes.plan import LETTERS
from linkcontext.episodes.scaffold import Message
from linkcontext.seeds import rng
from linkcontext.worlds import concepts, questions

NONE = "none of these"
STATEMENTS = ("It is {}.", "This is {}.", "I see {}.", "The answer is {}.")
OPTIONS = 4  # of a choice about a taught concept, at most
OFFERED = ("Which of these is it, or is it none of these?", "Is it one of these?", "Which one is it, if any?")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's message, with or without a picture, and the reply. `loss`: whether the reply is learnt."""

    picture: str  # "pool/class/picture", or nothing
    question: str
    answer: str
    loss: bool = True


@dataclass(frozen=True, slots=True)
class Taught:
    """What is known of the taught concepts."""

    facts: Sequence[concepts.Facts]
    names: Sequence[str]
    pictures: int  # of each


@dataclass(frozen=True, slots=True)
class LinkShape:
    """How a link conversation is laid out."""

    ways: int
    turns: int
    repeats: float = 0.0  # the share of pictures that were shown before
    hard: float = 0.0  # the share of conversations in which two things are hard neighbours
    talk: float = 0.0  # the share with small talk between the turns
    attributes: float = 0.0  # the share with questions about attributes (world pools alone)
    choices: float = 0.0  # the share that ends in multiple choice
    others: float = 0.0  # the share in which things that were not taught are asked for too


@dataclass(frozen=True, slots=True)
class Pool:
    """Where a link conversation's things come from: `members[c]` pictures of class c."""

    name: str
    members: Sequence[int]
    facts: Sequence[concepts.Facts] = field(default=())
    known: Sequence[str] = field(default=())
    neighbours: bool = False  # the second half are the hard neighbours of the first


def stream(stage: str, step: int, row: int) -> np.random.Generator:
    """The randomness of one conversation."""
    return rng("mini", stage, step, row)


def messages(exchanges: Sequence[Exchange]) -> list[Message]:
    """A conversation in the form that chat templates read."""
    out: list[Message] = []
    for one in exchanges:
        parts: list[dict[str, str]] = [{"type": "image", "image": one.picture}] if one.picture else []
        if one.question:
            parts.append({"type": "text", "text": one.question})
        out.append({"role": "user", "content": parts})
        out.append({"role": "assistant", "content": [{"type": "text", "text": one.answer}]})
    return out


def ask(taught: Taught, which: int, picture: str, stream: np.random.Generator, name: float = 0.5) -> Exchange:
    """One question about a taught concept: its name with chance `name`, else a description, a count or an attribute."""
    facts = taught.facts[which]
    kind = 0.0 if stream.random() < name else float(stream.uniform(0.5, 1))
    if kind < 0.5:
        question = "" if stream.random() < 0.2 else str(stream.choice(questions.NAMING))
        return Exchange(picture, question, taught.names[which])
    if kind < 0.7:
        return Exchange(picture, str(stream.choice(questions.DESCRIBING)), questions.caption(facts))
    about = questions.attribute_questions(facts)
    chosen = about[2] if kind < 0.8 else about[int(stream.integers(len(about)))]  # counting is the third
    return Exchange(picture, chosen.question, chosen.answer)


def facts(taught: Taught, turns: int, stream: np.random.Generator, named: float = 0.5) -> list[Exchange]:
    """Turns about taught concepts: every answer is in its picture alone. `named` is the share that asks for names.

    For `mini` no name is asked for after other turns: what a thing is called may have been said there, so its own
    knowledge of names is for conversations of one turn.
    """
    out: list[Exchange] = []
    for _ in range(turns):
        which = int(stream.integers(len(taught.facts)))
        picture = f"taught/{which}/{int(stream.integers(taught.pictures))}"
        out.append(ask(taught, which, picture, stream, named if out else 0.5))
    return out


def misnamed(taught: Taught, turns: int, namer: Namer, stream: np.random.Generator) -> list[Exchange]:
    """A few taught concepts under wrong names, in no order; then questions about them, which are learnt.

    Half of the time the wrong names are those of taught concepts, else names that belong to nothing.
    """
    chosen = stream.choice(len(taught.facts), size=int(stream.integers(2, 6)), replace=False).tolist()
    names = [taught.names[c] for c in chosen] if stream.random() < 0.5 else namer.names(len(chosen), stream)
    # Half of the time one wrong name for each concept, as in a link conversation, else any.
    fixed = stream.random() < 0.5
    out = []
    for _ in range(turns):
        place = int(stream.integers(len(chosen)))
        wrong = names[place - 1] if fixed else str(stream.choice(names))
        question = "" if stream.random() < 0.3 else str(stream.choice(questions.NAMING))
        picture = f"taught/{chosen[place]}/{int(stream.integers(taught.pictures))}"
        out.append(Exchange(picture, question, wrong, False))
    for _ in range(3):
        which = int(stream.choice(chosen))
        out.append(ask(taught, which, f"taught/{which}/{int(stream.integers(taught.pictures))}", stream))
    return out


def lettered(question: str, options: Sequence[str], answer: str, stream: np.random.Generator) -> tuple[str, str]:
    """The question with its options in a random order, each behind a letter, and the letter of the answer.

    Options past the last letter are left out, never the answer.
    """
    order = [str(option) for option in stream.permutation([o for o in options if o != answer])[: len(LETTERS) - 1]]
    order.insert(int(stream.integers(len(order) + 1)), answer)
    listed = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, order, strict=False))
    return f"{question} {listed} Answer with the option's letter.", LETTERS[order.index(answer)]


def letters(turns: int, namer: Namer, stream: np.random.Generator) -> list[Exchange]:
    """Choices without pictures: the question says what the thing is called, and asks for the letter of that name."""
    out = []
    for _ in range(turns):
        names = namer.names(int(stream.integers(2, len(LETTERS) + 1)), stream)
        statement = str(stream.choice(STATEMENTS)).format(names[0])
        out.append(Exchange("", *lettered(f"{statement} {stream.choice(questions.NAMING)}", names, names[0], stream)))
    return out


def choices(taught: Taught, turns: int, stream: np.random.Generator) -> list[Exchange]:
    """Choices about taught concepts: half of the conversations ask the same of each picture."""
    same = float(stream.random()) if stream.random() < 0.5 else None
    out = []
    for _ in range(turns):
        which = int(stream.integers(len(taught.facts)))
        about = questions.attribute_questions(taught.facts[which])
        kind = stream.random() if same is None else same
        if kind < 0.25:
            question, answer, all_options = str(stream.choice(questions.NAMING)), taught.names[which], taught.names
        else:
            chosen = about[min(int((kind - 0.25) / 0.75 * 5), len(about) - 1)]  # not every family has all five
            question, answer, all_options = chosen.question, chosen.answer, chosen.candidates
        others = stream.permutation([o for o in all_options if o != answer])[: int(stream.integers(1, OPTIONS))]
        picture = f"taught/{which}/{int(stream.integers(taught.pictures))}"
        out.append(Exchange(picture, *lettered(question, [answer, *others], answer, stream)))
    return out


def repeat(vocabulary: int, special: int, length: int, stream: np.random.Generator) -> tuple[list[int], list[bool]]:
    """Random tokens and the same again from a random offset, and which of them can be known."""
    block = int(stream.integers(8, 25))
    tokens = stream.integers(special, vocabulary, size=block)
    start = int(stream.integers(block // 2))
    again = np.resize(tokens[start:], length - block)
    return [*tokens.tolist(), *again.tolist()], [False] * (block + 1) + [True] * (length - block - 1)


class Linker:
    """Draws one link conversation."""

    def __init__(self, shape: LinkShape, pool: Pool, namer: Namer, stream: np.random.Generator) -> None:
        self.shape, self.pool, self.stream = shape, pool, stream
        self.classes = self._classes(shape.ways + 1)
        self.other, self.classes = int(self.classes[-1]), self.classes[:-1]
        names = namer.names(shape.ways, stream)
        if pool.known and stream.random() < 0.6:
            names = [pool.known[int(c)] for c in np.roll(self.classes, 1)]
        self.names = names
        self.question = "" if stream.random() < 0.4 else str(stream.choice(questions.NAMING))
        self.unseen = [list(stream.permutation(pool.members[int(c)])) for c in [*self.classes, self.other]]
        self.shown: list[list[int]] = [[] for _ in range(shape.ways)]

    def _classes(self, count: int) -> np.ndarray:
        total, half = len(self.pool.members), len(self.pool.members) // 2
        if self.pool.neighbours and self.stream.random() < self.shape.hard:
            first = self.stream.choice(half, size=count - 1, replace=False)
            return np.concatenate([first[:1], first[:1] + half, first[1:]])
        return self.stream.choice(total, size=count, replace=False)

    def _picture(self, which: int, repeats: float) -> str:
        known = self.shown[which] if which < len(self.shown) else []
        fresh = self.unseen[which]
        again = bool(known) and (not fresh or self.stream.random() < repeats)
        number = int(known[int(self.stream.integers(len(known)))]) if again else int(fresh.pop())
        if which < len(self.shown):
            self.shown[which].append(number)
        cls = int(self.classes[which]) if which < len(self.classes) else self.other
        return f"{self.pool.name}/{cls}/{number}"

    def _order(self) -> list[int]:
        ways, turns = self.shape.ways, self.shape.turns
        if self.stream.random() < 0.5:  # half of the conversations come in no balanced order
            return self.stream.integers(ways, size=turns).tolist()
        rounds = [self.stream.permutation(ways) for _ in range(-(-turns // ways))]
        return np.concatenate(rounds)[:turns].tolist()

    def draw(self) -> list[Exchange]:
        """The exchanges. A name is learnt once its thing was named before."""
        shape, stream = self.shape, self.stream
        talk, attributes, choices, others = (
            stream.random() < share for share in (shape.talk, shape.attributes, shape.choices, shape.others)
        )
        out: list[Exchange] = []
        order = self._order()
        for place, which in enumerate(order):
            named = bool(self.shown[which])
            late = place >= len(order) // 2
            if talk and (late or stream.random() < 0.2):
                for _ in range(int(stream.integers(0, 4 if late else 2))):
                    user, reply = SMALL_TALK[int(stream.integers(len(SMALL_TALK)))]
                    out.append(Exchange("", user, reply))
            picture = self._picture(which, shape.repeats)
            if attributes and self.pool.facts and late and stream.random() < 0.4:
                about = questions.attribute_questions(self.pool.facts[int(self.classes[which])])
                chosen = about[int(stream.integers(len(about)))]
                out.append(Exchange(picture, chosen.question, chosen.answer))
            elif choices and late and named:
                out.append(self._choice(picture, which))
            elif others and late and all(self.shown):
                out.append(self._offered(picture, which))
            else:
                out.append(Exchange(picture, self.question, self.names[which], named))
        return out

    def _choice(self, picture: str, which: int) -> Exchange:
        question = self.question or questions.NAMING[0]
        return Exchange(picture, *lettered(question, self.names, self.names[which], self.stream))

    def _offered(self, picture: str, which: int) -> Exchange:
        question = str(self.stream.choice(OFFERED))
        if self.unseen[-1] and self.stream.random() < 0.5:
            return Exchange(self._picture(len(self.shown), 0.0), question, NONE)
        return Exchange(picture, question, self.names[which])


Draw = Callable[[np.random.Generator], list[Exchange]]
