"""`linkcontext demo`: show a model pictures under names, ask it about others, and measure its accuracy.

Nothing is trained. The pictures are invented things and handwritten digits, or a user's class folders with --data.
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

from linkcontext.config import HeadName, eval_config
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.pool import open_pool
from linkcontext.errors import InputError
from linkcontext.evaluation.metrics import Row
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.evaluation.text import format_share
from linkcontext.models.loading import load_model
from linkcontext.models.prompting import USUAL_PROMPTING, Prompting
from linkcontext.report.demo import DemoLesson, DemoQuery, write_demo
from linkcontext.report.tables import Grid, format_interval
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner

SHOTS, QUERIES = 4, 2  # pictures per class
SMALLER = ((SHOTS, QUERIES), *((shots, 1) for shots in range(SHOTS, 0, -1)))  # for classes with fewer pictures
MAX_CLASSES = 5  # of a user's data
PACE = 300e6  # parameters x episodes that two processor cores compute in the time of one row of the table
FEWEST, MOST = 8, 64  # episodes of a row
HEADINGS = ("pictures", "model", "shots per class", "right [95 %]", "auto", "nearest centroid", "chance", "n queries")
TWO_ANSWERS = (
    "Nothing is trained. Each question gets two answers. lm: that of the language model, from its context. auto: that "
    "of `linkcontext ask`, which takes the language model or a classifier on its image features, whichever does better "
    "on shown pictures that are left out in turn.\n"
)
OWN_PICTURES = (
    "To teach your own pictures, a folder for each name: linkcontext teach --data FOLDER --out zoo.pack\n"
    "To ask about others:                                linkcontext ask zoo.pack PICTURE"
)
NUMBERS = ("zero", "one", "two", "three", "four", "five")


@dataclass(frozen=True, slots=True)
class DemoSubject:
    """The data of a lesson, how many of its pictures are shown and asked about, and the kind of their names."""

    label: str
    title: str
    remark: str
    spec: str  # as in --data
    plan: EpisodePlan
    known: bool = True  # whether people have names for these things


def demo(
    data: str | None, model: str, out: Path, seed: int, console: Console, prompting: Prompting = USUAL_PROMPTING
) -> Path:
    """Teach and ask `model`, print the dialogue and a table, and return the path of the page `out`/demo.html.

    `data` is a folder of class folders (or any other value of --data) to use instead of the built-in subjects. Files of
    an earlier demo in `out` are replaced. Raises `InputError` for data with fewer than two classes of two pictures, an
    unknown model, and an `out` that cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Choose another folder for --out.")
    subjects = list(_own(data, seed) if data else built_in(seed))
    # mini is compared with the model before it was trained to learn from its context; other models have no such pair.
    names = ("mini-base", model) if model == "mini" else (model,)
    models: dict[str, ScoringModel] = {name: LocalModel(load_model(name, prompting=prompting)) for name in names}
    if data:
        _print_left_out(subjects[0], console)
    console.print(
        f"[bold]{escape(model)}[/] is shown pictures under names, and then asked about new ones.", markup=True
    )
    console.print(TWO_ANSWERS, markup=False, soft_wrap=True)
    lessons = []
    for subject in subjects:
        lessons.append(teach(models[model], subject))
        _print_lesson(model, lessons[-1], console)
    right, queries = sum(lesson.right for lesson in lessons), sum(len(lesson.queries) for lesson in lessons)
    guessing = sum(lesson.guessing for lesson in lessons)
    by_head = sum(lesson.right_by_head for lesson in lessons)
    console.print(
        f"[bold]{right} of {queries} right[/] by the language model (lm), {by_head} of {queries} by auto; "
        f"guessing would get about {guessing:.0f}.\n",
        markup=True,
    )
    console.print("Now the same is measured with many more pictures, two things at a time ...")
    grid = _measure(subjects, models, out, seed)
    console.print(_table(grid))
    page = write_demo(model, lessons, grid, _again(data, model, out, seed, prompting), out / "demo.html")
    console.print(f"The same with the pictures, to open in a browser: {page}", markup=False, soft_wrap=True)
    console.print(OWN_PICTURES, markup=False, highlight=False, soft_wrap=True)
    return page


