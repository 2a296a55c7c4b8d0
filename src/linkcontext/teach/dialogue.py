"""A dialogue in which names are taught, asked about and corrected in any order.

Every turn gets a new prompt with up to two parts. The taught pictures come first. The history, which is everything
else that was asked and answered, follows them, but only for questions that do not ask for a name: small models no
longer look back for names behind other turns (docs/chat.md has the figures). If both do not fit into the context, the
oldest turns of the history are dropped; taught pictures never are.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from linkcontext.data.images import open_image
from linkcontext.data.layout import name_key
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.records import Turn
from linkcontext.teach.answer import Answer, answer_line
from linkcontext.teach.learner import Learner
from linkcontext.teach.names import MAX_LETTERS, canonical_name
from linkcontext.teach.sentences import FORGETTING, NAMING, taught_name

UNCOUNTED_TURNS = 8  # of the history, for a model behind a server, which does not tell how long they are


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a sentence; `notes` tell what else happened, such as a picture that changed its name."""

    text: str
    notes: tuple[str, ...] = ()
    answer: Answer | None = None  # if the taught names were scored
    own_words: Path | None = None  # the picture that the text is about, if the text was generated


@dataclass
class Dialogue:
    """A learner, the history of what was asked beside teaching, and the pictures that "this" and "it" refer to.

    `budget` is the maximum number of tokens of a prompt; 0 stands for the model's context. A server does not tell how
    many tokens a prompt has, and the last 8 turns of the history are kept there. Every method either does all of its
    work, or raises `InputError` and changes nothing.
    """

    learner: Learner
    budget: int = 0
    history: list[Turn] = field(default_factory=list)
    last: tuple[Path, ...] = ()
    licence: str = ""  # of the pack that the dialogue began with

    def __post_init__(self) -> None:
        if self.budget and self.learner.model.card.context is None:
            raise InputError(
                f"--context {self.budget}: {self.learner.model.card.name} does not tell how many tokens a prompt has. "
                "Leave it out."
            )

    def say(self, text: str, pictures: Sequence[Path] = ()) -> Reply:
        """Handle a sentence about `pictures` or about the last ones: it teaches, corrects, forgets or asks."""
        sentence = " ".join(text.split())
        if (match := FORGETTING.fullmatch(sentence)) and not pictures:
            return self.forget(match["name"])
        if name := taught_name(sentence, bool(pictures), self._known_name):
            return self.teach(name, pictures or self._last_pictures())
        if len(pictures) > 1:
            raise InputError("ask about one picture at a time, or say what they are: 'these are NAME'.")
        return self.ask(pictures[0] if pictures else None, sentence)

    def teach(self, name: str, pictures: Iterable[Path]) -> Reply:
        """Show pictures under a name. Pictures that had another name move to this one."""
        (line,), notes = self.teach_all({self._known_name(name) or name: tuple(pictures)})
        return Reply(line, notes)

    def teach_all(self, named: Mapping[str, Sequence[Path]]) -> tuple[list[str], tuple[str, ...]]:
        """Show pictures under several names; return a line for each name, and notes as in `Reply`."""
        learner, before = self.learner, self.learner.pictures.copy()
        learner.teach(named)
        paths = tuple(path for pictures in named.values() for path in pictures)
        query = learner.query(paths[-1])
        try:
            length, limit = learner.prompt_length(query), self._limit
            if length is not None and limit is not None and length > limit:
                raise InputError(
                    f"the taught pictures would take {length:,} of {limit:,} tokens, and they are never dropped. "
                    "Show fewer pictures, or forget a name."
                )
        except InputError:
            learner.pictures = before
            raise
        # Earlier answers about these pictures are settled now; the model would believe a wrong name among them.
        items = {learner.query(path).item for path in paths}
        self.history = [turn for turn in self.history if turn.question or turn.item not in items]
        self.last = paths
        lines = [f"{name}: {count_pictures(learner, name)}." for name in map(canonical_name, named)]
        return lines, (
            *self._renamed(before.by_name),
            *self._not_shown(),
            *self._drop_oldest(self._excess_history(query)),
        )

    def ask(self, picture: Path | None = None, question: str = "") -> Reply:
        """Ask about a picture, or about the last one. Questions for its name are answered from the taught names."""
        path = picture or self._last_pictures()[-1]
        open_image(path)
        refuse_marks(question, self.learner.model.card.special_tokens, repr(question[:MAX_LETTERS]))
        naming = NAMING.fullmatch(question) is not None
        query = self.learner.query(path, "" if naming else question)
        scored = len(self.learner.pictures.names) > 1 or self.learner.pictures.name_of(query.item)
        answer = self.learner.ask(path) if naming and scored else None
        dropped = self._excess_history(query)
        if answer is not None:
            name, text = answer.name, answer_line(answer)
        else:
            name = text = self._generate(path, query, [] if naming else self.history[dropped:])
        notes = self._drop_oldest(dropped)
        if name is not None:
            self.history.append(replace(query, answer=name))
        self.last = (path,)
        return Reply(text, notes, answer, None if answer else path)

    def forget(self, name: str) -> Reply:
        """Remove a name, and the answers that gave it."""
        known = self._known_name(name) or name
        self.learner.forget(known)
        self.history = [turn for turn in self.history if turn.answer != known]
        return Reply(f"{known} is forgotten.")

    def tokens(self) -> tuple[int, int] | None:
        """The number of tokens of the taught pictures and the history, and the maximum; None behind a server."""
        length, limit = self.learner.prompt_length(history=self.history), self._limit
        return None if length is None or limit is None else (length, limit)

    def _last_pictures(self) -> tuple[Path, ...]:
        if not self.last:
            raise InputError("show a picture first: there is none to talk about yet.")
        return self.last

    @property
    def _limit(self) -> int | None:
        """The maximum number of tokens of a prompt; None for a model behind a server, which alone counts them."""
        context = self.learner.model.card.context
        return None if context is None else min(self.budget or context, context)

    def _generate(self, path: Path, query: Turn, history: Sequence[Turn]) -> str:
        """Generate an answer after the history, and after the taught pictures if the question is about them."""
        about_names = self._mentions_name(query)
        length, limit = self.learner.prompt_length(query, history, about_names), self._limit
        if length is not None and limit is not None:
            length += self.learner.model.card.prompting.reply_tokens
            if length > limit:
                raise InputError(f"the question would take {length:,} of {limit:,} tokens. Ask a shorter one.")
        return self.learner.say(path, query.question, None, history, about_names)

    def _mentions_name(self, query: Turn) -> bool:
        """Whether a question asks for a name, or mentions one that was taught."""
        question = query.question.casefold()
        names = (re.escape(name.casefold()) for name in self.learner.pictures.names)
        return not question or any(re.search(rf"\b{name}\b", question) for name in names)

    def _excess_history(self, query: Turn) -> int:
        """How many of the oldest turns must be dropped until the query fits behind taught pictures and history.

        Where only a server counts tokens, the last turns are kept.
        """
        limit = self._limit
        if limit is None:
            return max(0, len(self.history) - UNCOUNTED_TURNS)
        dropped, room = 0, limit - self.learner.model.card.prompting.reply_tokens
        while self.history[dropped:] and (self.learner.prompt_length(query, self.history[dropped:]) or 0) > room:
            dropped += 1
        return dropped

    def _drop_oldest(self, count: int) -> tuple[str, ...]:
        """Drop the oldest turns of the history; a note about it if there are any."""
        self.history = self.history[count:]
        answers = "answer" if count == 1 else "answers"
        note = f"The oldest {count} {answers} of this dialogue no longer fit and are dropped; taught pictures stay."
        return (note,) if count else ()

    def _renamed(self, before: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Notes about names whose pictures have another name now."""
        for name, pictures in before.items():
            lost = len(pictures) - len(self.learner.pictures.by_name.get(name, ()))
            if name not in self.learner.pictures.by_name:
                yield f"{name} has no picture left and is forgotten."
            elif lost > 0:
                yield f"{lost} of them {'was' if lost == 1 else 'were'} {name} before."

    def _not_shown(self) -> Iterator[str]:
        """A note if not all taught pictures fit into the prompt."""
        shown, taught = len(self.learner.choose_support()), len(self.learner.pictures.ids)
        if shown < taught:
            yield f"{shown} of {taught} pictures fit into the context: the most representative ones."

    def _known_name(self, given: str) -> str | None:
        """A taught name as it was taught, whatever the case in which it is given."""
        return next((name for name in self.learner.pictures.names if name_key(name) == name_key(given)), None)


def count_pictures(learner: Learner, name: str) -> str:
    """The number of pictures of a name, in words."""
    count = len(learner.pictures.by_name[name])
    return f"{count} picture{'s' if count > 1 else ''}"
