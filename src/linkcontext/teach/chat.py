"""`linkcontext chat`: a dialogue in plain lines, typed or piped. Pictures are given by their paths."""

import glob
import importlib.util
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from linkcontext.data.formats import SUFFIXES
from linkcontext.errors import UNREACHABLE, InputError, path_error
from linkcontext.teach.dialogue import Dialogue, Reply, pictures_of
from linkcontext.teach.pack import write_pack

HELP = """\
cat.png: this is a cactihog     teach a picture; more pictures, a folder or *.png before the colon teach them all
other.png                       what is this?
other.png: what colour is it?   ask in your own words; a line without a picture is about the last one
no, that is a plimbo            correct the last picture
/teach NAME PICTURE...          the same as "PICTURE...: this is a NAME", also /teach "red fox" a.png b.png
/ask PICTURE [QUESTION]         the same as "PICTURE: QUESTION"
/forget NAME                    take a name out
/names                          what was taught, and how full the context is
/save zoo.pack                  keep what was taught in a pack: chat --pack and linkcontext ask take it
/help, /quit\
"""
QUIT = ("/quit", "/exit", "quit", "exit")
_WORD = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|(\S+?))(:?)(?=\s|$)""")


def chat(dialogue: Dialogue, lines: Iterable[str], show: Callable[[str], None]) -> None:
    """Answer lines until they end or one says /quit. What cannot be done is a sentence, and the dialogue goes on."""
    for line in lines:
        if line.strip().casefold() in QUIT:
            return
        if line.strip():
            try:
                for said in answered(dialogue, line.strip()):
                    show(said)
            except InputError as error:
                show(f"! {error}")
            except OSError as error:
                if error.errno not in UNREACHABLE:
                    raise
                show(f"! {path_error(error)}")


def typed(show: Callable[[str], None]) -> Iterator[str]:
    """Lines from the terminal with a prompt, or from a pipe without one, until they end; none without a stdin."""
    if sys.stdin is None:
        return
    if isinstance(sys.stdin, io.TextIOWrapper):  # paths are bytes, which need not be of the input's encoding
        sys.stdin.reconfigure(errors="surrogateescape")
    if importlib.util.find_spec("readline") is not None:
        importlib.import_module("readline")  # lines can be edited, and come again with the arrow keys
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    show("Show pictures and say what they are. /help says how, /quit ends.")
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def answered(dialogue: Dialogue, line: str) -> Iterator[str]:
    """What is said back to a line."""
    if "\0" in line:
        raise InputError("the line holds a zero byte, which neither a path nor a sentence has. Leave it out.")
    command, _, rest = line.partition(" ")
    if line.casefold() in ("/help", "help"):
        yield HELP
    elif command == "/names":
        yield from _names(dialogue)
    elif command == "/save":
        yield from _saved(dialogue, rest.strip())
    else:
        reply = _reply(dialogue, command, rest.strip(), line)
        yield reply.text
        if reply.own_words is not None:
            yield f"  (the model's own words about {reply.own_words}; to teach it, say 'this is a NAME')"
        yield from (f"  ({note})" for note in reply.notes)


def _reply(dialogue: Dialogue, command: str, rest: str, line: str) -> Reply:
    if command == "/teach":
        name, *paths = _split(rest)
        return dialogue.teach(name, [picture for path in paths for picture in _pictures(path)])
    if command == "/ask":
        pictures, question = spelled(rest)
        if len(pictures) != 1:
            raise InputError("/ask PICTURE [QUESTION]: name one picture.")
        return dialogue.ask(pictures[0], question)
    if command == "/forget":
        return dialogue.forget(" ".join(_split(rest)))
    if re.fullmatch(r"/\w+", command) and not os.path.exists(command):  # noqa: PTH110
        raise InputError(f"{command}: no such command. /help lists them.")
    pictures, words = spelled(line)
    return dialogue.say(words, pictures)


def spelled(line: str) -> tuple[list[Path], str]:
    """The pictures that a line begins with, and what it says behind them."""
    # os.path: for words that are too long to be a path, Path raises an error.
    path, colon, words = line.partition(": ")
    if colon and os.path.isfile(path):  # noqa: PTH113 - a path with spaces needs no quotes where a colon ends it
        return [Path(path)], words.strip()
    pictures: list[Path] = []
    at = 0
    while found := _WORD.match(line, at):
        path = next(text for text in found.groups() if text is not None)
        if not (path.lower().endswith(SUFFIXES) or ("/" in path and os.path.isdir(path))):  # noqa: PTH112
            break
        pictures += _pictures(path)
        at = found.end()
        if found[4]:
            break
    words = line[at:].lstrip(" :").strip()
    if not pictures:
        _refuse_late_picture(words)
    return pictures, words


def _refuse_late_picture(words: str) -> None:
    """Raise `InputError` where a picture is named behind other words: the question would be about the last picture."""
    for word in words.split():
        path = word.strip("\"'?!.,;:()")
        if path.lower().endswith(SUFFIXES) and os.path.isfile(path):  # noqa: PTH113
            raise InputError(f"{path}: a line begins with its picture. Write it first: {path}: {words[:60]}")


def _pictures(path: str) -> list[Path]:
    """A picture, those that a pattern means, or those in a folder."""
    place = Path(path)
    if place.is_dir():
        paths = sorted(p for p in place.iterdir() if p.name.lower().endswith(SUFFIXES))
    elif any(mark in path for mark in "*?[") and not place.exists():
        paths = sorted(map(Path, glob.glob(path, recursive=True)))  # noqa: PTH207 - Path.glob refuses some patterns
    else:
        return [place]
    if not paths:
        raise InputError(f"{path}: no picture there. Check the path.")
    return paths


def _names(dialogue: Dialogue) -> Iterator[str]:
    if not dialogue.learner.shown:
        yield "nothing was taught yet: show a picture, 'cat.png: this is a cactihog'"
        return
    for name in dialogue.learner.shown:
        yield f"{name}: {pictures_of(dialogue.learner, name)}"
    used, most = dialogue.tokens()
    yield f"{used:,} of {most:,} tokens of context are taken"


def _saved(dialogue: Dialogue, text: str) -> list[str]:
    path = Path(" ".join(_split(text)))
    return write_pack(dialogue.learner, path, dialogue.licence, new=True).describe()


def _split(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{text}: a quote is not closed. Close it.") from error
    if not words:
        raise InputError("a name is missing. /help shows how it is written.")
    return words
