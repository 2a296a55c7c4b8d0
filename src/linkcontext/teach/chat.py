"""`linkcontext chat`: a dialogue in lines of text, typed or piped. Pictures are given by their paths."""

import glob
import importlib.util
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from linkcontext.data.formats import SUFFIXES
from linkcontext.errors import UNREACHABLE, InputError, path_error
from linkcontext.teach.dialogue import Dialogue, Reply
from linkcontext.teach.given_pictures import existing
from linkcontext.teach.lesson_notes import count_pictures
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_file import stamp
from linkcontext.teach.pack_writing import locked, write_pack

HELP = """\
cat.png: this is a cactihog     teach a picture; more pictures, a folder or *.png before the colon teach them all
other.png                       what is this?
is it a cactihog?               ask about the last picture, as every line without a picture does
other.png: what colour is it?   ask in your own words
no, that is a plimbo            correct the last picture, or all pictures of the last line
/teach NAME PICTURE...          the same as "PICTURE...: this is a NAME", also /teach "red fox" a.png b.png
/ask PICTURE [QUESTION]         the same as "PICTURE: QUESTION"
/forget NAME                    remove a name and its pictures
/undo                           take back the last lesson, correction or /forget
/names                          list the taught names, and how full the context is
/save zoo.pack                  save the taught names in a pack, for chat --pack and linkcontext ask; /save alone
                                writes the pack that the dialogue began with, or the last one saved
/help, /quit\
"""
QUIT = ("/quit", "/exit", "quit", "exit")
COMMAND = re.compile(r"/\w+")
_WORD = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|(\S+?))(:?),?(?=\s|$)""")
MARKS = "\"'?!.,;:()"  # around a path in a sentence
WITHOUT_PICTURES = ("/save", "/forget", "/names", "/undo", "/help")


def chat(dialogue: Dialogue, lines: Iterable[str], show: Callable[[str], None]) -> None:
    """Answer lines until they end or one is /quit. An error is shown as a line with "!", and the dialogue goes on."""
    for line in lines:
        if line.strip().casefold() in QUIT:
            return
        if line.strip():
            try:
                for answer in reply_lines(dialogue, line.strip()):
                    show(answer)
            except InputError as error:
                show(f"! {error}")
                _forget_last(dialogue, line)
            except OSError as error:
                if error.errno not in UNREACHABLE:
                    raise
                show(f"! {path_error(error)}")
                _forget_last(dialogue, line)


def _forget_last(dialogue: Dialogue, line: str) -> None:
    """After a refused line with pictures, "no, it is a NAME" would correct older ones, which are not meant."""
    words = line.split()
    behind = words[1:] if COMMAND.fullmatch(words[0]) else words
    if words[0] not in WITHOUT_PICTURES and any(_is_path(word.strip(MARKS)) for word in behind):
        dialogue.last = ()


def input_lines(show: Callable[[str], None]) -> Iterator[str]:
    """Lines from the terminal, with a prompt, or from a pipe, without one. There are none if stdin is closed."""
    if sys.stdin is None:
        return
    if isinstance(sys.stdin, io.TextIOWrapper):  # paths are bytes, which need not be of the input's encoding
        sys.stdin.reconfigure(errors="surrogateescape")
    if importlib.util.find_spec("readline") is not None:
        readline: Any = importlib.import_module("readline")  # editing, and the history on the arrow keys
        readline.parse_and_bind("tab: complete")  # the paths of files, as no other completer is set
        readline.set_completer_delims(" \t\n\"':")
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    show("Show pictures and say what they are. /help lists what you can write, /quit ends.")
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def reply_lines(dialogue: Dialogue, line: str) -> Iterator[str]:
    """The lines that answer one line."""
    if "\0" in line:
        raise InputError("the line holds a zero byte, which neither a path nor a sentence can hold. Remove it.")
    command, _, rest = line.partition(" ")
    if line.casefold() in ("names", "save", "undo") or (command.casefold() == "save" and rest.endswith(".pack")):
        command = f"/{command.casefold()}"
    if line.casefold() in ("/help", "help"):
        yield HELP
    elif command == "/names":
        yield from _names(dialogue)
    elif command == "/save":
        yield from _save(dialogue, rest.strip())
    else:
        reply = _reply(dialogue, command, rest.strip(), line)
        yield reply.text
        if reply.own_words is not None:
            yield f"  (the model's own words about {reply.own_words}; to teach it, say 'this is a NAME')"
        yield from (f"  ({note})" for note in reply.notes)


def _reply(dialogue: Dialogue, command: str, rest: str, line: str) -> Reply:
    if command == "/teach":
        words = _split(rest)
        first = _first_picture(words)
        return dialogue.teach(" ".join(words[:first]), [one for path in words[first:] for one in _pictures(path)])
    if command == "/ask":
        pictures, question = split_line(rest)
        if len(pictures) != 1:
            raise InputError("/ask PICTURE [QUESTION]: name one picture.")
        return dialogue.ask(pictures[0], question)
    if command == "/forget":
        return dialogue.forget(" ".join(_split(rest)))
    if command == "/undo":
        if rest:
            raise InputError("/undo takes nothing behind it: it takes back the last lesson, correction or /forget.")
        return dialogue.undo()
    if COMMAND.fullmatch(command) and not os.path.exists(command):  # noqa: PTH110
        raise InputError(f"{command}: no such command. /help lists them.")
    pictures, sentence = split_line(line)
    return dialogue.say(sentence, pictures)


def split_line(line: str) -> tuple[list[Path], str]:
    """Split a line into the pictures that it begins with and the sentence that follows them."""
    # os.path: Path raises an error for words that are too long to be a path.
    path, colon, sentence = line.partition(": ")
    if colon and os.path.isfile(path):  # noqa: PTH113 - a path with spaces needs no quotes if a colon follows
        return [Path(path)], sentence.strip()
    pictures: list[Path] = []
    at = 0
    while word := _WORD.match(line, at):
        path = next(text for text in word.groups() if text is not None)
        is_folder = "/" in path and (os.path.isdir(path) or (word[4] and path.endswith("/")))  # noqa: PTH112
        if not (path.lower().endswith(SUFFIXES) or is_folder):
            break
        pictures += _pictures(path)
        at = word.end()
        if word[4]:
            break
    sentence = line[at:].lstrip(" :,").strip()
    if not pictures:
        _refuse_late_picture(sentence)
    return pictures, sentence


def _first_picture(words: Sequence[str]) -> int:
    """Where the name ends and the pictures begin, at the earliest behind one word."""
    later = range(1, len(words))
    files = [place for place in later if _is_path(words[place]) or os.path.isfile(words[place])]  # noqa: PTH113
    folders = [place for place in later if os.path.isdir(words[place])]  # noqa: PTH112
    return (files or folders or [1])[0]


def _is_path(word: str) -> bool:
    """Whether a word looks like the path of a picture or a folder, or like a pattern of such paths."""
    return word.lower().endswith(SUFFIXES) or any(mark in word for mark in "/*?[")


def _refuse_late_picture(sentence: str) -> None:
    """Raise `InputError` for a picture behind other words: the question would be about the last picture instead."""
    for word in sentence.split():
        path = word.strip(MARKS)
        if path.lower().endswith(SUFFIXES) and os.path.isfile(path):  # noqa: PTH113
            raise InputError(
                f"{path}: a line begins with its picture. Write {path}: this is a NAME, or {path}: QUESTION?"
            )


def _pictures(path: str) -> list[Path]:
    """The picture at a path, those that match a pattern, or those in a folder."""
    place = Path(path)
    if place.is_dir():
        paths = sorted(p for p in place.iterdir() if p.name.lower().endswith(SUFFIXES))
    elif any(mark in path for mark in "*?[") and not place.exists():
        paths = sorted(map(Path, glob.glob(path, recursive=True)))  # noqa: PTH207 - Path.glob refuses some patterns
    else:
        return [existing(place)]
    if not paths:
        deeper = place.is_dir() and any(each.is_dir() for each in place.iterdir())
        raise InputError(f"{path}: there are no pictures. {'Name a folder in it.' if deeper else 'Check the path.'}")
    return paths


def _names(dialogue: Dialogue) -> Iterator[str]:
    names = dialogue.learner.pictures.names
    if not names:
        yield "No names are taught yet. Show a picture: 'cat.png: this is a cactihog'"
        return
    for name in names:
        yield f"{name}: {count_pictures(dialogue.learner, name)}"
    if tokens := dialogue.tokens():
        yield f"{tokens[0]:,} of {tokens[1]:,} tokens of the context are used"


def _save(dialogue: Dialogue, text: str) -> list[str]:
    """Write a new pack, or one that the dialogue began with or saved, unless another program has changed it since."""
    if not (text or dialogue.packs):
        raise InputError("name the pack to write: /save zoo.pack")
    path = Path(" ".join(_split(text))) if text else [*dialogue.packs][-1]
    if (own := dialogue.packs.get(path.resolve())) is None:
        pack = write_pack(dialogue.learner, path, dialogue.licence, new=True)
    else:
        with locked(path):
            if path.exists() and stamp(path) != own:
                raise InputError(
                    f"{path}: another program has changed it since this dialogue read it. Save to another name: "
                    "/save NAME.pack"
                )
            keep_state = read_pack(path).has_state if path.exists() else True
            pack = write_pack(dialogue.learner, path, dialogue.licence, keep_state)
    dialogue.packs.pop(path.resolve(), None)  # the last one stands at the end
    dialogue.packs[path.resolve()] = stamp(path)
    return pack.describe()


def _split(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{text}: a quote is not closed. Close it.") from error
    if not words:
        raise InputError("the name is missing. /help shows how the command is written.")
    return words
