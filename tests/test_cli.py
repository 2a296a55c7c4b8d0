"""The command line as a user meets it: help that teaches, sentences for bad input, and a README whose commands run."""

import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from linkcontext.cli import main
from linkcontext.cli.evaluate import Eval
from linkcontext.cli.serve import Serve
from linkcontext.cli.teach import Chat
from linkcontext.cli.terminal import console, output, print_json
from linkcontext.serve.server import address

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "world",
    "data",
    "episodes",
    "validate",
    "eval",
    "report",
    "compare",
    "mine",
    "train",
    "average",
    "mini",
    "cache",
)
COMMANDS += ("demo", "chat", "app", "serve", "probe", "teach", "ask", "pack")


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"usage: linkcontext {command}" in out
    assert len(out.splitlines()) > 5


def test_all_commands_are_listed(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"\n  {command} " in out for command in COMMANDS)


def class_folder(root, classes=3, pictures=4):
    for c in range(classes):
        (root / f"class{c}").mkdir(parents=True)
        for p in range(pictures):
            Image.new("RGB", (8, 8), (80 * c, 10 * p, 0)).save(root / f"class{c}" / f"{p}.png")
    return root


def test_marks_of_models_are_not_exported(capsys, tmp_path):
    data = class_folder(tmp_path / "data")
    (data / "class0").rename(data / "<|end|>")
    sentence = refused(
        capsys,
        tmp_path,
        "episodes",
        "--data",
        data,
        "--names",
        "real",
        "--shots",
        1,
        "--ways",
        3,
        "--export",
        "trl",
        "--out",
        tmp_path / "out",
    )
    assert "'<|end|>', a special token" in sentence


def test_brackets_in_paths_are_printed_as_they_are(capsys, tmp_path):
    data = class_folder(tmp_path / "zoo[" / "old] [red]")
    _, out, _ = run(capsys, "data", data)
    assert out.startswith(str(data))
    file = data / "episodes.jsonl"
    _, out, _ = run(capsys, "episodes", "--data", data, "--shots", 1, "--episodes", 1, "--out", file)
    assert str(file) in out
    folder, sheet = tmp_path / "world[" / "bold]", tmp_path / "[" / "b].png"
    code, out, _ = run(capsys, "world", "--out", folder, "--classes", 2, "--images", 1, "--sheet", sheet)
    assert code == 0
    assert str(folder) in out
    assert str(sheet) in out


def refused(capsys, tmp_path, *arguments):
    """The sentence of a command that must fail with exit code 2 and write nothing below `tmp_path/out`."""
    code, _, err = run(capsys, *arguments)
    assert code == 2, err
    assert err.startswith("linkcontext: ")
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    return err


def test_bad_data_is_a_sentence(capsys, tmp_path):
    out = ("--out", tmp_path / "out" / "episodes.jsonl")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no picture in a class folder" in refused(capsys, tmp_path, "episodes", "--data", empty, *out)
    assert "no such folder" in refused(capsys, tmp_path, "episodes", "--data", tmp_path / "nowhere", *out)
    one = class_folder(tmp_path / "one", classes=1)
    assert "only one class" in refused(capsys, tmp_path, "episodes", "--data", one, *out)
    few = class_folder(tmp_path / "few", classes=2, pictures=3)
    sentence = refused(capsys, tmp_path, "episodes", "--data", few, "--shots", "8", *out)
    assert "class0" in sentence
    assert "9" in sentence
    assert "whole number" in refused(capsys, tmp_path, "episodes", "--data", "world:x", *out)


def test_bad_pictures_are_left_out_and_named_and_strict_fails(capsys, tmp_path):
    root = class_folder(tmp_path / "some")
    (root / "class0" / "empty.png").write_bytes(b"")
    (root / "class1" / "text.png").write_text("not a picture")
    (root / "class2" / "cut.png").write_bytes((root / "class2" / "0.png").read_bytes()[:50])
    code, out, _ = run(capsys, "data", root)
    assert code == 0
    assert all(name in out for name in ("empty.png", "text.png", "cut.png"))
    assert "12 pictures, 3 classes of 4 to 4" in out
    assert "empty.png" in refused(capsys, tmp_path, "data", root, "--strict")


