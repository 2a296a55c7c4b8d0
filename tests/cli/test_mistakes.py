"""Mistakes that people make on the command line: each gets a sentence that says what to type instead."""

import subprocess
import sys

import pytest

from linkcontext.cli import main
from linkcontext.cli.ask import AskPack
from linkcontext.cli.mistakes import closest, flags_of
from linkcontext.cli.teach import Teach

# What is typed, and what the answer to it contains.
MISTAKES = {
    "tech --data photos": "tech: no such command. Did you mean teach?",
    "evaluate --data photos": "evaluate: no such command. Did you mean eval?",
    "teech": "Did you mean teach?",
    "photos": "photos: a folder, and no command. To teach the pictures in it: linkcontext teach --data photos --out",
    "frobnicate": "frobnicate: no such command. `linkcontext --help` lists the commands.",
    "--data photos teach": "--data: the command comes first, then its flags: linkcontext teach --data ...",
    "teach photos": "photos: not expected here. Did you mean --data photos? teach also needs --out PACK.",
    "teach": "teach needs --data DATA and --out PACK. Example: linkcontext teach --data photos --out zoo.pack",
    "teach --data photos --ot zoo.pack": "--ot: not a flag of teach. Did you mean --out?",
    "teach --data photos -out zoo.pack": "-out: not a flag of teach. Did you mean --out?",
    "teach --dta=photos --out zoo.pack": "--dta: not a flag of teach. Did you mean --data?",
    "teach \u2014data photos --out zoo.pack": "begins with a long dash. Type two hyphens: --data",
    "teach --data my photos --out zoo.pack": "A path with spaces needs quotes: 'my photos'",
    "teach --data photos --out zoo.pack --head nearset": "--head nearset: not one of auto, lm, pairs, centroid",
    "teach --data photos --out zoo.pack --head": "--head: a value is missing. Give --head {auto,lm,",
    "teach --data photos --out zoo.pack --shots-per-class few": "few: takes whole numbers, for example",
    "teach --data photos --out zoo.pack -v -q": "--verbose --quiet: leave one of them out.",
    "teach --data photos --out zoo.pack --classes lime": "photos: has one class, and a pack needs at least two.",
    "teach --data photos --out zoo.pack --classes lyme": "--classes lyme: there is no such class in photos. The",
    "pack zoo.pack --rename lime": "--rename lime: takes OLD NEW",
    "ask": "ask needs PACK. Example: linkcontext ask zoo.pack new.jpg",
    "ask zoo.pack": "ask needs pictures after the pack. Example: linkcontext ask zoo.pack new.jpg",
    "ask new.jpg": "ask needs a pack, and then the pictures. Example: linkcontext ask zoo.pack new.jpg",
    "ask photos": "ask needs a pack, and then the pictures. Example: linkcontext ask zoo.pack photos",
    "pack zoo.pack --remove": "--remove: a value is missing. Write it after the flag, or leave the flag out.",
    "pack zoo.pack --rename --remove lime": "--rename: a value is missing.",
    "teach --data photos --out zoo.pack --classes": "--classes: a value is missing.",
    "pack zoo.pack --remove -q": "--remove: a value is missing.",
    "chat zoo.pack": "zoo.pack: not expected here. Did you mean --pack zoo.pack?",
    "data --data photos": "--data: not needed here. Example: linkcontext data photos",
    "teach --data photos/lime --out zoo.pack": "If lime is one class, give the folder that it lies in (photos).",
    "compare runs/fist runs/first": "runs/fist/config.json is not there. Did you mean runs/first?",
    "ask new.jpg zoo.pack": "zoo.pack: the pack comes first: linkcontext ask zoo.pack new.jpg",
    "ask zoo.pack new.jpg": "zoo.pack: no such pack. Write one with `linkcontext teach --data FOLDER --out zoo.pack`",
    "ask zoo.pack new.jpg --question ": "--question: is empty. Write a question, or leave the flag out",
    "eval photos": "photos: not expected here. Did you mean --data photos?",
    "eval --data photos --names rael": "--names rael: not one of real, pseudo, random, swapped. Did you mean real?",
    "eval --data photos --shots 1 four": "--shots-per-class four: takes whole numbers, for example --shots-per-class 4",
    "eval --data photos --episodes 1.5": "--episodes 1.5: takes whole numbers",
    "eval --data photos --question what": "--question: not a flag of eval. It is one of ask.",
    "eval --data photos --rule linear": "--rule is used only with --negatives neighbours",
    "eval --data world7": "world7: no such folder. Did you mean world:7?",
    "eval --data digit": "digit: no such folder. Did you mean digits?",
    "eval --data pohtos": "pohtos: no such folder. Did you mean photos?",
    "compare runs/base": "compare needs RUN_B. Example: linkcontext compare runs/base runs/first",
    "cache": "cache: say what to do, info or clear. Example: linkcontext cache info",
    "cache inf": "cache inf: no such action. Did you mean cache info?",
    "mini pth": "mini pth: no such action. Did you mean mini path?",
    "train --train visoin": "--train visoin: not one of vision, projector, language. Did you mean vision?",
    "train --tflops fast --dry-run": "--tflops fast: takes numbers, or measure",
    "mine --data photos --out n.jsonl --weights a b c": "takes numbers, for example",
}


@pytest.fixture
def photos(tmp_path, monkeypatch, picture):
    """A folder of class folders, `photos`, one with a space in its name, and one of runs, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    for place, folder in enumerate(("photos/lime", "photos/lemon", "my photos/lime", "my photos/lemon")):
        for number in range(3):
            picture(tmp_path / folder / f"{number}.png", 10 * place + number)
    return tmp_path


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gets_a_sentence_that_says_what_to_type(capsys, photos, typed):
    with pytest.raises(SystemExit) as ended:
        main(typed.split(" "))
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.startswith("linkcontext: ")
    assert MISTAKES[typed] in err
    assert len(err.splitlines()) == 1
    assert len(err) < 400
    assert {path.name for path in photos.iterdir()} == {"photos", "my photos", "runs"}  # nothing was written


def test_without_a_command_the_commands_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert "linkcontext COMMAND --help" in err


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--shot", "--shots-per-class"),
        ("--MODEL", "--model"),
        ("-data", "--data"),
        ("--outfile", "--out"),
        ("--x", None),
        ("", None),
    ],
)
def test_the_nearest_flag_is_meant(word, near):
    assert closest(word, ["--data", "--model", "--shots-per-class", "--out"]) == near


def test_the_flags_of_a_command_are_those_of_its_help(capsys):
    """`flags_of` reads dataclasses, the help is tyro's."""
    for name, options in (("teach", Teach), ("ask", AskPack)):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown = {word.strip(",") for word in capsys.readouterr().out.split() if word.startswith("--")}
        assert {*flags_of(options)} - shown == set()
        assert "--pack" not in flags_of(options)


@pytest.mark.parametrize(
    "typed", [["ask", "nowhere.pack", "new.jpg"], ["pack", "nowhere.pack"], ["ask", ".", "new.jpg"]]
)
def test_a_pack_that_is_not_there_is_said_before_torch_is_imported(tmp_path, typed):
    script = (
        "import sys\nfrom linkcontext.cli import main\n"
        f"try:\n    main({typed!r})\nexcept SystemExit as ended:\n    print(ended.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "2 False\n"
    assert "pack" in done.stderr
