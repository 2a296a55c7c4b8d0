"""Run the commands of linkcontext on small data, and keep all that each of them writes.

    python tests/figures/record.py BEFORE        # some minutes on one core
    (change the source)
    python tests/figures/record.py AFTER
    python tests/figures/compare.py BEFORE AFTER

Run it with the Python, and the PYTHONPATH, of the linkcontext that is to be recorded. Each command has a folder of its
name with its exit code, stdout, stderr and files; what the commands read is in the folder `inputs`.

    python tests/figures/record.py --renew-fixed

writes fixed.json again: the digests of what does not depend on the floating point of a machine (see test_figures.py).
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from inputs import write_inputs
from processes import ENVIRONMENT, preload, process, serving
from requests_to_server import send_requests

# Words of command lines that were renamed since the commands below were written: a commit that renames a command, a
# flag or a value adds a line, and compare.py takes the two for the same. Examples: {"--engine": "--method", "naive":
# "reference", "pack": "edit-pack"}. Only whole words are replaced; file names have a slash or a dot in them.
RENAMED: dict[str, str] = {}


@dataclass(frozen=True)
class Command:
    """A command line. `{here}` in it is the command's own folder; other paths begin at the recording's folder.

    `copy` is copied before it runs (FROM, TO), and `change` may then change the copy. `typed` goes to stdin. Where
    programs read what it prints, stdout is kept under the name `answer`. A line with `{server}` runs while the command
    `serve` does.
    """

    line: str
    typed: str = ""
    copy: tuple[str, str] = ("", "")
    change: Callable[[Path], None] | None = None
    answer: str = ""

    def arguments(self, here: str, server: str = "") -> list[str]:
        """The arguments, under the names that they have now."""
        words = shlex.split(self.line.replace("{here}", here).replace("{server}", server))
        return [new for word in words for new in RENAMED.get(word, word).split(" " if word in RENAMED else "\n")]


def half_done(here: Path) -> None:
    """Leave half of a run's predictions, as if it had been killed."""
    path = here / "run" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    for name in ("metrics.json", "explain.json", "report.md", "report.html"):
        (here / "run" / name).unlink()


def at_step_6(here: Path) -> None:
    """Go back to the checkpoint in the middle of a training."""
    (here / "run" / "latest").write_text("checkpoint-6")
    shutil.rmtree(here / "run" / "checkpoint-12")


def without_reports(here: Path) -> None:
    """Remove a run's pages."""
    for name in ("report.md", "report.html"):
        (here / "run" / name).unlink()


RUN = "--out {here}/run"
TRAIN = "train --model mini --steps 12 --batch 2 --support 4 --save-every 6 --data world-folder/things --lr 1e-4"
LINK = f"{TRAIN} --queries 2 --eval-every 6 --held-out inputs/photos --held-out-episodes 4 --held-out-shots 1"
CHAT = """\
inputs/photos/test/red_thing/0.png inputs/photos/test/red_thing/1.png: these are redoo
inputs/photos/test/blue_thing/0.png: this is a blimbo
inputs/photos/train/red_thing/0.png
what colour is it?
no, that is a blimbo
inputs/photos/train/red_thing/0.png
/names
missing.png
forget the redoo
/save chat/talk.pack
/quit
"""
BAD = "eval --data inputs/photos --shots 0 1 --episodes 2 --out {here}/run"

