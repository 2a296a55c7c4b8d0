"""The table of commands, in the order in which a newcomer needs them: what each is for, and examples that run."""

from dataclasses import dataclass
from typing import Any

from linkcontext.cli.ask import AskPack
from linkcontext.cli.data import Data, Episodes, Mine, World
from linkcontext.cli.evaluate import Compare, Eval, Probe, Report, Validate
from linkcontext.cli.serve import App, Serve
from linkcontext.cli.teach import ChangePack, Chat, Demo, Teach
from linkcontext.cli.train import Average, Cache, Mini, Train


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the class of its options, which runs it, a line about it, and example command lines."""

    options: type[Any]
    summary: str
    examples: tuple[str, ...]


GROUPS: dict[str, dict[str, Command]] = {
    "A first evening": {
        "demo": Command(
            Demo,
            "watch the bundled model learn invented things and real digits",
            ("linkcontext demo", "linkcontext demo --data photos"),
        ),
        "teach": Command(
            Teach,
            "show a model pictures of your own things, and save them in a pack",
            (
                "linkcontext teach --data photos --out zoo.pack",
                "linkcontext teach --data photos --out zoo.pack --classes lime lemon --shots-per-class 8",
            ),
        ),
        "ask": Command(
            AskPack,
            "ask what is in a picture, after a pack was taught",
            (
                "linkcontext ask zoo.pack new.jpg",
                "linkcontext ask zoo.pack new.jpg other.jpg --json",
                "linkcontext ask zoo.pack new/*.jpg --reject 0.9",
            ),
        ),
        "pack": Command(
            ChangePack,
            "show what is in a pack; remove, rename or merge names",
            (
                "linkcontext pack zoo.pack",
                "linkcontext pack zoo.pack --rename lemons lemon",
                "linkcontext pack zoo.pack --merge more.pack --out both.pack",
            ),
        ),
        "app": Command(
            App,
            "teach, ask and chat on a web page, and look at runs",
            ("linkcontext app", "linkcontext app --model mini --port 7870"),
        ),
        "chat": Command(
            Chat,
            "teach, ask and correct in a dialogue",
            ("linkcontext chat", "linkcontext chat --pack zoo.pack"),
        ),
    },
    "Pictures": {
        "data": Command(
            Data,
            "look through pictures: classes, splits, bad files; read other tools' files",
            ("linkcontext data photos", "linkcontext data talk.json --layout conversations --out talk"),
        ),
        "world": Command(
            World,
            "draw a world of invented things into class folders",
            ("linkcontext world --out things", "linkcontext world --out things --classes 8 --images 20 --seed 3"),
        ),
        "mine": Command(
            Mine,
            "find out which classes are hard to tell apart",
            ("linkcontext mine --data photos --out neighbours.jsonl",),
        ),
        "episodes": Command(
            Episodes,
            "draw episodes: print them as a model reads them, or write them for other tools",
            (
                "linkcontext episodes --data photos --shots-per-class 1 --show 1",
                "linkcontext episodes --data photos --shots-per-class 4 --export llava --out episodes.json",
            ),
        ),
    },
    "Measuring": {
        "validate": Command(
            Validate,
            "check a run before it starts: nothing leaks, every prompt fits",
            ("linkcontext validate --data photos --shots-per-class 1 4",),
        ),
        "eval": Command(
            Eval,
            "measure how often new pictures are named right, by shots per class",
            (
                "linkcontext eval --data photos --names real --ways 3 --shots-per-class 1 4",
                "linkcontext eval --model mini-base --data world:7 --episodes 64 --out runs/base",
                "linkcontext eval --model llava-hf/llava-onevision-qwen2-0.5b-ov-hf --data photos",
            ),
        ),
        "probe": Command(
            Probe,
            "test whether a model's answers come from the pictures",
            ("linkcontext probe --data photos --shots-per-class 4 --out runs/probe",),
        ),
        "report": Command(Report, "write the page of a run again, from its files", ("linkcontext report runs/base",)),
        "compare": Command(
            Compare,
            "say which of two runs is better, and how sure that is",
            ("linkcontext compare runs/base runs/first",),
        ),
    },
    "Training": {
        "train": Command(
            Train,
            "tune a model to learn from the pictures in its context",
            (
                "linkcontext train --data photos --steps 500 --out runs/tuned",
                "linkcontext train --preset lcl-qwen2.5-vl-3b --dry-run --gpus 8",
            ),
        ),
        "average": Command(
            Average,
            "average a model with its fine-tuned version, so that less is forgotten",
            ("linkcontext average mini runs/tuned/checkpoint-500 --weights 0.25 0.75 --out runs/averaged",),
        ),
    },
    "Serving and upkeep": {
        "serve": Command(
            Serve,
            "serve a model and packs to clients of OpenAI's API",
            ("linkcontext serve --port 8000", "linkcontext serve --pack zoo=zoo.pack"),
        ),
        "mini": Command(Mini, "print the folder of a bundled model", ("linkcontext mini path mini",)),
        "cache": Command(
            Cache,
            "show or clear the image features that are kept on the disk",
            ("linkcontext cache info", "linkcontext cache clear"),
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
