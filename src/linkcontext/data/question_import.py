"""Questions of another tool become a folder of pictures with a manifest that holds the questions."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from linkcontext.data import images
from linkcontext.data.formats import HEAD, SUFFIXES
from linkcontext.data.layout import source_group
from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.data.picture_paths import PictureFinder
from linkcontext.data.problems import Problems
from linkcontext.data.reader import ImportedQuestion
from linkcontext.data.readers.question_checks import folded
from linkcontext.errors import InputError, counted, first_few
from linkcontext.progress import progress
from linkcontext.records import Item, Question
from linkcontext.storage import write_folder

Read = Callable[[Path, Problems], Iterator[ImportedQuestion]]


def import_questions(
    read: Read, layout: str, path: Path, image_folder: str | None, out: Path | None, problems: Problems
) -> list[str]:
    """Check the questions of a file and, with `out`, write them with their pictures; returns what there is of them."""
    path = path if path.name not in ("", "..") else path.resolve()  # a folder's name may be the name of the task
    root = path if path.is_dir() and not (path / "query.json").is_file() else path.parent
    finder = PictureFinder(str(path), Path(image_folder) if image_folder else root, problems)
    questions = _QuestionsByPicture(str(path), problems)
    for imported in read(path, problems):
        with problems.leaving_out():
            questions.add(imported, finder)
    finder.report()
    if questions.repeated:
        problems.note(
            f"{path}: questions that are asked about a picture more than once, kept once: {questions.repeated}."
        )
    questions.remove_contradicted({})
    if not questions.by_picture:
        raise problems.nothing_usable(str(path), "question")
    if out is not None:
        write_folder(out, lambda folder: _write(folder, layout, finder.root, questions))
    return questions.summary()


@dataclass(slots=True)
class _QuestionsByPicture:
    """The questions about each picture; one about several pictures belongs to its first.

    `splits` is the split of a picture, which is that of the first question about it.
    """

    source: str
    problems: Problems
    by_picture: dict[str, list[Question]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    repeated: int = 0

    def add(self, imported: ImportedQuestion, finder: PictureFinder) -> None:
        """Add a question, unless a picture is missing. Raises `InputError` for a path that is not allowed."""
        if any(_leads_out(path) for paths in imported.pictures for path in paths):
            raise InputError(
                f"{imported.where}: a picture needs a path inside the folder, without .. and without names "
                "that begin with a dot."
            )
        existing = finder.find(imported.pictures, imported.where)
        if existing is None:
            return
        paths = [PurePosixPath(path).as_posix() for path in existing]  # ./a.png is a.png
        for path in paths:
            self.splits.setdefault(path, imported.split)
        split = "" if self.splits[paths[0]] == imported.split else imported.split
        question = replace(imported.question, others=tuple(paths[1:]), split=split)
        known = self.by_picture.setdefault(paths[0], [])
        if question in known:
            self.repeated += 1
        else:
            known.append(question)

    def pictures(self) -> list[str]:
        """All pictures that questions are about, each once."""
        return [
            *dict.fromkeys(
                path
                for first, questions in self.by_picture.items()
                for path in (first, *(other for question in questions for other in question.others))
            )
        ]

    def keep_only(self, usable: Mapping[str, object]) -> None:
        """Remove the questions about pictures that cannot be used."""
        for first, questions in [*self.by_picture.items()]:
            self._set(first, [q for q in questions if {first, *q.others} <= usable.keys()])

    def remove_contradicted(self, contents: Mapping[str, str]) -> None:
        """Remove the questions that have different answers about the same pictures.

        `contents` maps each picture that was decoded to the hash of its pixels: copies are one picture.
        """

        def subject(first: str, q: Question) -> object:
            """A key that is equal for two questions that must have the same answer."""
            pictures = tuple(contents.get(path, path) for path in (first, *q.others))
            return pictures, q.task, q.concept, folded(q.question), q.context, frozenset(map(folded, q.candidates))

        answers: dict[object, set[str]] = {}
        for first, questions in self.by_picture.items():
            for q in questions:
                answers.setdefault(subject(first, q), set()).add(folded(q.answer))
        contradicted: list[str] = []
        for first, questions in [*self.by_picture.items()]:
            agreed = [q for q in questions if len(answers[subject(first, q)]) == 1]
            contradicted += [first] * (len(questions) - len(agreed))
            self._set(first, agreed)
        if contradicted:
            self.problems.add(
                f"{self.source}: questions that have different answers about the same picture: {len(contradicted)} "
                f"({first_few(contradicted)}). They are left out, because no answer to them is right."
            )

    def _set(self, first: str, questions: list[Question]) -> None:
        if questions:
            self.by_picture[first] = questions
        else:
            del self.by_picture[first]

    def summary(self) -> list[str]:
        """Sentences: how many questions there are, and of which tasks."""
        every = [question for questions in self.by_picture.values() for question in questions]
        counts = Counter(question.task for question in every)
        concepts = Counter(task for task, _ in {(question.task, question.concept) for question in every})
        several = sum(bool(question.others) for question in every)
        more = f", {several:,} of them about several at once" if several else ""
        return [
            f"{counted(len(every), 'question')} about {counted(len(self.pictures()), 'picture')}{more}",
            *(
                f"{task}: {counted(count, 'question')}, concepts: {concepts[task]:,}"
                for task, count in sorted(counts.items())
            ),
        ]


def _leads_out(path: str) -> bool:
    """Whether a path leads out of its folder, or to a hidden file, which is never read."""
    parts = PurePosixPath(path)
    return parts.is_absolute() or any(part.startswith(".") for part in parts.parts)


def _write(folder: Path, layout: str, root: Path, questions: _QuestionsByPicture) -> None:
    """Write the pictures that can be opened, and the manifest. Questions about other pictures are removed."""
    links: dict[str, tuple[str, str]] = {}  # path -> name in the folder, SHA-256
    contents: dict[str, str] = {}  # path -> hash of the pixels
    pictures = questions.pictures()
    with progress(f"Reading the pictures in {root}", len(pictures)) as advance:
        for path in pictures:
            with questions.problems.leaving_out():
                name, contents[path] = _link(root / path, folder, path)
                links[path] = name, images.sha256(folder / name)
            advance()
    questions.remove_contradicted(contents)
    questions.keep_only(links)
    names, items = {path: name for path, (name, _) in links.items()}, list[Item]()
    for path in questions.pictures():
        name, sha256 = links.pop(path)
        about = tuple(
            replace(q, others=tuple(names[other] for other in q.others)) for q in questions.by_picture.get(path, ())
        )
        split = questions.splits[path]
        items.append(Item(name, name, layout, "picture", sha256, split, source_group(path), questions=about))
    for name, _ in links.values():  # good pictures of questions about another picture that cannot be used
        _remove_with_folders(folder, name)
    if not items:
        raise questions.problems.nothing_usable(questions.source, "picture")
    write_manifest(Dataset(folder, tuple(items)))


def _remove_with_folders(folder: Path, name: str) -> None:
    """Remove a file, and the folders above it that are empty then."""
    (folder / name).unlink()
    for above in Path(name).parents:
        if above.name and not any((folder / above).iterdir()):
            (folder / above).rmdir()


def _link(picture: Path, folder: Path, path: str) -> tuple[str, str]:
    """Put a picture into the folder under a name with the suffix of its format; returns the name and its pixels' hash.

    It is a hard link, which takes no space, or a copy if the file system has no links to the picture's disk.
    """
    content = images.hash_pixels(picture)
    if not path.lower().endswith(SUFFIXES):  # SEED-Bench's pictures have no suffix
        with picture.open("rb") as file:
            path += images.suffix(file.read(HEAD)) or ""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.hardlink_to(picture.resolve())
    except FileExistsError as error:  # not overwritten, because it is a link to somebody's picture
        raise InputError(f"{picture}: another picture is called {path} already. Rename one of them.") from error
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(picture, place)
    return path, content
