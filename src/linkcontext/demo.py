"""`linkcontext demo`: show a model pictures under names, ask it about others, and measure what that was worth.

Nothing is trained. Invented things and handwritten digits by default, a user's own class folders with --data.
"""

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from linkcontext.config import eval_config
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.pool import open_pool
from linkcontext.errors import InputError
from linkcontext.evaluation.metrics import Row
from linkcontext.evaluation.runner import evaluate
from linkcontext.models.loading import Model, load
from linkcontext.models.prompting import USUAL_PROMPTING, Prompting
from linkcontext.report.demo import Asked, Lesson, write_demo
from linkcontext.report.tables import Grid, bounds, share
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner

SHOWN, ASKED = 4, 2  # pictures of each thing
WANTED = ((SHOWN, ASKED), *((shown, 1) for shown in range(SHOWN, 0, -1)))  # where there are fewer pictures, less
MOST_THINGS = 5  # of a user's
PACE = 300e6  # parameters x episodes that two processor cores get through in the time of one cell of the table
FEWEST, MOST = 8, 64  # episodes of a cell
HEADINGS = ("pictures", "model", "shots per class", "right [95 %]", "nearest centroid", "chance", "n queries")
NUMBERS = ("zero", "one", "two", "three", "four", "five")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a lesson is about: pictures, how many of which are shown and asked about, and under which names."""

    label: str
    title: str
    told: str
    spec: str  # as --data has it
    plan: EpisodePlan
    known: bool = True  # whether people have names of their own for these things


def demo(
    data: str | None, model: str, out: Path, seed: int, console: Console, prompting: Prompting = USUAL_PROMPTING
) -> Path:
    """Teach and ask `model`, print the dialogue and a table, and write `out`/demo.html; its path.

    `data` is a folder of class folders (or anything else that --data means) to be used instead of the built-in
    subjects. Files of an earlier demo in `out` are written anew. Raises `InputError` for data with fewer than two
    classes of two pictures, an unknown model, and an `out` that cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Choose another --out.")
    subjects = list(_own(data, seed) if data else built_in(seed))
    # The model before it learned to learn stands beside the one after; another model stands alone.
    models = {name: load(name, prompting=prompting) for name in (("mini-base", model) if model == "mini" else (model,))}
    pupil = models[model]
    if data:
        _left_out(subjects[0], console)
    console.print(
        f"[bold]{escape(model)}[/] is shown pictures under names, and then asked about new ones.", markup=True
    )
    console.print("Nothing is trained: it answers from what stands in front of it.\n")
    lessons = []
    for subject in subjects:
        lessons.append(teach(pupil, subject))
        _tell(model, lessons[-1], console)
    right, asked = sum(lesson.right for lesson in lessons), sum(len(lesson.asked) for lesson in lessons)
    guessing = sum(lesson.guessing for lesson in lessons)
    console.print(f"[bold]{right} of {asked} right[/]; guessing would get about {guessing:.0f}.\n", markup=True)
    console.print("Now the same with many more pictures, two things at a time ...")
    grid = _measure(subjects, models, out, seed)
    console.print(_table(grid))
    page = write_demo(model, lessons, grid, _again(data, model, out, seed, prompting), out / "demo.html")
    console.print(f"All of this with the pictures, to open in a browser: {page}", markup=False, soft_wrap=True)
    return page


def built_in(seed: int) -> Iterator[Subject]:
    """Three invented things of a world, and three handwritten digits."""
    plan = EpisodePlan(3, (SHOWN,), episodes=1, queries=3 * ASKED, names="pseudo", seed=seed)
    yield Subject(
        "invented things",
        "Three invented things",
        "Drawn by chance and named by chance; no model was trained on any of them.",
        f"world:{seed}",
        plan,
        known=False,
    )
    yield Subject(
        "handwritten digits",
        "Three real handwritten digits under made-up names",
        "Scans of real handwriting under names that say nothing, so that only what was shown can tell.",
        "digits",
        dataclasses.replace(plan, seed=seed + 1),  # else the same names would come again
    )


def _own(data: str, seed: int) -> Iterator[Subject]:
    """The user's classes, under their own names and under made-up ones."""
    shown, asked, ways = _room(open_data(data))
    plan = EpisodePlan(ways, (shown,), episodes=1, queries=ways * asked, names="real", seed=seed)
    things = f"{NUMBERS[ways].capitalize()} of your classes"
    yield Subject(
        "own names",
        f"{things} under their own names",
        "Where a model knows these names already, it could answer without what it was shown.",
        data,
        plan,
    )
    yield Subject(
        "made-up names",
        f"{things} under made-up names",
        "The same pictures under names that say nothing, so that only what was shown can tell.",
        data,
        dataclasses.replace(plan, names="pseudo"),
    )


def _room(dataset: Dataset) -> tuple[int, int, int]:
    """Pictures to show and to ask of each class, and how many classes: as many pictures as two classes have."""
    for shown, asked in WANTED:
        try:
            pool = open_pool(dataset, EpisodePlan(2, (shown,), queries=2 * asked))
        except InputError:
            if (shown, asked) == WANTED[-1]:
                raise
            continue
        names = {class_pool.name.casefold() for class_pool in pool.classes.values()}
        return shown, asked, min(MOST_THINGS, len(names))
    raise AssertionError("the last of WANTED returns or raises")


