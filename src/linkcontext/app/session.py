"""What one visitor of the web page has taught, asked and said. It does not use Gradio."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.app.stored_pictures import StoredPictures
from linkcontext.config import HeadName
from linkcontext.data.uploads import copy_files, pictures_by_folder, unpack
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.errors import InputError
from linkcontext.scoring.local import scoring_model
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.source import open_data
from linkcontext.teach.dialogue import Dialogue, Reply
from linkcontext.teach.learner import Learner

SHOTS, QUERIES = 4, 2  # pictures per class of an example
ASKED = 100  # pictures that can be asked about at once
SHOWN_AT_ONCE = 8  # answers after which the page shows what there is


@dataclass(frozen=True, slots=True)
class ChatLine:
    """A line of the chat with its pictures."""

    who: str  # you, model, or sorry for an error
    text: str
    pictures: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Session:
    """What one visitor has taught, asked and said. `folder` belongs to the session and is removed with it.

    `chosen` are the pictures of the next lesson. `asked` are those that are asked about, with `question` ("" asks for
    their names); `answers` has their replies, in order, as far as they are computed. A change of what is taught, or of
    the head, removes all answers.
    """

    model: ScoringModel
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="linkcontext-")))
    head: HeadName = "auto"
    lines: list[ChatLine] = field(default_factory=list)
    chosen: tuple[Path, ...] = ()
    asked: tuple[Path, ...] = ()
    question: str = ""
    answers: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = scoring_model(self.model)
        self.stored = StoredPictures(self.folder)
        self.dialogue = Dialogue(Learner(self.model, head=self.head))

    def close(self) -> None:
        """Remove all uploaded files."""
        self.stored.close()

    # Teaching

    def choose(self, files: Sequence[Path]) -> list[str]:
        """Add pictures to those of the next lesson; returns sentences about files that are left out."""
        pictures, problems = self.stored.store_readable(files)
        self.chosen = tuple(dict.fromkeys((*self.chosen, *pictures)))
        return problems

    def unchoose(self, number: int) -> None:
        """Take a picture out of the next lesson."""
        self.chosen = tuple(path for place, path in enumerate(self.chosen) if place != number)

    def teach(self, name: str) -> list[str]:
        """Show the chosen pictures under a name; returns sentences about what happened."""
        if not name.strip() or not self.chosen:
            raise InputError("teaching needs a name and at least one picture. Give both.")
        with self.stored.errors_as_sent():
            reply = self.dialogue.teach(name, self.chosen)
        self.chosen = ()
        self.answers = []
        return [reply.text, *reply.notes]

    def teach_archive(self, archive: Path) -> list[str]:
        """Teach from a zip with one folder of pictures for each name."""
        with self.stored.errors_as_sent(archive), tempfile.TemporaryDirectory(dir=self.folder) as into:
            unpack(archive, Path(into))
            return self._teach_folder(Path(into))

    def teach_folder(self, files: Mapping[str, Path]) -> list[str]:
        """Teach from a folder with one folder of pictures for each name: uploaded files by their paths in it."""
        with self.stored.errors_as_sent(), tempfile.TemporaryDirectory(dir=self.folder) as into:
            copy_files(files, Path(into))
            return self._teach_folder(Path(into))

    def teach_example(self, spec: str, seed: int) -> list[str]:
        """Start over with three classes of a data set under invented names; unseen pictures of them are asked about."""
        dataset = open_data(spec)
        plan = EpisodePlan(3, (SHOTS,), episodes=1, queries=3 * QUERIES, names="pseudo", seed=seed)
        (episode,) = sample_episodes(dataset, plan).episodes
        self.restart()
        named = {
            c.name: [dataset.path(turn.item) for turn in episode.support if turn.class_id == c.class_id]
            for c in episode.candidates
        }
        lines, notes = self.dialogue.teach_all(named)
        self.asked = tuple(dataset.path(query.item) for query in episode.queries)
        return [*lines, *notes]

    def forget(self, name: str) -> str:
        """Remove a name and its pictures; returns a sentence."""
        self.answers = []
        return self.dialogue.forget(name).text

    def restart(self) -> None:
        """Forget everything but the choice of a head."""
        self.dialogue = Dialogue(Learner(self.model, head=self.head))
        self.lines, self.chosen, self.asked, self.question, self.answers = [], (), (), "", []

    # Asking

    def ask(self, files: Sequence[Path], question: str = "") -> list[str]:
        """Ask about uploaded pictures, or about the last ones if there are none. `answer` computes the answers.

        Returns sentences about files that are left out.
        """
        if len(files) > ASKED:
            raise InputError(f"{len(files):,} pictures are more than the {ASKED} that can be asked about at once.")
        pictures, problems = self.stored.store_readable(files)
        if problems and not pictures:
            raise InputError(" ".join(problems))
        if not (pictures or self.asked):
            raise InputError("drop a picture to ask about first.")
        self.asked = pictures or self.asked
        self.question, self.answers = " ".join(question.split()), []
        return problems

    def answer(self) -> Iterator[None]:
        """Compute the missing answers, and stop in between to show those that there are."""
        for path in self.asked[len(self.answers) :]:
            try:
                with self.stored.errors_as_sent():
                    reply = self.dialogue.answer(path, self.question)
            except InputError as error:
                if len(self.asked) == 1:
                    raise
                reply = Reply(str(error))
            self.answers.append(reply)
            if len(self.answers) % SHOWN_AT_ONCE == 0:
                yield

    def correct(self, number: int, name: str) -> list[str]:
        """Teach an asked picture under its right name; returns sentences. All answers have to be computed again."""
        if not 0 <= number < len(self.asked):
            raise InputError("this picture is no longer among those that you ask about. Drop it again.")
        if not name.strip():
            raise InputError("give the name of what is in the picture.")
        with self.stored.errors_as_sent():
            reply = self.dialogue.teach(name, [self.asked[number]])
        self.answers = []
        return [reply.text, *reply.notes]

    def use_head(self, head: HeadName) -> None:
        """Name pictures by another head from now on."""
        self.head = self.dialogue.learner.head = head
        self.answers = []

    def wait(self) -> str:
        """A sentence about what takes time before the next answer; "" if nothing does.

        The head is chosen when a picture is asked, again after each change of what is taught.
        """
        learner = self.dialogue.learner
        known = learner.computed.key == learner.pictures.key and f"head {learner.head}" in learner.computed.values
        if known or len(learner.pictures.names) < 2:
            return ""
        count = len(learner.pictures.ids)
        return f"Choosing what names pictures best: each of the {count} taught pictures is left out once."

    # Chat

    def hear(self, text: str, files: Sequence[Path]) -> None:
        """Add what is said in the chat to its lines. An error becomes a line of its own, and the chat goes on."""
        try:
            with self.stored.errors_as_sent():
                self.lines.append(ChatLine("you", text, self.stored.store(files)))
        except InputError as error:
            self.lines += [ChatLine("you", text), ChatLine("sorry", str(error))]

    def reply(self) -> None:
        """Reply to the last line of the chat, unless that is a reply already."""
        if not self.is_reply_missing:
            return
        line, before = self.lines[-1], self.dialogue.learner.pictures.key
        try:
            with self.stored.errors_as_sent():
                reply = self._reply_to(line.text, line.pictures)
            own = ("In the model's own words, about the last picture.",) if reply.own_words is not None else ()
            self.lines.append(ChatLine("model", reply.text, notes=(*own, *reply.notes)))
        except InputError as error:
            self.lines.append(ChatLine("sorry", str(error)))
        if self.dialogue.learner.pictures.key != before:
            self.answers = []

    @property
    def is_reply_missing(self) -> bool:
        """Whether something was said in the chat that has no reply yet."""
        return bool(self.lines) and self.lines[-1].who == "you"

    def _reply_to(self, text: str, pictures: Sequence[Path]) -> Reply:
        """The reply to a sentence, or to one of the commands of `linkcontext chat` that the page has."""
        command, _, rest = text.partition(" ")
        name = rest.strip().strip("\"'")
        if command == "/teach" and name and pictures:
            return self.dialogue.teach(name, pictures)
        if command == "/forget" and name:
            return self.dialogue.forget(name)
        if text.startswith("/"):
            raise InputError(
                f"{command}: the commands here are /teach NAME, with pictures, and /forget NAME. You can also say "
                "'this is a NAME', or ask."
            )
        return self.dialogue.say(text, pictures)

    def _teach_folder(self, folder: Path) -> list[str]:
        classes = pictures_by_folder(folder)
        named = {
            name: self.stored.store(paths, [path.relative_to(folder).as_posix() for path in paths])
            for name, paths in classes.pictures.items()
        }
        lines, notes = self.dialogue.teach_all(named)
        self.answers = []
        return [*lines, *notes, *(f"Left out: {problem}" for problem in classes.problems)]