def test_bad_settings_are_sentences(capsys, tmp_path):
    root = class_folder(tmp_path / "some", pictures=6)
    out = ("--out", tmp_path / "out")
    assert "multiple" in refused(capsys, tmp_path, "eval", "--data", root, "--shots", "1", "--queries", "3", *out)
    assert "3" in refused(capsys, tmp_path, "eval", "--data", root, "--shots", "1", "--ways", "4", *out)
    assert "neither one of turns" in refused(
        capsys, tmp_path, "eval", "--data", root, "--shots", "1", "--scaffold", "x", *out
    )
    assert "neither a bundled model (mini-base, mini) nor a folder" in refused(
        capsys, tmp_path, "eval", "--data", root, "--shots", "1", "--model", "no/such-model", *out
    )
    assert "at least" in refused(capsys, tmp_path, "world", "--out", tmp_path / "out", "--classes", "1")


def test_addresses_that_cannot_be_served_are_sentences(capsys, tmp_path):
    for command, port in (("serve", 70000), ("serve", -1), ("app", 99999), ("app", 0)):
        assert f"--port {port}: ports are" in refused(capsys, tmp_path, command, "--port", port)
    for room in (-1, "nan"):
        assert "--hold-gb" in refused(capsys, tmp_path, "serve", "--hold-gb", room)
    for host in ("a..b", "a" * 70):
        assert f"--host {host}" in refused(capsys, tmp_path, "serve", "--host", host, "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        asked = ("serve", "--model", "no/such-model", "--port", port)  # said before a model is loaded
        assert f"--port {port}: the server cannot listen there (Address already in use)" in refused(
            capsys, tmp_path, *asked
        )


def test_what_serve_says_can_be_asked(capsys, nano, monkeypatch):
    told = []
    monkeypatch.setattr(
        "linkcontext.serve.server.serve", lambda endpoint, heard, *_: told.append((endpoint, address(heard)))
    )
    code, out, err = run(capsys, "serve", "--model", nano, "--port", 0)
    assert code == 0, err
    ((endpoint, where),) = told
    endpoint.worker.close()
    assert out == f"{Path(nano).name} at {where}\n"
    assert list(endpoint.prompts) == [Path(nano).name]


@pytest.fixture
def alone(monkeypatch):
    """No other threads: a command that is stopped would end this process where other tests have servers in it."""
    monkeypatch.setattr("threading.enumerate", list)


@pytest.mark.parametrize(("command", "goes_on"), [(Eval, True), (Serve, False), (Chat, False)])
def test_only_what_goes_on_is_said_to(capsys, monkeypatch, alone, command, goes_on):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", stopped)
    code, _, err = run(capsys, command.__name__.lower(), "--model", "mini")
    assert code == 130
    words = f"linkcontext {command.__name__.lower()} --model mini"
    again = f" To resume, run the same command again: {words}" if goes_on else ""
    assert err == f"\nlinkcontext: stopped.{again}\n"


def test_files_of_other_tools_are_read_and_written(capsys, tmp_path):
    rows = [{"id": n, "conversations": [{"from": "human", "value": "Q"}]} for n in range(30)]
    rows.append({"id": "x", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]})
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(rows))
    code, out, _ = run(capsys, "data", path, "--layout", "conversations", "--out", tmp_path / "written")
    assert code == 0
    assert "1 conversation, 1 answer, 0 pictures" in out
    assert "record 9 (id 9): human and gpt must take turns" in out
    assert "and 10 more problems" in out
    assert len(json.loads((tmp_path / "written" / "conversations.json").read_text())) == 1
    layout = ("--layout", "conversations", "--out", tmp_path / "out")
    assert "record 0 (id 0): human and gpt" in refused(capsys, tmp_path, "data", path, *layout, "--strict")
    assert "these flags need --layout" in refused(capsys, tmp_path, "data", tmp_path, *layout[2:])
    assert "give --out instead" in refused(capsys, tmp_path, "data", path, *layout, "--write")
    assert "also give --out" in refused(capsys, tmp_path, "episodes", "--export", "llava")


