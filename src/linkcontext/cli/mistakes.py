"""A sentence for each mistake on the command line: what is wrong, and what to type instead.

The mistakes come from tyro's parser as events (`tyro._errors`); a kind of event that is not known here keeps tyro's own
message.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
from tyro import _errors

from linkcontext.cli.commands import COMMANDS, Command
from linkcontext.errors import excerpt

LONG_DASHES = "\u2013\u2014"  # word processors and web pages make them of two hyphens


def unknown_command(word: str, others: Sequence[str]) -> str:
    """The sentence about a first word that is no command."""
    if word.startswith("-"):
        command = next((other for other in others if other in COMMANDS), "COMMAND")
        return f"{word}: the command comes first, then its flags: linkcontext {command} {word} ..."
    if near := closest(word, COMMANDS):
        return f"{excerpt(word)}: no such command. Did you mean {near}?"
    if Path(word).is_dir():
        return (
            f"{excerpt(word)}: a folder, and no command. To teach the pictures in it: "
            f"linkcontext teach --data {shlex.quote(word)} --out zoo.pack"
        )
    return f"{excerpt(word)}: no such command. `linkcontext --help` lists the commands."


def long_dash(argument: str) -> str | None:
    """The sentence about an argument that begins with a long dash instead of two hyphens; None for any other."""
    if argument[:1] not in tuple(LONG_DASHES) or Path(argument).exists():
        return None
    return f"{argument}: begins with a long dash. Type two hyphens: --{argument.lstrip(LONG_DASHES + '-')}"


def empty_list(name: str, arguments: Sequence[str]) -> str | None:
    """The sentence about a flag for several values that has none: `--remove` at the end. None if there is no such flag.

    The parser takes it for an empty list, which is what the flag means when it is not given. Flags whose default is
    another list may be given without a value.
    """
    lists = {
        flag
        for flag, kind, default in _typed_flags(COMMANDS[name].options)
        if (get_origin(kind), default) == (tuple, ())
    }
    if {"-h", "--help"} & set(arguments):
        return None
    for word, following in pairwise([*arguments, "--"]):
        if word.replace("_", "-") in lists and (following.startswith("--") or following in ("-v", "-q")):
            return f"{word}: a value is missing. Write it after the flag, or leave the flag out."
    return None


def explain(event: object, name: str, arguments: Sequence[str]) -> str | None:
    """The sentence about an event of tyro's parser for the arguments of the command `name`; None for unknown events."""
    if name == "data" and any(word.partition("=")[0] == "--data" for word in arguments):
        return "--data: not needed here. Example: linkcontext data photos"
    sentence: str | None = None
    match event:
        case _errors.UnrecognizedArgs():
            sentence = _unrecognized(event.tokens, name, arguments)
        case _errors.MissingArgs():
            sentence = _missing(event, name, arguments)
        case _errors.MissingSubcommand():
            choices = " or ".join(event.subcommand_spec.parser_from_name)
            sentence = f"{name}: say what to do, {choices}. {_example(COMMANDS[name])}"
        case _errors.InvalidChoice():
            words = [word for word in _leaves(event.argument.field.type_stripped) if word in event.choices]
            sentence = f"{_flag(event.argument)} {_not_one_of(event.value, words or event.choices)}"
        case _errors.BadValue():
            sentence = f"{_flag(event.argument)}: a value is missing. Give {_spelled(event.argument)}."
        case _errors.InstantiationFailure() if event.argument is not None:
            sentence = _bad_value(event.argument, arguments)
        case _errors.InstantiationFailure():  # an `InputError` of the options
            sentence = event.message
    return sentence


def closest(word: str, options: Iterable[str]) -> str | None:
    """The option that a word with a typing error was meant to be; None if none is near."""
    by_letters = {option.strip("-").casefold(): option for option in options}
    letters = word.strip("-").casefold()
    begun = [option for option in by_letters if len(letters) > 1 and option.startswith(letters)]
    lengthened = [option for option in by_letters if len(option) > 2 and letters.startswith(option)]  # evaluate
    near = begun or lengthened or get_close_matches(letters, by_letters, 1)
    return by_letters[near[0]] if near else None


def flags_of(options: type[Any]) -> Iterator[str]:
    """The flags of a command's options, and of the dataclasses in them: `--data`, `--strict`, `--no-strict`."""
    for flag, kind, _ in _typed_flags(options):
        yield flag
        if kind is bool:
            yield f"--no-{flag.removeprefix('--')}"


def _typed_flags(options: type[Any]) -> Iterator[tuple[str, Any, Any]]:
    """The flags of a command's options, and of the dataclasses in them: each with its type and its default."""
    defaults = {field.name: field.default for field in fields(options)}
    for name, hint in get_type_hints(options, include_extras=True).items():
        notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        kind = get_args(hint)[0] if notes else hint
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _typed_flags(kind)
        elif name in defaults and tyro.conf.Positional not in notes:
            given = [note for note in notes if hasattr(note, "aliases")]  # tyro.conf.arg, with names of its own
            flags = [f"--{(one.name or name).replace('_', '-')}" for one in given] or [f"--{name.replace('_', '-')}"]
            flags += [alias for one in given for alias in one.aliases or () if alias.startswith("--")]
            yield from ((flag, kind, defaults[name]) for flag in flags)


