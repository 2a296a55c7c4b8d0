"""A visitor of the web page: a dialogue, the uploaded pictures, and the lines of the chat. It does not use Gradio.

Uploaded files are read once, checked, and stored under the hash of their content. Names and paths that a browser sends
are never opened.
"""

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data.formats import HEAD
from linkcontext.data.images import open_image, sha256, suffix
from linkcontext.data.uploads import FILES, UPLOAD_BYTES, copy_files, pictures_by_folder, unpack
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.errors import InputError
from linkcontext.scoring.local import scoring_model
from linkcontext.scoring.protocol import ScoringModel, require
from linkcontext.source import open_data
from linkcontext.storage import read_errors, replacing
from linkcontext.teach.answer import Answer
from linkcontext.teach.dialogue import Dialogue, Reply
from linkcontext.teach.learner import Learner
from linkcontext.teach.lesson_notes import count_pictures
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack

SHOTS, QUERIES = 4, 2  # pictures per class of an example


@dataclass(frozen=True, slots=True)
class ChatLine:
    """A line of the chat with its pictures."""

    who: str  # you, model, or sorry for an error
    text: str
    pictures: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Session:
    """What one visitor has taught and said. `folder` belongs to the session and is removed with it."""

    model: ScoringModel
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="linkcontext-")))
    lines: list[ChatLine] = field(default_factory=list)
    unseen: tuple[Path, ...] = ()  # pictures of an example that were not taught
    _sent: dict[Path, list[str]] = field(
        default_factory=dict, init=False, repr=False
    )  # names under which files were sent

    def __post_init__(self) -> None:
        self.model = scoring_model(self.model)
        self.dialogue = Dialogue(Learner(self.model))

    def close(self) -> None:
        """Remove all uploaded files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def teach(self, name: str, files: Sequence[Path]) -> list[str]:
        """Show pictures under a name; returns sentences about what happened."""
        if not name.strip() or not files:
            raise InputError("teaching needs a name and at least one picture. Give both.")
        with self._errors_as_sent():
            reply = self.dialogue.teach(name, self._store(files))
        return [reply.text, *reply.notes]

    def teach_archive(self, archive: Path) -> list[str]:
        """Teach from a zip with one folder of pictures for each name."""
        with self._errors_as_sent(archive), tempfile.TemporaryDirectory(dir=self.folder) as into:
            unpack(archive, Path(into))
            return self._teach_folder(Path(into))

    def teach_folder(self, files: Mapping[str, Path]) -> list[str]:
        """Teach from a folder with one folder of pictures for each name: uploaded files by their paths in it."""
        with self._errors_as_sent(), tempfile.TemporaryDirectory(dir=self.folder) as into:
            copy_files(files, Path(into))
            return self._teach_folder(Path(into))

    def teach_example(self, spec: str, seed: int) -> list[str]:
        """Start over with three classes of a data set under invented names, and with unseen pictures of them."""
        dataset = open_data(spec)
        plan = EpisodePlan(3, (SHOTS,), episodes=1, queries=3 * QUERIES, names="pseudo", seed=seed)
        (episode,) = sample_episodes(dataset, plan).episodes
        self.restart()
        named = {
            c.name: [dataset.path(turn.item) for turn in episode.support if turn.class_id == c.class_id]
            for c in episode.candidates
        }
        lines, notes = self.dialogue.teach_all(named)
        self.unseen = tuple(dataset.path(query.item) for query in episode.queries)
        return [*lines, *notes]

    def ask(self, file: Path) -> tuple[Path, Reply]:
        """Ask about an uploaded picture; returns its copy, too."""
        with self._errors_as_sent():
            (picture,) = self._store([file])
            return picture, self.dialogue.ask(picture)

    def ask_unseen(self, number: int) -> tuple[Path, Reply]:
        """Ask about an unseen picture of the example."""
        return self.unseen[number], self.dialogue.ask(self.unseen[number])

    def say(self, text: str, files: Sequence[Path]) -> None:
        """Say something in the chat. An error becomes a line of its own, and the chat goes on."""
        pictures: tuple[Path, ...] = ()
        try:
            with self._errors_as_sent():
                pictures = self._store(files)
                self.lines.append(ChatLine("you", text, pictures))
                if text.startswith("/"):
                    command = text.split(maxsplit=1)[0]
                    raise InputError(f"{command}: there are no commands here. Send a picture, say what it is, or ask.")
                reply = self.dialogue.say(text, pictures)
            own = ("In the model's own words, about the last picture.",) if reply.own_words is not None else ()
            self.lines.append(ChatLine("model", reply.text, notes=(*own, *reply.notes)))
        except InputError as error:
            if not self.lines or self.lines[-1].who != "you":
                self.lines.append(ChatLine("you", text))
            self.lines.append(ChatLine("sorry", str(error)))

    def restart(self) -> None:
        """Forget everything."""
        self.dialogue = Dialogue(Learner(self.model))
        self.lines, self.unseen = [], ()

    def save_pack(self) -> Path:
        """Write a pack of everything taught; returns its path."""
        if len(self.dialogue.learner.pictures.names) < 2:
            raise InputError("teach at least two names before you make a pack: with one there is nothing to choose.")
        path = self.folder / "taught.pack"
        with self._errors_as_sent():
            write_pack(self.dialogue.learner, path)
        return path

    def open_pack(self, file: Path) -> list[str]:
        """Start over with a pack that was written here for this model. The files of its pictures are not opened."""
        with self._errors_as_sent(file):
            pack = read_pack(file)
            if not pack.sealed:
                raise InputError(
                    f"{file}: was not written by this page's user on this machine. Teach its pictures here instead."
                )
            require(self.model, "token ids", "opening a pack")
            if pack.header.model.identity != self.model.loaded.identity:
                raise InputError(
                    f"{file}: was taught to {pack.model}, and this page serves {self.model.card.name}. Teach the "
                    "pictures here, or start the page with --model."
                )
            paths = {item: str(self.folder / item) for item in pack.header.paths}  # there are no such files
            header = dataclasses.replace(pack.header, paths=paths)
            dialogue = Dialogue(dataclasses.replace(pack, header=header).learner(self.model))
            dialogue.tokens()  # raises an error now if the pack does not fit the context
        self.restart()
        self.dialogue = dialogue
        return [f"{name}: {count_pictures(dialogue.learner, name)}." for name in dialogue.learner.pictures.names]

    def nearest(self, answer: Answer) -> list[tuple[str, bytes, float]]:
        """The taught pictures most similar to the query picture: name, PNG, cosine similarity."""
        thumbnails = self.dialogue.learner.pictures.thumbnails
        return [(n.name, thumbnails[n.picture], n.similarity) for n in answer.nearest if n.picture in thumbnails]

    def _teach_folder(self, folder: Path) -> list[str]:
        classes = pictures_by_folder(folder)
        named = {
            name: self._store(paths, [path.relative_to(folder).as_posix() for path in paths])
            for name, paths in classes.pictures.items()
        }
        lines, notes = self.dialogue.teach_all(named)
        return [*lines, *notes, *(f"Left out: {problem}" for problem in classes.problems)]

    def _store(self, files: Sequence[Path], names: Sequence[str] = ()) -> tuple[Path, ...]:
        """Check pictures and copy them, each under the hash of its content. `names` are those they were sent under."""
        if len(files) > FILES:
            raise InputError(f"{len(files):,} files are more than the {FILES:,} that can be sent at once. Send fewer.")
        names = names or [file.name for file in files]
        for file, name in zip(files, names, strict=True):
            self._sent.setdefault(file, []).append(name)
            with read_errors(file):
                size = file.stat().st_size
            if size > UPLOAD_BYTES:
                raise InputError(f"{name}: is larger than {UPLOAD_BYTES // 1_000_000} MB. Send a smaller file.")
            open_image(file)
        copies = []
        for file, name in zip(files, names, strict=True):
            with file.open("rb") as opened:
                ending = suffix(opened.read(HEAD))
            path = self.folder / f"{sha256(file)}{ending}"
            self._sent.setdefault(path, []).append(name)
            if not path.exists():
                with replacing(path) as new:
                    shutil.copyfile(file, new)
            copies.append(path)
        return tuple(copies)

    @contextmanager
    def _errors_as_sent(self, *files: Path) -> Iterator[None]:
        """Rewrite paths in errors to the names under which files were sent: a browser must not learn the paths here."""
        self._sent = {file: [file.name] for file in files}
        try:
            yield
        except InputError as error:
            sentence = str(error)
            for path in sorted(self._sent, key=lambda path: -len(str(path))):
                sentence = sentence.replace(str(path), " and ".join(dict.fromkeys(self._sent[path])))
            here = rf"{re.escape(str(self.folder))}/(tmp\w+/)?"  # an archive is unpacked into a folder tmp...
            raise InputError(re.sub(here, "", sentence)) from error
        except OSError as error:  # it names a path of this machine
            raise InputError(f"the files could not be stored ({error.strerror}). Is the server's disk full?") from error