def test_a_report_of_nothing_is_a_sentence(capsys, tmp_path):
    assert "is not there" in refused(capsys, tmp_path, "report", tmp_path)
    assert "is not there" in refused(capsys, tmp_path, "compare", tmp_path, tmp_path)


def commands_of(page):
    """The commands of a page's code blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith("linkcontext ")]


PAGES = [
    "README.md",
    *(pytest.param(f"docs/{page}.md", marks=pytest.mark.heavy) for page in ("evaluate", "mini", "data")),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, capsys, tmp_path, nano, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "FOLDER", pictures=10)
    class_folder(tmp_path / "photos", pictures=8)
    shutil.copy(next((tmp_path / "photos").glob("*/*")), tmp_path / "new.jpg")
    for command in commands_of(page):
        words = shlex.split(command)[1:]
        for flag, small in (("--episodes", "2"), ("--model", None)):
            if flag in words and small:
                words[words.index(flag) + 1] = small
        if "--isekai" in words:
            words += ["--classes", "2", "--images", "18"]
        words = [str(nano) if word in ("HUB_ID_OR_FOLDER", "Qwen/Qwen2.5-VL-3B-Instruct") else word for word in words]
        code, _, err = run(capsys, *words)
        assert code == 0, f"{command}: {err}"


def test_kept_features_are_counted_and_cleared(capsys, tmp_path, nano, monkeypatch):
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "cache"))
    assert "no features are cached" in run(capsys, "cache", "info")[1]
    asked = ("eval", "--model", nano, "--data", class_folder(tmp_path / "d"), "--shots", 0, 1, "--episodes", 3)
    counts = []
    for again in range(2):
        code, _, err = run(capsys, *asked, "--out", tmp_path / f"run{again}")
        assert code == 0, err
        counters = json.loads((tmp_path / f"run{again}" / "metrics.json").read_text())["counters"]
        counts.append((counters["pictures"], counters["encoder_calls"], counters["pictures_from_disk"]))
    assert counts[0][0] == counts[0][1] > 0
    assert counts[1] == (counts[0][0], 0, counts[0][0])
    shown = run(capsys, "cache", "info")[1]
    assert f" {counts[0][0]} " in shown
    assert "MB freed" in run(capsys, "cache", "clear")[1]
    assert "no features are cached" in run(capsys, "cache", "info")[1]


def test_a_run_is_probed_and_its_report_says_so(capsys, tmp_path, nano):
    data = ("--model", nano, "--data", class_folder(tmp_path / "d"), "--episodes", 1)
    asked = ("eval", *data, "--shots", 0, 1, "--out", tmp_path / "run")
    assert run(capsys, *asked)[0] == 0
    assert "This run was not probed." in (tmp_path / "run" / "report.html").read_text()
    code, out, err = run(capsys, *asked, "--probe")
    assert code == 0, err
    for name in ("report.html", "report.md", "probe/probe.md"):
        assert "Do the answers come from the pictures?" in (tmp_path / "run" / name).read_text()
    code, alone, err = run(capsys, "probe", *data, "--shots", 1, "--out", tmp_path / "probe")
    assert code == 0, err
    sentence = json.loads((tmp_path / "probe" / "probe.json").read_text())["sentence"]
    assert " ".join(sentence.split()) in " ".join(out.split())  # the same episodes
    assert " ".join(sentence.split()) in " ".join(alone.split())
    assert "8 ways: " in alone
    assert run(capsys, "report", tmp_path / "probe")[0] == 0
    far = ("--model", "openai:http://127.0.0.1:9/v1", "--data", "world:7")
    assert "Is a server running there?" in refused(capsys, tmp_path, "eval", *far, "--probe")
    assert "Leave --benchmark out" in refused(capsys, tmp_path, "eval", "--benchmark", "isekai", "--probe")


def test_mined_neighbours_meet_in_episodes(capsys, tmp_path):
    data = ("--data", class_folder(tmp_path / "d", classes=4))
    mined = ("--negatives", "neighbours", "--neighbours", tmp_path / "n.jsonl")
    assert run(capsys, "mine", *data, "--out", tmp_path / "n.jsonl", "--images-per-class", 2)[0] == 0
    near = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    nearest = {row["class"]: row["neighbours"][0]["class"] for row in near}
    out = tmp_path / "episodes.jsonl"
    code, _, err = run(capsys, "episodes", *data, *mined, "--shots", 1, "--episodes", 8, "--out", out)
    assert code == 0, err
    for line in out.read_text().splitlines():
        a, b = (candidate["class"] for candidate in json.loads(line)["candidates"])
        assert nearest[a] == b or nearest[b] == a
    drawn = tmp_path / "drawn.jsonl"
    run(capsys, "episodes", *data, *mined, "--rule", "linear", "--shots", 1, "--episodes", 8, "--out", drawn)
    assert drawn.read_text() != out.read_text()
    for flag in (mined[2:], ("--rule", "linear")):
        alone = refused(capsys, tmp_path, "episodes", *data, *flag, "--out", tmp_path / "out")
        assert f"{flag[0]} is used only with --negatives neighbours" in alone
    other = ("--data", class_folder(tmp_path / "e", classes=5))
    assert "made from other pictures" in refused(
        capsys, tmp_path, "episodes", *other, *mined, "--out", tmp_path / "out"
    )


def test_a_reader_that_goes_away_is_no_traceback():
    command = [sys.executable, "-m", "linkcontext", "data", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
        shown.stdout.close()
        assert shown.stderr.read() == b""
    assert shown.returncode == 141


class Failing(io.StringIO):
    """An output that takes nothing; its descriptor is a file that nobody reads."""

    def __init__(self, code, descriptor):
        super().__init__()
        self.code, self.descriptor = code, descriptor

    def write(self, text):
        raise OSError(self.code, os.strerror(self.code))  # EPIPE makes a BrokenPipeError of it

    def fileno(self):
        return self.descriptor


@pytest.mark.parametrize(("code", "ends"), [(errno.EPIPE, 141), (errno.ENOSPC, 2), (errno.EIO, 2)])
@pytest.mark.parametrize("show", [lambda text: Console().print(text), print, print_json])
def test_an_output_that_takes_no_more_ends_the_command(monkeypatch, capsys, tmp_path, show, code, ends):
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", Failing(code, file.fileno()))
        with pytest.raises(SystemExit) as ended, output():
            show("a name")
    assert ended.value.code == ends
    assert ("the output could not be written" in capsys.readouterr().err) == (ends == 2)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["猫", "é", "\U0001f600", "caf\udce9"])
def test_letters_that_an_encoding_lacks_are_escapes(monkeypatch, encoding, name):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    with output():
        console.print(name, markup=False)
        print_json({"name": name})
    line, payload, end = written.getvalue().split(b"\n")
    assert (line, end) == (name.encode(encoding, "backslashreplace"), b"")
    assert json.loads(payload.decode(encoding)) == {"name": name}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_stdout_is_a_sentence():
    command = [sys.executable, "-m", "linkcontext", "eval", "--help"]
    with Path("/dev/full").open("w") as full:
        shown = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert shown.returncode == 2
    assert shown.stderr.decode().count("\n") == 1


@pytest.mark.parametrize(("data", "code"), [("digits", 0), ("nowhere", 2)])
def test_without_anywhere_to_print_a_command_ends_as_it_would(monkeypatch, capsys, data, code):
    monkeypatch.setattr(sys, "stdout", None)
    found = 0
    try:
        main(["data", data])
    except SystemExit as error:
        found = error.code
    assert found == code
    assert ("nowhere: no such folder" in capsys.readouterr().err) == (code == 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_leaves_nothing_half_written(capsys, tmp_path, monkeypatch, alone, number, code):
    from linkcontext.worlds import folder  # noqa: PLC0415

    def stopped(out, *_):
        (out / "half").touch()
        signal.raise_signal(number)

    monkeypatch.setattr(folder, "write_seed", stopped)
    before = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
    ended, _, err = run(capsys, "world", "--out", tmp_path / "w")
    signal.signal(signal.SIGINT, interrupt)
    assert (ended, err) == (code, "\nlinkcontext: stopped.\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE])
def test_a_disk_that_fails_where_nobody_expects_it_is_a_sentence(capsys, tmp_path, monkeypatch, number):
    from linkcontext import source  # noqa: PLC0415

    def failing(*_):
        raise OSError(number, os.strerror(number), str(tmp_path / "there"))

    monkeypatch.setattr(source, "open_data", failing)
    code, _, err = run(capsys, "data", tmp_path)
    assert code == 2
    assert err.startswith(f"linkcontext: {tmp_path / 'there'}: {os.strerror(number)}.")


LONG = "a" * 300  # more letters than a file system takes


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", LONG, "x.png"),
        ("pack", LONG),
        ("chat", "--pack", LONG),
        ("serve", "--port", "0", "--pack", f"zoo={LONG}"),
        ("report", LONG),
        ("compare", LONG, LONG),
        ("average", LONG, LONG, "--out", "out"),
        ("demo", "--out", LONG),
        ("teach", "--data", "digits", "--out", LONG),
        ("validate", "--data", "digits", "--scaffold", f"{LONG}.json"),
        ("teach", "--data", "digits", "--out", "out", "--model", LONG),
    ],
)
def test_a_path_that_no_disk_can_have_is_a_sentence(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert (code, "Traceback" in err) == (2, False)
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())  # the lock of a pack stays
    assert "linkcontext: " in err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_looked_into_is_a_sentence(capsys, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    os.seteuid(65534)
    try:
        for arguments in (("ask", closed / "z.pack", "x.png"), ("report", closed / "run"), ("data", closed)):
            code, _, err = run(capsys, *arguments)
            assert (code, "ermission denied" in err, "Traceback" in err) == (2, True, False)
    finally:
        os.seteuid(0)


def test_arguments_that_are_no_text_are_a_sentence(capsys, tmp_path, monkeypatch):
    """They would be written into files that nothing reads again, or given to a tokenizer that fails."""
    monkeypatch.chdir(tmp_path)
    data = class_folder(tmp_path / "caf\udce9")
    for arguments in (
        ("teach", "--data", data, "--out", "out\udce9.pack"),
        ("teach", "--data", data, "--out", "out", "--licence", "\udce9"),
        ("ask", "zoo.pack", "x.png", "--question", "caf\udce9?"),
        ("eval", "--data", data, "--out", "out"),
        ("eval", "--data", "digits", "--out", "out\udce9"),
        ("train", "--data", data, "--out", "out"),
    ):
        assert "\\xe9" in (err := refused(capsys, tmp_path, *arguments))
        assert "not UTF-8" in err
    assert run(capsys, "data", data)[0] == 0  # which writes its name nowhere


def test_control_characters_in_a_sentence_are_escapes(capsys, tmp_path):
    assert "no\\x1b[2Jpack" in refused(capsys, tmp_path, "pack", "no\x1b[2Jpack")


def test_an_error_that_is_no_disk_stays_an_error(capsys, tmp_path, monkeypatch):
    from linkcontext import source  # noqa: PLC0415

    def failing(*_):
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    monkeypatch.setattr(source, "open_data", failing)
    with pytest.raises(FileNotFoundError):
        run(capsys, "data", tmp_path)


@pytest.mark.parametrize(
    "command", ["eval", "probe", "validate", "episodes", "train", "teach", "ask", "chat", "serve", "app"]
)
def test_every_command_that_prompts_takes_how(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert all(flag in told for flag in ("--chat-template-kwargs", "--max-new-tokens", "--generation-config"))
