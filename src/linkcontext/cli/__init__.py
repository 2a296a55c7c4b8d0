"""The command line: each command reads files and writes files."""

import logging
import os
import shlex
import sys
from typing import Any

import tyro

from linkcontext.cli.measure import Compare, Eval, Probe, Report, Validate
from linkcontext.cli.models import Average, Cache, Mini, Train
from linkcontext.cli.pictures import Data, Episodes, Mine, World
from linkcontext.cli.terminal import complain, output
from linkcontext.cli.use import App, AskPack, ChangePack, Chat, Demo, Serve, Teach
from linkcontext.errors import InputError

GO_ON = ("eval", "probe", "train", "mine", "mini build")  # these find what they had done


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input is a sentence on stderr and exit code 2, as is an output that takes no more, like a full
    disk. Where a pipe's reader has gone, the exit code is 141, as a shell counts SIGPIPE."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    commands: dict[str, Any] = {
        "world": World,
        "data": Data,
        "episodes": Episodes,
        "validate": Validate,
        "eval": Eval,
        "probe": Probe,
        "report": Report,
        "compare": Compare,
        "mine": Mine,
        "train": Train,
        "average": Average,
        "serve": Serve,
        "mini": Mini,
        "cache": Cache,
        "demo": Demo,
        "teach": Teach,
        "ask": AskPack,
        "pack": ChangePack,
        "chat": Chat,
        "app": App,
    }
    with output():
        _run(commands, arguments)


def _run(commands: dict[str, Any], arguments: list[str] | None) -> None:
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            commands, args=arguments, prog="linkcontext", description=__doc__
        )
        command.run()
    except InputError as error:
        complain(str(error))
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        command_line = shlex.join(sys.argv[1:] if arguments is None else arguments)
        again = f" Start the same command again to go on: linkcontext {command_line}"
        complain(f"stopped.{again if command_line.startswith(GO_ON) else ''}", "\n")
        raise SystemExit(130) from error