# Drawn from names and numbers alone: the digests of what these write are in fixed.json.
FIXED = {
    "world-folder": Command("world --out {here}/things --classes 6 --images 8 --seed 3 --size 32"),
    "world-isekai-10": Command("world --isekai 10 --out {here}/isekai --seed 1 --size 32 --images 20"),
    "data-write": Command("data {here}/photos --write", copy=("inputs/photos", "data-write/photos")),
    "episodes-pseudo": Command("episodes --data inputs/photos --shots 0 1 2 --episodes 6 --out {here}/episodes.jsonl"),
    "episodes-random": Command(
        "episodes --data inputs/photos --names random --ways 3 --shots 2 --order shuffled --episodes 6 --seed 5 "
        "--out {here}/episodes.jsonl"
    ),
    "episodes-real": Command(
        "episodes --data inputs/photos --names real --support-split train --query-split test --shots 1 2 --queries 4 "
        "--false-labels 0.5 --episodes 6 --out {here}/episodes.jsonl"
    ),
    "episodes-swapped": Command(
        "episodes --data world-folder/things --names swapped --negatives neighbours --shots 2 --choose-from 4 "
        "--groups-apart --episodes 6 --out {here}/episodes.jsonl"
    ),
    "export-llava": Command(
        "episodes --data inputs/photos --shots 0 2 --episodes 3 --export llava --out {here}/export.json"
    ),
    "export-messages": Command(
        "episodes --data inputs/photos --shots 2 --episodes 3 --export messages --supervise query --scaffold lcl "
        "--out {here}/export.jsonl"
    ),
    "export-trl": Command(
        "episodes --data inputs/photos --shots 2 --episodes 3 --export trl --supervise query --scaffold "
        "inputs/scaffold.json --out {here}/export.jsonl"
    ),
    "data-conversations": Command("data inputs/talk/llava.json --layout conversations --out {here}/talk"),
    "data-messages": Command("data inputs/talk/messages.jsonl --layout conversations --images inputs/talk/images"),
    "data-seed": Command(
        "data inputs/seed/SEED-Bench.json --layout seed --images inputs/seed/images --out {here}/seed"
    ),
    "data-checklist": Command(
        "data inputs/checklist/data --layout vl-checklist --images inputs/checklist --out {here}/list"
    ),
    "data-genome": Command("data inputs/genome --layout visual-genome --out {here}/genome"),
    "data-vl-icl": Command("data inputs/vl-icl --layout vl-icl --out {here}/tasks"),
    "episodes-questions": Command(
        "episodes --data data-seed/seed --tasks all --shots 0 2 --format choice --episodes 6 "
        "--out {here}/episodes.jsonl"
    ),
}

DIGESTS = Path(__file__).with_name("fixed.json")
# How a picture is drawn and compressed depends on the machine and on the versions of libraries.
PICTURES = re.compile(rb'"(sha256|pixels)":"[0-9a-f]+",?')
FIXED_FILES = ("episodes.jsonl", "manifest.jsonl", "export.json", "conversations.json")

