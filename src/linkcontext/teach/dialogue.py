"""A dialogue in which names are taught, asked about and corrected in any order.

Every turn gets a new prompt with up to two parts. The taught pictures come first. The history, which is everything
else that was asked and answered, follows them, but only for questions that do not ask for a name: small models no
longer look back for names behind other turns (docs/chat.md has the figures). If both do not fit into the context, the
oldest turns of the history are dropped; taught pictures never are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from linkcontext.data.images import open_image
from linkcontext.data.layout import name_key
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError, first_few
from linkcontext.records import Turn
from linkcontext.teach.answer import Answer, answer_line
from linkcontext.teach.learner import Learner
from linkcontext.teach.lesson_notes import count_pictures, lesson_notes
from linkcontext.teach.names import MAX_LETTERS, canonical_name, is_same_thing
from linkcontext.teach.sentences import NAMING, understand
from linkcontext.teach.taught_pictures import TaughtPictures
from linkcontext.teach.vocabulary import unknown_words

UNCOUNTED_TURNS = 8  # of the history, for a model behind a server, which does not tell how long they are
WHAT_IT_DOES = (
    'I name things that I was shown. Show a picture and say "this is a NAME"; show another one to ask what it is. '
    'If the answer is wrong, say "no, it is a NAME".'
)
State = tuple[TaughtPictures, list[Turn], tuple[Path, ...]]  # what was taught, the history, the last pictures
NO_WORDS = 'I have no words for that. I can name pictures: ask "what is this?".'


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a sentence; `notes` tell what else happened, such as a picture that changed its name.

    A reply with neither `answer` nor `own_words` is about the dialogue: what was taught, or why there is no answer.
    """

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
    packs: dict[Path, tuple[int, int]] = field(default_factory=dict)  # that /save may write again, and their stamps
    _head: str = field(default="", init=False, repr=False)  # that named the last picture
    _before: list[State] = field(default_factory=list, init=False, repr=False)  # each change of what is taught

    def __post_init__(self) -> None:
        if self.budget and self.learner.model.card.context is None:
            raise InputError(
                f"--context {self.budget}: {self.learner.model.card.name} does not tell how many tokens a prompt has. "
                "Leave the flag out."
            )

    def say(self, text: str, pictures: Sequence[Path] = ()) -> Reply:
        """Handle a sentence about `pictures` or about the last ones: it teaches, corrects, forgets or asks."""
        sentence = " ".join(text.split())
        intent = understand(sentence, bool(pictures), self._known_thing)
        if intent.kind == "forget":
            return self.forget(self._known_thing(intent.name) or intent.name)
        if intent.kind == "teach":
            name = self._known_thing(intent.name) or intent.name
            reply = self.teach(name, pictures or self._last_pictures())
            return replace(reply, notes=(*self._taken_for(intent.name, name), *reply.notes))
        if intent.kind == "talk":
            names = self.learner.pictures.names
            return Reply(f"{WHAT_IT_DOES} {f'I know: {first_few(names)}.' if names else 'Nothing is taught yet.'}")
        if intent.kind == "unclear":
            for path in pictures:
                open_image(path)
            self.last = tuple(pictures) or self.last
            return Reply(intent.reply)
        if len(pictures) > 1:
            raise InputError("ask about one picture at a time, or say what they are: 'these are NAME'.")
        reply = self.ask(pictures[0] if pictures else None, sentence if intent.kind == "ask" else "")
        if intent.kind == "check" and reply.answer is not None:
            agrees = reply.answer.name == self._known_thing(intent.name)
            return replace(reply, text=f"{'yes' if agrees else 'no'}: {reply.text}")
        return reply

    def teach(self, name: str, pictures: Iterable[Path]) -> Reply:
        """Show pictures under a name. Pictures that had another name move to this one."""
        (line,), notes = self.teach_all({self._known_name(name) or name: tuple(pictures)})
        return Reply(line, notes)

    def teach_all(self, named: Mapping[str, Sequence[Path]]) -> tuple[list[str], tuple[str, ...]]:
        """Show pictures under several names; return a line for each name, and notes as in `Reply`."""
        learner, before = self.learner, _state(self)
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
            learner.pictures = before[0]
            raise
        if before[0].by_name != learner.pictures.by_name:
            self._before.append(before)
        # Earlier answers about these pictures are settled now; the model would believe a wrong name among them.
        items = {learner.query(path).item for path in paths}
        self.history = [turn for turn in self.history if turn.question or turn.item not in items]
        self.last = paths
        lines = [f"{name}: {count_pictures(learner, name)}." for name in map(canonical_name, named)]
        return lines, (
            *lesson_notes(learner, before[0].by_name),
            *self._drop_oldest(self._excess_history(query)),
        )

    def ask(self, picture: Path | None = None, question: str = "") -> Reply:
        """Ask about a picture, or about the last one. Questions for its name are answered from the taught names."""
        path = picture or self._last_pictures()[-1]
        self._refuse_unusable(path, question)
        query = self.learner.query(path, "" if NAMING.fullmatch(question) else question)
        dropped = self._excess_history(query)
        reply = self.answer(path, question, self.history[dropped:])
        notes = self._drop_oldest(dropped)
        if name := reply.answer.name if reply.answer else reply.own_words and reply.text:
            self.history.append(replace(query, answer=name))
        self.last = (path,)
        return replace(reply, notes=(*reply.notes, *notes))

    def answer(self, path: Path, question: str = "", history: Sequence[Turn] = ()) -> Reply:
        """Answer a question about a picture after a history. Neither the picture nor the answer is remembered."""
        self._refuse_unusable(path, question)
        question = "" if NAMING.fullmatch(question) else question
        query, model, names = self.learner.query(path, question), self.learner.model, self.learner.pictures.names
        if not question and (len(names) > 1 or self.learner.pictures.name_of(query.item)):
            answer = self.learner.ask(path)
            return Reply(answer_line(answer), () if answer.taught else self._head_note(), answer)
        if not question and names:
            return Reply(f"Only {names[0]} is taught, so there is nothing to choose from. Teach a second name.")
        if unknown := unknown_words(model, question, names):
            listed = first_few([f'"{word}"' for word in unknown])
            return Reply(f"I do not know {'these words' if len(unknown) > 1 else 'this word'}: {listed}. {NO_WORDS}")
        text = self._generate(path, query, history if question else [])
        if not text.strip() or unknown_words(model, text, names if self._mentions_name(query) else ()):
            return Reply(NO_WORDS if question else f"Nothing is taught yet, so I know no name for it. {WHAT_IT_DOES}")
        return Reply(text, own_words=path)

    def forget(self, name: str) -> Reply:
        """Remove a name, and the answers that gave it."""
        known, before = self.learner.pictures.taught_name(self._known_name(name) or name), _state(self)
        self.learner.forget(known)
        self._before.append(before)
        self.history = [turn for turn in self.history if turn.answer != known]
        return Reply(f"{known} is forgotten.")

    def undo(self) -> Reply:
        """Take back the last lesson, correction or forgotten name, and the answers that were given since."""
        if not self._before:
            raise InputError("there is nothing to undo: nothing was taught, corrected or forgotten in this dialogue.")
        changed = self.learner.pictures
        self.learner.pictures, self.history, self.last = self._before.pop()
        now = self.learner.pictures.by_name
        lines = [
            f"{name}: {count_pictures(self.learner, name) if name in now else 'not taught'}"
            for name in dict.fromkeys((*changed.by_name, *now))
            if changed.by_name.get(name) != now.get(name)
        ]
        return Reply(f"Undone. {', '.join(lines)}.")

    def tokens(self) -> tuple[int, int] | None:
        """The number of tokens of the taught pictures and the history, and the maximum; None behind a server."""
        length, limit = self.learner.prompt_length(history=self.history), self._limit
        return None if length is None or limit is None else (length, limit)

    def _refuse_unusable(self, path: Path, question: str) -> None:
        """Raise `InputError` for a picture that cannot be opened, and for a question with a special token."""
        open_image(path)
        refuse_marks(question, self.learner.model.card.special_tokens, repr(question[:MAX_LETTERS]))

    def _last_pictures(self) -> tuple[Path, ...]:
        if not self.last:
            raise InputError("which picture is meant? Show it together with the sentence.")
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

    def _head_note(self) -> tuple[str, ...]:
        """A sentence about what names pictures, if it is another head than the last time."""
        if self.learner.model.lacks("log-probabilities"):
            return ()
        choice = self.learner.choose_head()
        before, self._head = self._head, choice.head
        return (choice.describe(),) if choice.head != before else ()

    def _taken_for(self, given: str, name: str) -> tuple[str, ...]:
        """A note if a given name is taken for another one, which was taught."""
        if name_key(given) == name_key(name):
            return ()
        return (
            f'"{given}" is taken for "{name}". To teach it as a name of its own, write /teach "{given}" and the '
            "pictures.",
        )

    def _known_name(self, given: str) -> str | None:
        """A taught name as it was taught, whatever the case in which it is given."""
        return next((name for name in self.learner.pictures.names if name_key(name) == name_key(given)), None)

    def _known_thing(self, given: str) -> str | None:
        """A taught name as it was taught, whatever the case, article and number in which it is given."""
        names = self.learner.pictures.names
        return self._known_name(given) or next((name for name in names if is_same_thing(name, given)), None)


def _state(dialogue: Dialogue) -> State:
    return dialogue.learner.pictures.copy(), [*dialogue.history], dialogue.last