def _left_out(subject: Subject, console: Console) -> None:
    """What of the user's pictures is not in the demo, and why."""
    dataset = open_data(subject.spec)
    classes = [f"left out: {c.class_id} ({c.shortfall})" for c in sample_episodes(dataset, subject.plan).left_out]
    for sentence in (*dataset.problems, *classes):
        console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


def teach(model: Model, subject: Subject) -> Lesson:
    """Show a fresh learner the support of one episode, and ask it the queries."""
    dataset = open_data(subject.spec)
    (episode,) = sample_episodes(dataset, subject.plan).episodes
    learner = Learner(model)
    shown = {
        c.name: tuple(dataset.path(turn.item) for turn in episode.support if turn.class_id == c.class_id)
        for c in episode.candidates
    }
    learner.teach(shown)
    pictures = [(dataset.path(query.item), query.answer) for query in episode.queries]
    asked = [Asked(picture, name, learner.ask(picture).probabilities) for picture, name in pictures]
    truths = {c.name: c.truth for c in episode.candidates if subject.known and c.name != c.truth}
    return Lesson(subject.title, subject.told, dataset.root, shown, truths, tuple(asked))


def _tell(model: str, lesson: Lesson, console: Console) -> None:
    """The lesson as a dialogue."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(lesson.title)}[/]", highlight=False, markup=True)
    say(lesson.told)
    say(f"Pictures are in {lesson.root}")
    for name, paths in lesson.shown.items():
        truth = f" ({lesson.truths[name]})" if name in lesson.truths else ""
        listed = ", ".join(str(path.relative_to(lesson.root)) for path in paths)
        say(f'  shown: "This is {name}."{truth}  {listed}')
    for asked in lesson.asked:
        verdict = "right" if asked.right else f"wrong, it is {asked.name}"
        answer = f"{asked.said} ({asked.probabilities[asked.said]:.0%})"
        say(f'  asked: "What is this?"  {asked.picture.relative_to(lesson.root)}')
        say(f"    {model}: {answer}  {verdict}", style="green" if asked.right else "red")
    say(f"{lesson.right} of {len(lesson.asked)} right; guessing would get about {lesson.guessing:.0f}.\n")


def _measure(subjects: Sequence[Subject], models: dict[str, Model], out: Path, seed: int) -> Grid:
    """Accuracy of each model on each subject, two things at a time, with what it has to be compared with."""
    lines: list[tuple[str, ...]] = []
    for subject in subjects:
        found = {name: _rows(subject, name, model, out, seed) for name, model in models.items()}
        for at in range(len(next(iter(found.values())))):
            lines += [_line(subject, name, rows[at]) for name, rows in found.items()]
    return Grid(HEADINGS, tuple(lines))


def _rows(subject: Subject, name: str, model: Model, out: Path, seed: int) -> list[Row]:
    """The rows by summed likelihood, one for each shots per class. The run's files lie below `out`/runs."""
    run = out / "runs" / f"{Path(name).name}-{subject.label.replace(' ', '-')}"
    for file in ("config.json", "episodes.jsonl", "predictions.jsonl", "metrics.json"):
        (run / file).unlink(missing_ok=True)  # of an earlier demo, which may have had other data or weights
    parameters = sum(p.numel() for p in model.network.parameters())
    config = eval_config(
        model=name,
        data=subject.spec,
        shots=tuple(sorted({1, *subject.plan.shots_per_class})),
        episodes=max(FEWEST, min(MOST, int(PACE / parameters))),
        queries=2 * subject.plan.queries_per_class,
        names=subject.plan.names,
        seed=seed,
        explain=0,  # the demo's page has no place for it
        out=str(run),
    )
    return [row for row in evaluate(config, LocalModel.of(model))["rows"] if row["scoring"] == "likelihood_sum"]


def _line(subject: Subject, model: str, row: Row) -> tuple[str, ...]:
    return (
        subject.label,
        model,
        str(row["shots_per_class"]),
        f"{share(row['accuracy'])} {bounds(row['ci95'])}",
        share(row["baselines"]["nearest_centroid"]),
        share(row["chance"]),
        f"{row['n_queries']:,}",
    )


def _table(grid: Grid) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in grid.headings:
        table.add_column(
            heading.replace(" ", "\n").replace("\n%", " %"), justify="left" if heading in HEADINGS[:2] else "right"
        )
    for line in grid.lines:
        table.add_row(*map(Text, line))
    return table


def _again(data: str | None, model: str, out: Path, seed: int, prompting: Prompting) -> str:
    """The command that makes this demo."""
    given = ["linkcontext", "demo", *(["--data", data] if data else [])]
    given += ["--model", model, "--out", str(out), "--seed", str(seed)]
    for field in dataclasses.fields(prompting):
        if (value := getattr(prompting, field.name)) != field.default:
            given += [f"--{field.name.replace('_', '-')}", str(value)]
    return shlex.join(given)
