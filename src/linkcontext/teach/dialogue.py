"""A dialogue: things are taught, asked about and corrected in any order, and what was taught holds to the end.

A prompt is made anew for every turn, from two parts. What was taught comes first, in rounds; what else was said,
the small talk, comes behind it and only where no name is asked for, because behind other talk a small model no
longer looks back for names (docs/chat.md has the figures). When both do not fit, the oldest small talk goes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from linkcontext.data.images import open_image
from linkcontext.data.layout import name_key
from linkcontext.errors import InputError
from linkcontext.records import Turn
from linkcontext.teach.learner import Answer, Learner, checked, spoken

SAID_LENGTH = 4  # words that a name has in a sentence: "this is a picture I took on ..." teaches no name
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said back, and in `notes` what happened beside it: a concept that moved, small talk that was left out."""

    text: str
    notes: tuple[str, ...] = ()
    answer: Answer | None = None  # where names that were taught were weighed
    own_words: Path | None = None  # the picture that the text is about, if it is in the model's own words


@dataclass
class Dialogue:
    """A learner, what was said to it beside teaching, and the pictures that "this" and "it" mean.

    `budget` is how many tokens what was taught, the small talk and a question may take together; 0 stands for the
    model's context. Every method either does the whole of what it says or raises `InputError` and changes nothing.
    """

    learner: Learner
    budget: int = 0
    talk: list[Turn] = field(default_factory=list)
    last: tuple[Path, ...] = ()
    licence: str = ""  # of the pack that it began with

    def say(self, text: str, pictures: Sequence[Path] = ()) -> Reply:
        """A sentence with pictures or about the last ones: teaches, corrects, forgets or asks, as it is worded."""
        words = " ".join(text.split())
        if (found := FORGETTING.fullmatch(words)) and not pictures:
            return self.forget(found["name"])
        if name := self._named(words, bool(pictures)):
            return self.teach(name, pictures or self._last())
        if len(pictures) > 1:
            raise InputError("ask about one picture at a time, or say what they are: 'these are NAME'.")
        return self.ask(pictures[0] if pictures else None, words)

    def teach(self, name: str, pictures: Iterable[Path]) -> Reply:
        """Show pictures under a name. One that had another name has the new one from now on."""
        paths = tuple(pictures)
        called = self._known(name) or name
        (line,), notes = self.lesson({called: paths})
        return Reply(line, notes)

    def lesson(self, named: Mapping[str, Sequence[Path]]) -> tuple[list[str], tuple[str, ...]]:
        """Show pictures under several names, all of it or nothing: a line for each name, and notes as of a `Reply`."""
        learner = self.learner
        kept = dict(learner.seen), dict(learner.thumbnails), dict(learner.pixels)
        before = {name: list(items) for name, items in learner.shown.items()}
        learner.teach(named)
        paths = tuple(path for pictures in named.values() for path in pictures)
        query = learner.query(paths[-1])
        try:
            length = learner.length(query)
            if length > self._limit:
                raise InputError(
                    f"what was taught would take {length:,} of {self._limit:,} tokens, and it never gives way. Show "
                    "fewer pictures, or forget a name."
                )
        except InputError:
            learner.shown, (learner.seen, learner.thumbnails, learner.pixels) = before, kept
            raise
        # What was answered about these pictures is settled now; a wrong name among it would be believed.
        items = {learner.query(path).item for path in paths}
        self.talk = [turn for turn in self.talk if turn.question or turn.item not in items]
        self.last = paths
        lines = [f"{name}: {pictures_of(learner, name)}." for name in map(checked, named)]
        gone = self._too_much(query)
        self.talk = self.talk[gone:]
        return lines, (*self._moved(before), *self._chosen(), *_left_out(gone))

    def ask(self, picture: Path | None = None, question: str = "") -> Reply:
        """Ask about a picture, or about the last one. What asks for its name is answered from the names taught."""
        path = picture or self._last()[-1]
        open_image(path)
        self.learner.sayable(question)
        naming = NAMING.fullmatch(question) is not None
        query = self.learner.query(path, "" if naming else question)
        decided = len(self.learner.shown) > 1 or self.learner.taught_as(query.item)
        answer = self.learner.ask(path) if naming and decided else None
        gone = self._too_much(query)
        said = answer.name if answer else self._own_words(path, query, [] if naming else self.talk[gone:])
        notes, self.talk = _left_out(gone), self.talk[gone:]
        if said is not None:
            self.talk.append(replace(query, answer=said))
        self.last = (path,)
        return Reply(spoken(answer) if answer else said or "", notes, answer, None if answer else path)

    def forget(self, name: str) -> Reply:
        """Take a concept out, with what was said of it."""
        called = self._known(name) or name
        self.learner.forget(called)
        self.talk = [turn for turn in self.talk if turn.answer != called]
        return Reply(f"{called} is forgotten.")

    def tokens(self) -> tuple[int, int]:
        """How many tokens what was taught and the small talk take, and how many they may."""
        return self.learner.length(talk=self.talk), self._limit

    def _last(self) -> tuple[Path, ...]:
        if not self.last:
            raise InputError("show a picture first: there is none yet to talk about.")
        return self.last

    @property
    def _limit(self) -> int:
        return min(self.budget or self.learner.model.context, self.learner.model.context)

    def _own_words(self, path: Path, query: Turn, behind: Sequence[Turn]) -> str:
        """An answer by generation, after what was taught where it matters, and after small talk."""
        length = self.learner.length(query, behind, self._matters(query)) + self.learner.reply_tokens()
        if length > self._limit:
            raise InputError(f"the question would take {length:,} of {self._limit:,} tokens. Ask in fewer words.")
        return self.learner.say(path, query.question, None, behind, self._matters(query))

    def _matters(self, query: Turn) -> bool:
        """Whether what was taught stands before a question: for a name, or about a name that was taught."""
        asked = query.question.casefold()
        return not asked or any(re.search(rf"\b{re.escape(n.casefold())}\b", asked) for n in self.learner.shown)

    def _too_much(self, query: Turn) -> int:
        """How many answers of the oldest small talk have to go until everything fits, with all that was taught."""
        gone, free = 0, self._limit - self.learner.reply_tokens()
        while self.talk[gone:] and self.learner.length(query, self.talk[gone:]) > free:
            gone += 1
        return gone

    def _moved(self, before: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """What became of names whose pictures have another name now."""
        for name, items in before.items():
            lost = len(items) - len(self.learner.shown.get(name, ()))
            if name not in self.learner.shown:
                yield f"{name} has no picture left and is forgotten."
            elif lost > 0:
                yield f"{lost} of them {'was' if lost == 1 else 'were'} {name} before."

    def _chosen(self) -> Iterator[str]:
        """Where not everything that was shown fits."""
        standing, shown = len(self.learner.rounds), sum(map(len, self.learner.shown.values()))
        if standing < shown:
            yield f"{standing} of {shown} pictures fit into the context: those that stand for the others best."

    def _named(self, words: str, shows: bool) -> str | None:
        """The name that a sentence teaches, with pictures or without, or None where it asks."""
        if (found := CORRECTING.fullmatch(words)) and not words.endswith("?"):
            if not (found["is"] or found["article"] or self._known(found["name"])):
                return None
        elif not (found := TEACHING.fullmatch(words)) or words.endswith("?"):
            return None
        name = found["name"]
        if name.casefold().split()[0] in NO_NAMES or len(name.split()) > SAID_LENGTH:
            raise InputError(
                f"{words[:60]!r}: no name that can be taught. Say what it is, in at most {SAID_LENGTH} words: "
                "'this is a NAME'."
            )
        if not shows and not found["article"] and self._known(name) is None:  # "it is raining" is about no picture
            raise InputError(f"{words[:60]!r}: if that is a name, say 'this is a {name}', or show a picture with it.")
        return name

    def _known(self, name: str) -> str | None:
        """The name as it was taught, whatever its case."""
        return next((known for known in self.learner.shown if name_key(known) == name_key(name)), None)


def _left_out(gone: int) -> tuple[str, ...]:
    """A sentence for small talk that had to go."""
    answers = "answer" if gone == 1 else "answers"
    return (f"The oldest small talk ({gone} {answers}) is left out; everything taught stays.",) if gone else ()


def pictures_of(learner: Learner, name: str) -> str:
    """How many pictures a name has, in words."""
    count = len(learner.shown[name])
    return f"{count} picture{'s' if count > 1 else ''}"
