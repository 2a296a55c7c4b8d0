"""Errors of public functions in the words of Python: keyword arguments, where the command line has flags."""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from typeguard import TypeCheckError, check_type

from linkcontext.errors import InputError, quoted

P = ParamSpec("P")
R = TypeVar("R")
RENAMED = {"shots_per_class": "shots"}  # keyword arguments whose flag has another name
OPENED = ("model", "data", "path")  # what is opened is checked there
LIKENESS = 0.5  # of a misspelt word to the one that is suggested
# Text between backticks is a command line, where flags are right. A flag at the beginning has its value behind it.
FLAG = re.compile(r"`[^`]*`|^--([a-z][a-z0-9-]*)(?: ([^\s:]+))?(?=:)|(?<![\w-])--([a-z][a-z0-9-]*)")


def in_python_words(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which refuses unknown keyword arguments and values of other types with a sentence.

    Its other `InputError`s name keyword arguments instead of flags: `shots_per_class=0`, not `--shots-per-class 0`.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        known = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
        if unknown := [name for name in kwargs if name not in known]:
            raise InputError(
                f"{unknown[0]}: no such option.{did_you_mean(unknown[0], known)} The options are {', '.join(known)}."
            )
        for name, value in kwargs.items():
            if name not in OPENED:
                check_option(name, value, function.__annotations__[name])
        try:
            return function(*args, **kwargs)
        except InputError as error:
            error.args = (without_flags(str(error), known), *error.args[1:])
            raise

    return call


def check_option(name: str, value: Any, kind: Any) -> None:
    """Raise an `InputError` if a value is not of a type, which it names."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            allowed = [str(choice) for choice in get_args(kind)]
            hint = did_you_mean(str(value), allowed)
            raise InputError(f"{name}={quoted(value)}: not one of {', '.join(allowed)}.{hint}")
        return
    try:
        check_type(value, kind)
    except TypeCheckError as error:
        raise InputError(f"{name}={quoted(value)}: has the type {type(value).__name__}, not {_words(kind)}.") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the most similar of the known words, after a space; "" if none is similar."""
    near = _most_similar(word, list(known))
    return f" Did you mean {near}?" if near else ""


def did_you_mean_path(path: Path, beside: Iterable[Path]) -> str:
    """The same for a path that is not there, with the paths in its folder: their names are compared."""
    by_name = {other.name: other for other in beside}
    near = _most_similar(path.name, list(by_name))
    return f" Did you mean {by_name[near]}?" if near else ""


def _most_similar(word: str, words: Sequence[str]) -> str | None:
    begins = [one for one in words if word.startswith(f"{one}_") or one.startswith(f"{word}_")]
    return next(iter(begins or get_close_matches(word, words, 1, LIKENESS)), None)


def without_flags(sentence: str, known: Collection[str]) -> str:
    """A sentence with the known keyword arguments in place of the flags of the command line."""

    def keyword(match: re.Match[str]) -> str:
        first, value, other = match.groups()
        if first is None and other is None:
            return match[0]
        name = (first or other).replace("-", "_")
        name = name if name in known else RENAMED.get(name, name)
        return f"{name}={value}" if value else name

    return FLAG.sub(keyword, sentence)


def _words(kind: Any) -> str:
    """A type as users write it."""
    text = inspect.formatannotation(kind)
    return re.sub(r"\b(?:[a-z_]+\.)+", "", text)