def built_in(seed: int) -> Iterator[DemoSubject]:
    """Three handwritten digits, and three invented things of a world."""
    plan = EpisodePlan(3, (SHOTS,), episodes=1, queries=3 * QUERIES, names="pseudo", seed=seed)
    yield DemoSubject(
        "handwritten digits",
        "Three real handwritten digits under made-up names",
        "Scans of real handwriting under made-up names, which only the pictures shown can explain.",
        "digits",
        dataclasses.replace(plan, seed=seed + 1),  # with the same seed both lessons would have the same names
    )
    yield DemoSubject(
        "invented things",
        "Three invented things",
        "Things and names are random; no model was trained on any of them.",
        f"world:{seed}",
        plan,
        known=False,
    )


def _own(data: str, seed: int) -> Iterator[DemoSubject]:
    """The user's classes, under their own names and under made-up ones."""
    shots, queries, ways = _lesson_size(open_data(data))
    plan = EpisodePlan(ways, (shots,), episodes=1, queries=ways * queries, names="real", seed=seed)
    things = f"{NUMBERS[ways].capitalize()} of your classes"
    yield DemoSubject(
        "own names",
        f"{things} under their own names",
        "A model that knows these names already can answer without the pictures shown.",
        data,
        plan,
    )
    yield DemoSubject(
        "made-up names",
        f"{things} under made-up names",
        "The same pictures under made-up names, which only the pictures shown can explain.",
        data,
        dataclasses.replace(plan, names="pseudo"),
    )


def _lesson_size(dataset: Dataset) -> tuple[int, int, int]:
    """Shots and queries per class, and the number of classes: the largest lesson for which two classes suffice."""
    for shots, queries in SMALLER:
        try:
            pool = open_pool(dataset, EpisodePlan(2, (shots,), queries=2 * queries))
        except InputError:
            if (shots, queries) == SMALLER[-1]:
                raise
            continue
        names = {class_pool.name.casefold() for class_pool in pool.classes.values()}
        return shots, queries, min(MAX_CLASSES, len(names))
    raise AssertionError("the last of SMALLER returns or raises")


def _print_left_out(subject: DemoSubject, console: Console) -> None:
    """Print which of the user's pictures and classes are left out, and why."""
    dataset = open_data(subject.spec)
    classes = [f"left out: {c.class_id} ({c.shortfall})" for c in sample_episodes(dataset, subject.plan).left_out]
    for sentence in (*dataset.problems, *classes):
        console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


def teach(model: ScoringModel, subject: DemoSubject) -> DemoLesson:
    """Teach a new learner the support of one episode, and ask it the queries."""
    dataset = open_data(subject.spec)
    (episode,) = sample_episodes(dataset, subject.plan).episodes
    learner = Learner(model, head="lm")  # the demo shows what the model learns, and beside it what `ask` answers
    support = {
        c.name: tuple(dataset.path(turn.item) for turn in episode.support if turn.class_id == c.class_id)
        for c in episode.candidates
    }
    learner.teach(support)
    pictures = [(dataset.path(query.item), query.answer) for query in episode.queries]
    by_model = [learner.ask(picture).probabilities for picture, _ in pictures]
    learner.head = "auto"
    answered = zip(pictures, by_model, (learner.ask(picture).probabilities for picture, _ in pictures), strict=True)
    queries = tuple(DemoQuery(*picture, of_model, of_head) for picture, of_model, of_head in answered)
    truths = {c.name: c.truth for c in episode.candidates if subject.known and c.name != c.truth}
    return DemoLesson(
        subject.title, subject.remark, dataset.root, support, truths, queries, learner.choose_head().describe()
    )


