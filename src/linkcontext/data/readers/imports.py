"""From the files of other tools to a folder that is read here: pictures with questions, or conversations.

manifest.jsonl       pictures with their questions; the pictures are linked into the folder, or copied from another disk
conversations.json   messages + images, where a record is a conversation
"""

import os
import shutil
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from linkcontext.data import hub, images
from linkcontext.data.formats import HEAD, SUFFIXES
from linkcontext.data.layout import source_group
from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.data.readers import annotations, vl_icl
from linkcontext.data.readers.annotations import folded
from linkcontext.data.readers.conversations import Conversation, conversations, validated, write_conversations
from linkcontext.data.scan import Problems
from linkcontext.errors import NAMED, InputError, excerpt, first_few
from linkcontext.progress import progress
from linkcontext.records import Item, Question
from linkcontext.storage import occupied, write_folder

Layout = Literal["conversations", "seed", "vl-checklist", "visual-genome", "vl-icl"]
READERS = {
    "seed": annotations.seed,
    "vl-checklist": annotations.vl_checklist,
    "visual-genome": annotations.visual_genome,
    "vl-icl": vl_icl.vl_icl,
}
CONVERSATIONS = "conversations.json"


@dataclass(frozen=True, slots=True)
class Imported:
    """What was found, in sentences, and what was left out."""

    found: tuple[str, ...]
    problems: tuple[str, ...]