def _missing(event: _errors.MissingArgs, name: str, arguments: Sequence[str]) -> str:
    """The sentence about required arguments that were not given, perhaps because of a typing error."""
    lacking = [_spelled(one.arg) for one in event.missing_arguments]
    if not event.unrecognized_tokens:
        return f"{_needs(name, lacking)} {_example(COMMANDS[name])}"
    mistake = _unrecognized(event.unrecognized_tokens, name, arguments)
    others = [spelling for spelling in lacking if spelling.split()[0] not in mistake]
    return f"{mistake} {_needs(name + ' also', others)}".strip()


def _unrecognized(tokens: Sequence[str], name: str, arguments: Sequence[str]) -> str:
    """The sentence about the first argument that the command does not take."""
    token = tokens[0].partition("=")[0] if tokens[0].startswith("-") else tokens[0]
    own = [*flags_of(COMMANDS[name].options), "--verbose", "--quiet", "--help"]
    if not token.startswith("-"):
        return _unexpected(token, name, own, arguments)
    if near := closest(token, own):
        return f"{token}: not a flag of {name}. Did you mean {near}?"
    having = [other for other, command in COMMANDS.items() if token in flags_of(command.options)]
    whose = f" It is one of {', '.join(having)}." if having else ""
    return f"{token}: not a flag of {name}.{whose} `linkcontext {name} --help` lists the flags."


def _unexpected(token: str, name: str, own: Sequence[str], arguments: Sequence[str]) -> str:
    """The sentence about an argument that belongs to no flag."""
    place = arguments.index(token) if token in arguments else 0
    together = f"{arguments[place - 1]} {token}" if place else token
    if place and Path(together).exists():
        return f"{token}: not expected here. A path with spaces needs quotes: {shlex.quote(together)}"
    if near := closest(token, _actions(COMMANDS[name])):
        return f"{name} {token}: no such action. Did you mean {name} {near}?"
    if name == "chat" and token.endswith(".pack") and "--pack" not in arguments:
        return f"{excerpt(token)}: not expected here. Did you mean --pack {shlex.quote(excerpt(token))}?"
    if "--data" in own and "--data" not in arguments:
        return f"{excerpt(token)}: not expected here. Did you mean --data {shlex.quote(excerpt(token))}?"
    return f"{excerpt(token)}: not expected here. Values follow their flag. {_example(COMMANDS[name])}"


def _actions(command: Command) -> list[str]:
    """The actions of a command that has some, by its examples: `info` and `clear` of cache."""
    has_actions = "action" in command.options.__annotations__
    return [example.split()[2] for example in command.examples] if has_actions else []


def _needs(name: str, lacking: Sequence[str]) -> str:
    return f"{name} needs {' and '.join(lacking)}." if lacking else ""


def _example(command: Command) -> str:
    return f"Example: {command.examples[0]}"


def _not_one_of(value: str, choices: Iterable[str]) -> str:
    words = [choice for choice in choices if choice != "None"]
    near = closest(value, words)
    meant = f" Did you mean {near}?" if near else ""
    return f"{excerpt(value)}: not one of {', '.join(words)}.{meant}"


def _bad_value(argument: Any, arguments: Sequence[str]) -> str:
    """The sentence about a value of the wrong kind."""
    flag, values = _flag(argument), _values(argument, arguments)
    if words := [word for word in _leaves(argument.field.type_stripped) if isinstance(word, str)]:
        wrong = next((value for value in values if value not in words), "")
        if not any(kind in (int, float) for kind in _leaves(argument.field.type_stripped)):
            return f"{flag} {_not_one_of(wrong, words)}"
    if not any(kind in (int, float) for kind in _leaves(argument.field.type_stripped)):
        return f"{flag} {excerpt(' '.join(values))}: takes {argument.lowered.metavar}"
    kind = "whole numbers" if int in _leaves(argument.field.type_stripped) else "numbers"
    others = f", or {' or '.join(words)}" if words else ""
    wrong = next((value for value in values if not _is_number(value, kind)), " ".join(values))
    return f"{flag} {excerpt(wrong)}: takes {kind}{others}, for example {flag} {4 if kind == 'whole numbers' else 0.5}"


def _is_number(text: str, kind: str) -> bool:
    try:
        (int if kind == "whole numbers" else float)(text)
    except ValueError:
        return False
    return True


def _leaves(kind: Any) -> list[Any]:
    """The types and the words that a type is made of: int of `tuple[int, ...]`, "a" of `Literal["a"] | None`."""
    parts = get_args(kind)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [kind]


def _values(argument: Any, arguments: Sequence[str]) -> list[str]:
    """What was typed after a flag."""
    values: list[str] = []
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") in argument.lowered.name_or_flags:
            following = arguments[place + 1 :]
            end = next((n for n, other in enumerate(following) if other.startswith("--")), len(following))
            values = [value] if equals else list(following[:end])
    return values


def _flag(argument: Any) -> str:
    """A flag as it is typed, or the word for a positional argument."""
    return str(argument.lowered.metavar if argument.is_positional() else argument.lowered.name_or_flags[-1])


def _spelled(argument: Any) -> str:
    """A flag with the word for its value: `--out PACK`."""
    metavar = "" if argument.is_positional() else f" {argument.lowered.metavar or ''}"
    return f"{_flag(argument)}{metavar}".strip()