COMMANDS = FIXED | {
    "world-pair": Command("world --isekai pair --out {here}/isekai --seed 2 --size 32 --images 20"),
    "world-sheet": Command("world --out {here}/things --classes 4 --images 3 --sheet {here}/sheet.png"),
    "data-odd": Command("data inputs/odd"),
    "data-taught": Command("data world:taught"),
    "data-trl": Command("data inputs/talk/trl.jsonl --layout conversations --images inputs/talk/images"),
    "episodes-scenes": Command(
        "episodes --data scenes:1 --tasks attribute count/things rule --format mixed --coherence task --shots 0 3 "
        "--episodes 6 --out {here}/episodes.jsonl"
    ),
    "episodes-captions": Command(
        "episodes --data scenes:1 --tasks caption relation --format caption --balanced --options 2 --shots 2 "
        "--episodes 4 --out {here}/episodes.jsonl"
    ),
    "episodes-digits": Command("episodes --data digits --episodes 8 --shots 0 4 --out {here}/episodes.jsonl"),
    "episodes-show": Command("episodes --data inputs/photos --shots 0 1 --episodes 2 --show 1 --scaffold single_turn"),
    "episodes-show-tree": Command("episodes --data inputs/photos --shots 0 1 --episodes 2 --show 1 --tree"),
    "mine-linear": Command(
        "mine --data world-folder/things --out {here}/neighbours.jsonl --images-per-class 4 --sheet {here}/sheet.png"
    ),
    "mine-intervals": Command(
        "mine --data world-folder/things --out {here}/neighbours.jsonl --rule intervals --weights 1 0.5 0 --seed 2"
    ),
    "episodes-mined": Command(
        "episodes --data world-folder/things --negatives neighbours --neighbours mine-linear/neighbours.jsonl "
        "--rule linear --shots 2 --ways 3 --episodes 6 --out {here}/episodes.jsonl"
    ),
    "eval-link": Command(f"eval --data digits --shots 0 1 4 --episodes 6 --scoring both {RUN}"),
    "eval-resume": Command(
        f"eval --data digits --shots 0 1 4 --episodes 6 --scoring both {RUN}",
        copy=("eval-link/run", "eval-resume/run"),
        change=half_done,
    ),
    "eval-base": Command(f"eval --model mini-base --data digits --shots 0 1 4 --episodes 6 --scoring both {RUN}"),
    "eval-packed": Command(f"eval --engine packed --data digits --shots 0 1 4 --episodes 4 --scoring both {RUN}"),
    "eval-naive": Command(
        f"eval --engine naive --data digits --shots 0 1 4 --episodes 4 --scoring both --batch 5 --explain 1 {RUN}"
    ),
    "eval-swapped": Command(f"eval --data world:taught --names swapped --shots 2 --episodes 6 --calibrate {RUN}"),
    "eval-real": Command(
        "eval --data world-folder/things --names real --negatives neighbours --neighbours mine-linear/neighbours.jsonl "
        "--rule linear --shots 0 2 --episodes 4 --ways 3 --order shuffled --scaffold single_turn --scoring both "
        f"--generation-config model --max-new-tokens 6 {RUN}"
    ),
    "eval-medoid": Command(
        "eval --data world-folder/things --shots 1 2 --choose-from 5 --select medoid --episodes 4 --scaffold "
        f"inputs/scaffold.json {RUN}"
    ),
    "eval-likest": Command(
        f"eval --data world-folder/things --shots 1 2 --choose-from 5 --select rices --episodes 4 {RUN}"
    ),
    "eval-choice": Command(
        "eval --data scenes:1 --tasks attribute count/things --format choice --shots 0 2 --episodes 8 --scoring both "
        f"{RUN}"
    ),
    "eval-isekai": Command(
        f"eval --benchmark isekai --data inputs/isekai --shots 0 1 2 --scoring lcl-legacy --scaffold lcl {RUN}"
    ),
    "eval-world-icl": Command(f"eval --benchmark world-icl --data scenes:1 --shots 0 2 --episodes 27 {RUN}"),
    "eval-vl-icl": Command(f"eval --benchmark vl-icl --data data-vl-icl/tasks --shots 0 2 --episodes 12 {RUN}"),
    "eval-seed": Command(
        f"eval --benchmark seed --data data-seed/seed --shots 0 2 --episodes 8 --unseen 'Instances Counting' {RUN}"
    ),
    "eval-fewshot": Command(
        "eval --benchmark fewshot --data inputs/photos --names real --shots 1 --episodes 4 --retention world:taught "
        f"{RUN}"
    ),
    "retention-taught": Command(f"eval --benchmark retention --episodes 6 --scoring both {RUN}"),
    "retention-talk": Command(f"eval --benchmark retention --data inputs/talk/good.json --episodes 6 {RUN}"),
    "retention-vqa": Command(
        "eval --benchmark retention --data inputs/vqa/v2_OpenEnded_mscoco_val2014_questions.json --episodes 6 "
        f"--scoring generate {RUN}"
    ),
    "validate": Command(f"validate --data inputs/photos --shots 0 1 2 --episodes 4 --scoring both {RUN}"),
    "probe": Command(f"probe --data world-folder/things --shots 2 --episodes 8 --seed 1 {RUN}"),
    "compare": Command("compare eval-base/run eval-link/run"),
    "report": Command("report {here}/run", copy=("eval-link/run", "report/run"), change=without_reports),
    "report-probe": Command("report {here}/run", copy=("probe/run", "report-probe/run")),
    "train-link": Command(f"{LINK} {RUN}"),
    "train-resume": Command(f"{LINK} {RUN}", copy=("train-link/run", "train-resume/run"), change=at_step_6),
    "train-icl": Command(
        "train --model mini-base --steps 12 --batch 2 --micro-batch 1 --mixture link=0.4 icl=0.3 letters=0.1 "
        "taught=0.1 inputs/talk/good.json=0.1 --icl-data scenes:1 --turns 1 3 --support 4 "
        "--data world-folder/things --names lcl --strategy 2-way-weight --questions inputs/questions.txt "
        "--scaffold lcl --negatives neighbours --neighbours mine-linear/neighbours.jsonl --save-every 12 "
        f"--gradient-checkpointing {RUN}"
    ),
    "train-lora": Command(
        "train --model mini --steps 12 --batch 2 --support 4 --data world-folder/things --lora-rank 2 --weight-decay "
        f"0.1 --supervise every --strategy lcl-code-weight --save-every 12 --lr 1e-3 --projector-lr 1e-4 {RUN}"
    ),
    "train-curriculum": Command(
        "train --curriculum inputs/curriculum.json --batch 2 --support 4 --data world-folder/things --turns 2 "
        f"--icl-data scenes:1 --save-every 2 --keep 1 {RUN}"
    ),
    "train-dry-run": Command("train --preset lcl-qwen2.5-vl-3b --dry-run --gpus 8 --tflops 300"),
    "average": Command("average mini train-link/run/checkpoint-12 --weights 0.25 0.75 --out {here}/kept"),
    "eval-average": Command(f"eval --model average/kept --data inputs/photos --shots 1 --episodes 4 {RUN}"),
    "teach": Command("teach --data inputs/photos --out {here}/zoo.pack --licence CC0"),
    "teach-more": Command(
        "teach --data inputs/more --out {here}/zoo.pack", copy=("teach/zoo.pack", "teach-more/zoo.pack")
    ),
    "teach-likest": Command(
        "teach --data inputs/more --out {here}/zoo.pack --shots-per-class 2 --select rices --no-state --model mini-base"
    ),
    "ask": Command(
        "ask teach/zoo.pack inputs/odd/red/2.png 'inputs/more/green 3/0.png' inputs/photos/test/red_thing/1.png"
    ),
    "ask-json": Command(
        "ask teach-more/zoo.pack inputs/odd/red/2.png inputs/odd/blue/1.png 'inputs/more/green 3/0.png' --json",
        answer="answers.jsonl",
    ),
    "ask-likest": Command(
        "ask teach-likest/zoo.pack inputs/odd/red/2.png inputs/odd/blue/1.png --json", answer="answers.jsonl"
    ),
    "ask-question": Command(
        "ask teach/zoo.pack inputs/odd/red/2.png --question 'What colour is it?' --json", answer="answers.jsonl"
    ),
    "ask-other-model": Command(
        "ask teach/zoo.pack inputs/odd/blue/1.png --model mini-base --json", answer="answers.jsonl"
    ),
    "pack-show": Command("pack teach/zoo.pack"),
    "pack-rename": Command(
        "pack {here}/zoo.pack --rename 'red thing' redoo --remove 'green thing'",
        copy=("teach/zoo.pack", "pack-rename/zoo.pack"),
    ),
    "pack-merge": Command(
        "pack pack-rename/zoo.pack --merge teach-likest/zoo.pack --licence CC0 --out {here}/all.pack"
    ),
    "chat": Command("chat --pack teach/zoo.pack", typed=CHAT),
    "serve": Command("serve --pack zoo=teach/zoo.pack --port 0"),
    "eval-served": Command(
        "eval --model openai:{server}#mini --data inputs/photos --shots 0 1 --episodes 3 --scoring both --batch 1 "
        f"{RUN}"
    ),
    "ask-served": Command(
        "ask teach/zoo.pack inputs/odd/red/2.png --model openai:{server}#mini --json", answer="served.jsonl"
    ),
    "bad-folder": Command("eval --data inputs/missing --out {here}/run"),
    "bad-ways": Command(f"{BAD} --ways 9"),
    "bad-queries": Command(f"{BAD} --ways 2 --queries 3"),
    "bad-flag": Command(f"{BAD} --shot 2"),
    "bad-model": Command(f"{BAD} --model inputs/photos"),
    "bad-strict": Command("data inputs/odd --strict"),
    "bad-pack": Command("ask inputs/scaffold.json inputs/odd/red/2.png"),
    "bad-lora": Command("train --lora-rank 2 --lora-targets nothing --steps 1 --out {here}/run"),
    "bad-out": Command("world --out inputs/photos"),
}