def possible_paths(name: str) -> list[str]:
    """Where a picture may lie, below the folder of the file that names it.

    A file written elsewhere may separate folders as Windows does, or compose letters with accents in another way.
    """
    names = [name]
    if not name.isascii():
        names += [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    if "\\" in name:
        names.append(name.replace("\\", "/"))
    return [place for each in dict.fromkeys(names) for place in (each, f"images/{each}")]


def import_files(layout: Layout, source: str, images: str | None, out: str | None, strict: bool = False) -> Imported:
    """Read all of a file, or of `hf:NAME`, and with `out` write a folder of what is right in it.

    Pictures are looked for below `images`, without it beside the file. With `out` those that get questions are
    decoded, those of conversations are when they are used. Raises `InputError` where nothing is right, for a file that
    is damaged as a whole, for an `out` that is not empty, and with `strict` for the first thing that is wrong.
    """
    problems, folder = Problems(strict), None if out is None else Path(out)
    if folder is not None and occupied(folder):
        raise InputError(f"{out}: there is something in it already. Choose an empty or new folder.")
    if source.startswith("hf:"):
        found = _hub(layout, source.removeprefix("hf:"), folder, problems)
    elif layout == "conversations":
        found = _conversations(Path(source), images, folder, problems)
    else:
        found = _questions(layout, Path(source), images, folder, problems)
    return Imported(tuple(found), tuple(problems.sentences))


@dataclass(slots=True)
class _Pictures:
    """Where the pictures of a file lie, and which are nowhere."""

    source: str
    root: Path
    problems: Problems
    lost: list[str] = field(default_factory=list)  # the first few
    count: int = 0

    def found(self, pictures: Iterable[Sequence[str]], where: str) -> list[str] | None:
        """A path below the root for each picture, given the paths to try. None where one is missing."""
        paths = []
        for places in pictures:
            tried = [place for name in places for place in possible_paths(name)]
            # os.path, because a file may name a million pictures, and a Path takes longer to make than to look for
            paths.append(next((place for place in tried if os.path.isfile(os.path.join(self.root, place))), ""))  # noqa: PTH113, PTH118
            if not paths[-1]:
                if self.problems.strict:
                    raise InputError(
                        f"{where}: its picture {excerpt(places[0])} is not below {self.root}. Say --images."
                    )
                self.count += 1
                self.lost += [places[0]] if len(self.lost) < NAMED and places[0] not in self.lost else []
            elif not paths[-1].lower().endswith(SUFFIXES):  # the name does not say whether it is a picture
                try:
                    images.refuse_other_kinds(self.root / paths[-1])
                except InputError as error:
                    self.problems.add(f"{where}: {error}")
                    return None
        return paths if all(paths) else None

    def told(self) -> None:
        """Name what is nowhere."""
        if self.count:
            self.problems.note(
                f"{self.source}: left out because a picture is not below {self.root}: {self.count} times "
                f"({first_few(self.lost)}, ...). Unpack the pictures, or say where they are with --images."
            )


def _nothing(source: str, what: str, problems: Problems) -> InputError:
    because = f" Left out: {first_few(problems.sentences, whole=True)}" if problems.sentences else ""
    return InputError(f"{source}: holds no {what} that can be used.{because}")


def _conversations(file: Path, images: str | None, out: Path | None, problems: Problems) -> list[str]:
    pictures = _Pictures(str(file), Path(images) if images else file.parent, problems)
    root = str(pictures.root.resolve())

    def told(folder: Path | None) -> Iterator[Conversation]:
        for each in conversations(file, problems):
            places = pictures.found([(name,) for name in each.pictures], f"{file}, id {each.id}")
            if places is not None:
                yield each if folder is None else _renamed(each, [os.path.join(root, place) for place in places])  # noqa: PTH118
        pictures.told()

    return _kept(told, str(file), out, problems)


def _hub(layout: Layout, name: str, out: Path | None, problems: Problems) -> list[str]:
    if layout != "conversations" or out is None:
        raise InputError(f"hf:{name}: a data set of the hub is read with --layout conversations and written to --out.")

    def told(folder: Path | None) -> Iterator[Conversation]:
        assert folder is not None
        return validated(hub.conversation_rows(name, folder), f"hf:{name}", problems)

    return _kept(told, f"hf:{name}", out, problems)


def _kept(
    told: Callable[[Path | None], Iterator[Conversation]], source: str, out: Path | None, problems: Problems
) -> list[str]:
    """Count conversations and, with `out`, write them; a second pass over the source is not needed."""
    counts = Counter[str]()

    def counted(folder: Path | None) -> Iterator[Conversation]:
        for each in told(folder):
            counts["conversations"] += 1
            counts["pictures"] += len(each.pictures)
            counts["answers"] += len(each.messages) // 2  # in turns, after a system message or none
            yield each
        if not counts:
            raise _nothing(source, "conversation", problems)

    if out is None:
        deque(counted(None), maxlen=0)
    else:
        write_folder(out, lambda folder: write_conversations(counted(folder), folder / CONVERSATIONS, "messages"))
    return [", ".join(f"{counts[each]:,} {each}" for each in ("conversations", "answers", "pictures"))]


def _renamed(told: Conversation, names: Sequence[str]) -> Conversation:
    """The conversation with other names for its pictures."""
    left = iter(names)
    messages = [
        {**m, "content": [{**p, "image": next(left)} if p["type"] == "image" else p for p in m["content"]]}
        for m in told.messages
    ]
    return Conversation(told.id, tuple(names), tuple(messages))


def _questions(layout: Layout, path: Path, images: str | None, out: Path | None, problems: Problems) -> list[str]:
    path = path if path.name not in ("", "..") else path.resolve()  # a folder's name says what it asks
    root = path if path.is_dir() and not (path / "query.json").is_file() else path.parent
    pictures = _Pictures(str(path), Path(images) if images else root, problems)
    asked: dict[str, list[Question]] = {}  # of the first picture that they are about
    splits: dict[str, str] = {}
    twice = 0
    for each in READERS[layout](path, problems):
        with problems.leaving_out():
            if any(_leads_out(place) for places in each.pictures for place in places):
                raise InputError(
                    f"{each.where}: a picture must be named by a path without .. or .names below a folder."
                )
            found = pictures.found(each.pictures, each.where)
            if found is None:
                continue
            places = [PurePosixPath(place).as_posix() for place in found]  # ./a.png is a.png
            for place in places:
                splits.setdefault(place, each.split)
            split = "" if splits[places[0]] == each.split else each.split
            question = replace(each.question, others=tuple(places[1:]), split=split)
            known = asked.setdefault(places[0], [])
            twice += question in known
            known += [question] if question not in known else []
    pictures.told()
    if twice:
        problems.note(f"{path}: questions that are asked about a picture more than once, kept once: {twice}.")
    _without_contradicted(asked, {}, str(path), problems)
    if not asked:
        raise _nothing(str(path), "question", problems)
    if out is not None:

        def write(folder: Path) -> None:
            _write(folder, layout, pictures.root, asked, splits, str(path), problems)
            if not asked:
                raise _nothing(str(path), "picture", problems)

        write_folder(out, write)
    return _summary(asked)


def _summary(by_picture: dict[str, list[Question]]) -> list[str]:
    """How many questions of which tasks there are, in sentences."""
    every = [question for questions in by_picture.values() for question in questions]
    counts = Counter(question.task for question in every)
    concepts = Counter(task for task, _ in {(question.task, question.concept) for question in every})
    several = sum(bool(question.others) for question in every)
    more = f", {several:,} of them about several at once" if several else ""
    return [
        f"{len(every):,} questions about {len(_places(by_picture)):,} pictures{more}",
        *(f"{task}: {count:,} questions, concepts: {concepts[task]:,}" for task, count in sorted(counts.items())),
    ]


def _without_contradicted(
    by_picture: dict[str, list[Question]], contents: Mapping[str, str], source: str, problems: Problems
) -> None:
    """Remove the questions with different answers about the same pictures.

    `contents` maps each picture that was decoded to the hash of its pixels: copies are one picture.
    """

    def subject(place: str, q: Question) -> object:
        """A key: two questions with the same one must have the same answer."""
        seen = tuple(contents.get(each, each) for each in (place, *q.others))
        return seen, q.task, q.concept, folded(q.question), q.context, frozenset(map(folded, q.candidates))

    answers: dict[object, set[str]] = {}
    for place, questions in by_picture.items():
        for q in questions:
            answers.setdefault(subject(place, q), set()).add(folded(q.answer))
    contradicted: list[str] = []
    for place, questions in [*by_picture.items()]:
        by_picture[place] = [q for q in questions if len(answers[subject(place, q)]) == 1]
        contradicted += [place] * (len(questions) - len(by_picture[place]))
        if not by_picture[place]:
            del by_picture[place]
    if contradicted:
        problems.add(
            f"{source}: questions that have different answers about the same picture: {len(contradicted)} "
            f"({first_few(contradicted)}). They are left out, because no answer to them is right."
        )


def _places(asked: dict[str, list[Question]]) -> list[str]:
    """All pictures that questions are about, each once."""
    return [*dict.fromkeys(p for first, told in asked.items() for p in (first, *(o for q in told for o in q.others)))]


def _leads_out(place: str) -> bool:
    path = PurePosixPath(place)
    return path.is_absolute() or any(part.startswith(".") for part in path.parts)  # hidden ones are never read


def _write(
    folder: Path,
    layout: str,
    root: Path,
    asked: dict[str, list[Question]],
    splits: dict[str, str],
    source: str,
    problems: Problems,
) -> None:
    """The folder: pictures that can be opened, and the manifest. In `asked` is left what can be asked of them."""
    linked: dict[str, tuple[str, str]] = {}  # place -> name in the folder, hash
    contents: dict[str, str] = {}  # place -> hash of what is seen
    places = _places(asked)
    with progress(f"Reading the pictures in {root}", len(places)) as advance:
        for place in places:
            with problems.leaving_out():
                name, contents[place] = _linked(root / place, folder, place)
                linked[place] = name, images.sha256(folder / name)
            advance()
    _without_contradicted(asked, contents, source, problems)
    for first, questions in [*asked.items()]:
        asked[first] = [q for q in questions if {first, *q.others} <= linked.keys()]
        if not asked[first]:
            del asked[first]
    named, items = {place: name for place, (name, _) in linked.items()}, list[Item]()
    for place in _places(asked):
        name, sha256 = linked.pop(place)
        told = tuple(replace(q, others=tuple(named[o] for o in q.others)) for q in asked.get(place, ()))
        items.append(Item(name, name, layout, "picture", sha256, splits[place], source_group(place), questions=told))
    for name, _ in linked.values():  # good, but in no question whose pictures all are
        (folder / name).unlink()
        for above in (folder / name).relative_to(folder).parents:
            if above.name and not any((folder / above).iterdir()):
                (folder / above).rmdir()
    if items:
        write_manifest(Dataset(folder, tuple(items)))


def _linked(picture: Path, folder: Path, path: str) -> tuple[str, str]:
    """Put a picture into the folder, under a name that says its format: the name, and a hash of what is seen.

    It takes no room where links are possible.
    """
    content = images.pixels(picture)
    if not path.lower().endswith(SUFFIXES):  # SEED-Bench's pictures have no suffix
        with picture.open("rb") as file:
            path += images.suffix(file.read(HEAD)) or ""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.hardlink_to(picture.resolve())
    except FileExistsError as error:  # never written into: it is a link to somebody's picture
        raise InputError(f"{picture}: another picture is called {path} already. Rename one of them.") from error
    except OSError:  # another disk, or one without links
        shutil.copyfile(picture, place)
    return path, content