def _print_lesson(model: str, lesson: DemoLesson, console: Console) -> None:
    """Print the lesson as a dialogue."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(lesson.title)}[/]", highlight=False, markup=True)
    say(lesson.remark)
    say(f"The pictures are in {lesson.root}")
    for name, paths in lesson.support.items():
        truth = f" ({lesson.truths[name]})" if name in lesson.truths else ""
        listed = ", ".join(str(path.relative_to(lesson.root)) for path in paths)
        say(f'  shown: "This is {name}."{truth}  {listed}')
    for query in lesson.queries:
        say(f'  asked: "What is this?"  {query.picture.relative_to(lesson.root)}')
        for who, by, answer in (
            (f"{model} (lm)", query.probabilities, query.answer),
            ("auto", query.by_head, query.answer_by_head),
        ):
            verdict = "right" if answer == query.name else f"wrong, it is {query.name}"
            style = "green" if answer == query.name else "red"
            say(f"    {who}: {answer} ({by[answer]:.0%})  {verdict}", style=style)
    say(
        f"{lesson.right} of {len(lesson.queries)} right by lm, {lesson.right_by_head} by auto; guessing would get "
        f"about {lesson.guessing:.0f}."
    )
    say(f"auto: {lesson.head}\n")


def _measure(subjects: Sequence[DemoSubject], models: dict[str, ScoringModel], out: Path, seed: int) -> Grid:
    """The two-way accuracy of each model on each subject, with its baselines."""
    lines: list[tuple[str, ...]] = []
    for subject in subjects:
        # The base is there to be compared with, and needs no head beside it.
        by_model = {
            name: _rows(subject, name, model, out, seed, "lm" if name == "mini-base" else "auto")
            for name, model in models.items()
        }
        for at in range(len(next(iter(by_model.values())))):
            lines += [_line(subject, name, *rows[at]) for name, rows in by_model.items()]
    return Grid(HEADINGS, tuple(lines))


def _rows(
    subject: DemoSubject, name: str, model: ScoringModel, out: Path, seed: int, head: HeadName
) -> list[tuple[Row, Row | None]]:
    """The rows of a run that score by summed likelihood, one for each shots per class, and those of its head.

    The run is below `out`/runs.
    """
    run = out / "runs" / f"{Path(name).name}-{subject.label.replace(' ', '-')}"
    for file in ("config.json", "episodes.jsonl", "predictions.jsonl", "metrics.json"):
        (run / file).unlink(missing_ok=True)  # an earlier demo may have had other data or weights
    parameters = sum(p.numel() for p in model.loaded.network.parameters())
    config = eval_config(
        model=name,
        data=subject.spec,
        shots=tuple(sorted({1, *subject.plan.shots_per_class})),
        episodes=max(FEWEST, min(MOST, int(PACE / parameters))),
        queries=2 * subject.plan.queries_per_class,
        names=subject.plan.names,
        head=head,
        seed=seed,
        explain=0,  # the page of the demo does not show it
        out=str(run),
    )
    rows = run_evaluation(config, model)["rows"]
    by_head = {row["shots_per_class"]: row for row in rows if row["scoring"] == "head"}
    return [(row, by_head.get(row["shots_per_class"])) for row in rows if row["scoring"] == "likelihood_sum"]


def _line(subject: DemoSubject, model: str, row: Row, by_head: Row | None) -> tuple[str, ...]:
    return (
        subject.label,
        model,
        str(row["shots_per_class"]),
        f"{format_share(row['accuracy'])} {format_interval(row['ci95'])}",
        format_share(by_head["accuracy"]) if by_head else "",
        format_share(row["baselines"]["nearest_centroid"]),
        format_share(row["chance"]),
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
    words = ["linkcontext", "demo", *(["--data", data] if data else [])]
    words += ["--model", model, "--out", str(out), "--seed", str(seed)]
    defaults = dataclasses.asdict(USUAL_PROMPTING)
    for option, value in dataclasses.asdict(prompting).items():
        if value != defaults[option]:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)