def main() -> None:
    """Record into a folder, or write fixed.json again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="the folder to write; it must be new or empty")
    parser.add_argument("--only", nargs="+", default=[], help="only these commands, and those whose files they read")
    parser.add_argument("--renew-fixed", action="store_true", help="write fixed.json again instead")
    given = parser.parse_args()
    if given.renew_fixed == (given.out is not None):
        parser.error("name a folder to record into, or give --renew-fixed.")
    if given.renew_fixed:
        with tempfile.TemporaryDirectory() as folder:
            record(Path(folder) / "fixed", FIXED)
            DIGESTS.write_text(json.dumps(digests(Path(folder) / "fixed"), indent=1) + "\n")
        return
    if given.out.exists() and any(given.out.iterdir()):
        parser.error(f"{given.out}: is not empty. Name a new folder.")
    if unknown := set(given.only) - set(COMMANDS):
        parser.error(f"--only: there is no command {sorted(unknown)[0]}.")
    record(given.out, {name: command for name, command in COMMANDS.items() if not given.only or name in given.only})


def record(out: Path, commands: Mapping[str, Command]) -> None:
    """Run commands one after the other in `out`, with a cache of their own that is removed at the end."""
    out.mkdir(parents=True, exist_ok=True)
    root, start = out.resolve(), time.monotonic()
    cache = root.parent / f".{root.name}.cache"
    os.environ |= {**ENVIRONMENT, "LINKCONTEXT_CACHE": str(cache)}
    write_inputs(root / "inputs")
    preload()
    try:
        for name, command in commands.items():
            if name == "serve":
                record_server(root, commands)
            elif "{server}" not in command.line:
                run(root, name, command)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    packages = ("linkcontext", "torch", "transformers", "numpy", "pillow")
    about = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    about |= {"folder": str(root), "cache": str(cache), "seconds": round(time.monotonic() - start, 1)}
    (root / "recording.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"{len(commands)} commands in {about['seconds']:.0f} s: {out}")


def run(root: Path, name: str, command: Command, server: str = "") -> None:
    """Run one command and keep what it prints, its exit code and its files."""
    here, start = prepared(root, name, command), os.times()
    with process(root, here, command.arguments(name, server)) as running:
        pass
    kept(here, command, running.exitcode)
    end = os.times()
    busy = end.children_user + end.children_system - start.children_user - start.children_system
    print(
        f"{name}: exit code {running.exitcode}, {end.elapsed - start.elapsed:.1f} s, of them {busy:.1f} s busy",
        flush=True,
    )


def record_server(root: Path, commands: Mapping[str, Command]) -> None:
    """Run `serve`, send it requests, run the commands that ask a server, and stop it."""
    here = prepared(root, "serve", commands["serve"])
    with process(root, here, commands["serve"].arguments("serve")) as running, serving(running, here) as url:
        send_requests(url, root / "inputs", here)
        for name, command in commands.items():
            if "{server}" in command.line:
                run(root, name, command, url)
    kept(here, commands["serve"], running.exitcode)
    print(f"serve: exit code {running.exitcode}", flush=True)


def prepared(root: Path, name: str, command: Command) -> Path:
    """The folder of a command, with what it reads from stdin and what is copied for it."""
    here = root / name
    here.mkdir()
    for stream, text in (("stdin", command.typed), ("stdout", ""), ("stderr", "")):
        (here / f"{stream}.txt").write_text(text)
    source, target = command.copy
    if source:
        copy = shutil.copytree if (root / source).is_dir() else shutil.copyfile
        copy(root / source, root / target)
    if command.change is not None:
        command.change(here)
    return here


def kept(here: Path, command: Command, code: int | None) -> None:
    """Write the exit code, and give stdout its name."""
    (here / "exit_code.txt").write_text(f"{code}\n")
    (here / "stdin.txt").unlink()
    if command.answer:
        (here / "stdout.txt").rename(here / command.answer)


def fixed_files(root: Path) -> Iterator[Path]:
    """The files below a recording of `FIXED` whose bytes are the same on every machine."""
    for name in FIXED:
        for path in sorted((root / name).rglob("*")):
            if path.name in FIXED_FILES or path.suffix == ".jsonl" or path.name.startswith("ISEKAI"):
                yield path


def digests(root: Path) -> dict[str, str]:
    """The sha256 of each of these files, without the place of the recording and the hashes of pictures in it."""
    place = str(root.resolve()).encode()
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(
            PICTURES.sub(b"", path.read_bytes().replace(place, b"ROOT"))
        ).hexdigest()
        for path in fixed_files(root)
    }


if __name__ == "__main__":
    main()
