"""The table of commands: every command has a line and examples that the parser accepts, in the README's order."""

import re
import shlex
from pathlib import Path

import pytest

from linkcontext.cli import main
from linkcontext.cli.commands import COMMANDS
from linkcontext.cli.parser import command_first, overview, parse
from linkcontext.errors import InputError

ROOT = Path(__file__).parents[2]
EXAMPLES = [(name, example) for name, command in COMMANDS.items() for example in command.examples]


def help_of(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_a_command_line_that_the_parser_takes(name, example):
    program, *words = shlex.split(example)
    options, verbosity = parse(words)
    assert (program, words[0]) == ("linkcontext", name)
    assert type(options) is COMMANDS[name].options
    assert (verbosity.verbose, verbosity.quiet) == (False, False)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_names_what_a_value_is(name, capsys):
    text = help_of(name, capsys)
    assert all(example in text for example in COMMANDS[name].examples)
    assert "-v, --verbose" in text
    assert "-q, --quiet" in text
    assert "{None}" not in text
    assert "(default: None)" not in text
    assert re.search(r"\bSTR\b", text) is None


def test_positional_arguments_have_names(capsys):
    assert "PACK PICTURE ..." in help_of("ask", capsys)
    assert "RUN_A RUN_B" in help_of("compare", capsys)


def test_commands_are_listed_in_the_order_of_a_first_evening():
    listed = re.findall(r"^  (\w+) ", overview(), re.MULTILINE)
    assert listed == list(COMMANDS)
    assert listed[:4] == ["demo", "teach", "ask", "pack"]
    assert len(overview().splitlines()) < 45
    assert max(map(len, overview().splitlines())) <= 100


def test_the_table_of_the_readme_has_the_commands_in_this_order():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| command |")[1].split("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `linkcontext")]
    assert [name for row in rows for name in re.findall(r"`(?:linkcontext )?(\w+)`", row)] == list(COMMANDS)


@pytest.mark.parametrize("name", ["eval", "probe", "validate", "episodes", "teach"])
def test_shots_have_one_name_and_a_short_form_everywhere(name):
    words = [name, "--data", "photos", *(("--out", "zoo.pack") if name == "teach" else ())]
    (long, _), (short, _), (usual, _) = (
        parse([*words, *flag]) for flag in (("--shots-per-class", "3"), ("--shots", "3"), ())
    )
    assert long == short != usual


def test_verbosity_may_stand_before_the_command():
    assert command_first(["-v", "teach", "--data", "x"]) == ["teach", "-v", "--data", "x"]
    assert command_first(["help", "teach"]) == ["teach", "--help"]
    assert command_first(["help"]) == ["--help"]
    assert command_first([]) == []
    _, verbosity = parse(command_first(["-q", "pack", "zoo.pack"]))
    assert verbosity.quiet
    with pytest.raises(InputError, match="leave one of them out"):
        parse(["pack", "zoo.pack", "-q", "--verbose"])


def test_the_version_is_a_line_with_what_it_runs_on(capsys):
    main(["--version"])
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"linkcontext \S+ \(Python \S+, torch \S+, transformers \S+, ", line)
