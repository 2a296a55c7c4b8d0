"""From the words on the command line to a command and its options, and the help of `linkcontext` itself."""

import inspect
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import tyro
from tyro import _errors

from linkcontext.cli.commands import COMMANDS, GROUPS, Command
from linkcontext.cli.mistakes import empty_list, explain, long_dash, unknown_command
from linkcontext.errors import InputError
from linkcontext.scoring.engine_names import with_current_names

ABOUT = "Teach a vision-language model new names from a few pictures, and measure whether it learned them."
BEFORE_COMMAND = ("-v", "--verbose", "-q", "--quiet")  # also accepted there


@dataclass(frozen=True, slots=True)
class Verbosity:
    """How much is printed besides results."""

    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(aliases=("-v",))] = False
    """Also print what is done and how long it takes."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(aliases=("-q",))] = False
    """Print results and errors only: no progress and no warnings."""

    def __post_init__(self) -> None:
        if self.verbose and self.quiet:
            raise InputError("--verbose --quiet: leave one of them out.")


def command_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the command in front: `linkcontext -v teach` and `linkcontext help teach` are accepted."""
    words = list(arguments)
    early = []
    while words and words[0] in BEFORE_COMMAND:
        early.append(words.pop(0))
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    return [*words[:1], *early, *words[1:]]


def parse(arguments: Sequence[str]) -> tuple[Any, Verbosity]:
    """The command with its options, and how much it prints. The first argument is a command, or not one.

    Raises `InputError` for a mistake, and `SystemExit` after a help text.
    """
    name, rest = arguments[0], list(arguments[1:])
    if name not in COMMANDS:
        raise InputError(unknown_command(name, rest))
    if dash := next((sentence for word in rest if (sentence := long_dash(word))), None):
        raise InputError(dash)
    rest = with_current_names(rest)
    if empty := empty_list(name, rest):
        raise InputError(empty)

    def refuse(event: object) -> None:
        if sentence := explain(event, name, rest):
            raise InputError(sentence)

    command = COMMANDS[name]
    both = tuple[
        Annotated[command.options, tyro.conf.arg(name="")],  # type: ignore[name-defined]
        Annotated[Verbosity, tyro.conf.arg(name="")],
    ]
    with _errors.on_parse_error(refuse):
        options, verbosity = tyro.cli(
            both,
            args=rest,
            prog=f"linkcontext {name}",
            description=_description(command),
            config=(tyro.conf.OmitArgPrefixes,),
        )
    return options, verbosity


def _description(command: Command) -> str:
    """What `--help` says above the flags: the paragraphs about the command, and its examples."""
    paragraphs = inspect.cleandoc(command.options.__doc__ or "").split("\n\n")
    about = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return "\n\n".join([*about, "\n".join(["Examples:", *(f"  {example}" for example in command.examples)])])


def overview() -> str:
    """The help of `linkcontext`: every command with a line about it."""
    lines = ["usage: linkcontext COMMAND [OPTIONS]", "", ABOUT]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10}{command.summary}" for name, command in group.items())]
    return "\n".join(
        [
            *lines,
            "",
            "`linkcontext COMMAND --help` explains a command and has examples. All commands take",
            "-v (--verbose) and -q (--quiet). `linkcontext --version` prints versions.",
        ]
    )


def versions() -> str:
    """A line with the versions that a report of a fault needs."""
    parts = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))
    return f"linkcontext {version('linkcontext')} (Python {platform.python_version()}, {parts}, {platform.platform()})"
