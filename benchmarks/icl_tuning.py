"""In-context instruction tuning and its ablations, from mini-base. Run: `python benchmarks/icl_tuning.py`.

    base                 mini-base as it is
    icl                  a curriculum after arXiv 2403.12736: alignment (what letters stand for, told in words first and
                         between two options about a picture then), single-turn instruction on the tasks, any-shot
                         conversations about one concept. Half of the examples of the last two are replay
    no coherence         turns of a conversation about anything
    no curriculum        conversations alone, from mini-base, as many steps as instruction and conversations
    query only           the last answer of a conversation is learnt, not every one
    replay 0, .25, .75   other shares of replay among the conversations
    without TASK         one family of tasks left out of instruction and conversations
    mini                 the bundled model: mini-base after the other paper's tuning (Link-Context Learning)
    mini + icl           both: instruction and conversations from there

Every row with every seed; the alignment is common to all of them. relation, same-different and rule are never trained
on. Resumable. Writes benchmarks/results/icl_tuning.json and .png, and prints the tables of docs/icl-tuning.md. `--only
icl "no coherence"` takes some rows, `--toy` shows that all of it runs; its figures say nothing.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import tyro
from machine import COLOURS, RESULTS, machine
from matplotlib.figure import Figure
from scipy.stats import t as student
from table import Found, cell, learnt, listed, slim

from linkcontext.config import EvalConfig, ModelConfig, eval_config
from linkcontext.episodes.talk import HELD_OUT
from linkcontext.evaluate import icl, isekai
from linkcontext.evaluate.retention import retention
from linkcontext.evaluate.run import evaluate, measure
from linkcontext.models.load import Model, load
from linkcontext.records import write_text
from linkcontext.train.config import TrainConfig
from linkcontext.world.isekai import write_isekai
from linkcontext.world.scenes import write_scenes

TASKS = ("naming", "attribute", "count", "location", "caption")
REPLAY = 0.5
REPLAYS = (0.0, 0.25, 0.75)
GIVEN = {"base": "mini-base", "mini": "mini"}  # rows that nothing is trained for
MAIN = ("base", "icl", "mini", "mini + icl")  # measured on the other benchmarks too
SHOTS = (0, 1, 2, 4, 8)


@dataclass
class Table:
    """Train and measure all rows of the table."""

    out: str = "runs/icl-tuning"
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    """Names of rows; all without."""
    letters_steps: int = 200
    easy_steps: int = 300
    choice_steps: int = 700
    instruction_steps: int = 150
    icl_steps: int = 250
    single: int = 32
    """Single turns of a step of alignment and instruction."""
    batch: int = 8
    """Conversations of a step."""
    lr: float = 5e-4
    classes: int = 400
    """Things in the pictures that are trained on, sixteen pictures each; and so many scenes of every other kind."""
    episodes: int = 270
    """Of world-icl in each form, on scenes of another seed: ten of every subject."""
    toy: bool = False
    """Tiny, to see that it runs."""


def names() -> list[str]:
    """All rows."""
    ablations = ["no coherence", "no curriculum", "query only", *(f"replay {share:g}" for share in REPLAYS)]
    return [*MAIN, *ablations, *(f"without {task}" for task in TASKS)]


def runs(table: Table) -> Iterator[tuple[str, int | None]]:
    """All rows in an order in which one seed of everything is there first."""
    wanted = [name for name in names() if not table.only or name in table.only]
    yield from ((name, None) for name in wanted if name in GIVEN)
    for seed in table.seeds:
        yield from ((name, seed) for name in wanted if name not in GIVEN)


def trained(table: Table, name: str, seed: int | None) -> str:
    """The folder of a row's model, trained if it is not there."""
    if seed is None:
        return GIVEN[name]
    models, left_out = Path(table.out) / "models", name.removeprefix("without ")
    share = float(name.removeprefix("replay ")) if name.startswith("replay") else REPLAY
    whole = TrainConfig(
        model=ModelConfig("mini-base"),
        icl_data=str(Path(table.out) / "scenes"),
        tasks=tuple(task for task in TASKS if task != left_out),
        coherence="none" if name == "no coherence" else "concept",
        supervise="query" if name == "query only" else None,
        mixture=(f"icl={1 - share:g}", f"taught={share:g}") if share else ("icl",),
        batch=table.batch,
        steps=table.icl_steps,
        lr=table.lr,
        save_every=200,
        keep=1,
        seed=seed,
        out=str(models / f"{name.replace(' ', '-')}-{seed}"),
    )
    if name == "no curriculum":
        return learnt(replace(whole, steps=table.instruction_steps + table.icl_steps))
    common = name if name in ("mini + icl", f"without {left_out}") else "icl"  # whose instruction it begins with
    instruction = replace(
        whole,
        model=ModelConfig("mini" if name == "mini + icl" else aligned(table)),
        mixture=(f"icl={1 - REPLAY:g}", f"taught={REPLAY:g}"),
        coherence="concept",
        supervise=None,
        turns=(1,),
        batch=table.single,
        steps=table.instruction_steps,
        out=str(models / f"{common.replace(' ', '-')}-{seed}-instruction"),
    )
    return learnt(replace(whole, model=ModelConfig(learnt(instruction))))


def aligned(table: Table) -> str:
    """A model that knows what letters stand for: in words, then between two options about a picture."""
    models = Path(table.out) / "models"
    letters = TrainConfig(
        model=ModelConfig("mini-base"),
        icl_data=str(Path(table.out) / "scenes"),
        tasks=("naming", "attribute"),
        mixture=("letters=1",),
        turns=(1,),
        batch=table.single,
        steps=table.letters_steps,
        lr=table.lr,
        save_every=200,
        keep=1,
        out=str(models / "letters"),
    )
    easy = replace(
        letters,
        model=ModelConfig(learnt(letters)),
        tasks=("attribute",),
        mixture=("icl=0.8", "letters=0.2"),
        format="choice",
        options=2,
        steps=table.easy_steps,
        lr=2 * table.lr,
        out=str(models / "easy"),
    )
    choice = replace(
        easy,
        model=ModelConfig(learnt(easy)),
        tasks=("attribute", "location", "count"),
        mixture=("icl=0.65", "letters=0.1", "taught=0.25"),
        steps=table.choice_steps,
        out=str(models / "choice"),
    )
    return learnt(choice)


def measured(table: Table, name: str, seed: int | None) -> list[dict]:
    """Every figure of one row."""
    where = Path(table.out) / "evals" / f"{name.replace(' ', '-')}-{'base' if seed is None else seed}"
    if (where / "rows.json").exists():
        return json.loads((where / "rows.json").read_text())
    model = load(trained(table, name, seed))
    told = [{"name": name, "seed": seed, **row} for row in figures(table, where, model, name in MAIN)]
    write_text(json.dumps(told) + "\n", where / "rows.json")
    return told


def figures(table: Table, where: Path, model: Model, main: bool) -> Iterator[dict]:
    def config(what: str, **options: Any) -> EvalConfig:
        return eval_config(model=model.name, out=str(where / what), **options)

    asked = icl.settled(config("world-icl", data="scenes:9201", episodes=table.episodes), "world-icl")
    rows = measure(asked, *icl.open_benchmark(asked), model=model)["rows"]
    yield from ({"what": "world-icl", **row} for row in rows if row["scoring"] == "likelihood_sum")
    yield from ({"what": "means", **line} for line in icl.summary(rows) if line["scoring"] == "likelihood_sum")
    n = max(2, table.episodes // 2)
    yield from (
        {"what": "retention", **row} for row in retention(config("retention", episodes=table.episodes), model)["rows"]
    )
    if not main:
        return
    found = evaluate(config("world", data="world:9101", shots=(0, 1, 4), episodes=n), model)
    yield from ({"what": "unseen world", **row} for row in found["rows"] if row["scoring"] == "likelihood_sum")
    images = Path(os.environ.get("LINKCONTEXT_DATA", "nowhere")) / "images"
    for data in ("digits", *(sorted(map(str, images.iterdir())) if images.is_dir() else ())):
        called = Path(data).name
        asked = icl.settled(config(called, data=data, shots=(1, 4), episodes=n // 2), "fewshot")
        found = measure(asked, *icl.open_benchmark(asked), model=model)
        yield from ({"what": called, **row} for row in found["rows"] if row["scoring"] == "likelihood_sum")
    for kind in ("10", "pair"):
        data = str(Path(table.out) / f"isekai-{kind}")
        asked = isekai.settled(config(f"isekai-{kind}", data=data, shots=(0, 1, 4), scoring="both"))
        found = measure(asked, *isekai.open_isekai(data, asked.episodes.shots, asked.episodes.seed), model=model)
        chosen = ("likelihood_sum", "generate")
        yield from ({"what": f"ISEKAI-mini-{kind}", **row} for row in found["rows"] if row["scoring"] in chosen)


def tables(found: Found) -> Iterator[tuple[str, str]]:
    """Heading and table, one after the other."""
    for tasks in ("seen tasks", "unseen tasks"):
        for form in ("open", "choice"):
            wanted = {"what": "means", "tasks": tasks, "form": form}
            chance = next(r["chance"] for r in found.rows if all(r.get(k) == v for k, v in wanted.items()))
            lines = [[name, *(cell(found.values(name, **wanted, shots=k)) for k in SHOTS)] for name in found.names]
            for policy in ("copy_first", "copy_last"):
                told = [found.policy(policy, **wanted, shots=k) for k in SHOTS]
                lines.append([policy.replace("_", " "), *("" if v is None else f"{v:.3f}" for v in told)])
            head = ["", *(f"{k} shots" for k in SHOTS)]
            yield f"world-icl, {tasks}, {form}: means over subjects (chance {chance:.3f})", listed(head, lines)
    yield "Effects on the mean over {2, 4, 8} shots, in points, against icl", effects(found)
    lines = []
    for task in sorted({row["task"] for row in found.rows if row["what"] == "world-icl"}):
        two = [fmean(over(found, name, task)) for name in ("base", "icl") if over(found, name, task)]
        chance = next(r["chance"] for r in found.rows if r.get("task") == task and r["what"] == "world-icl")
        if len(two) == 2:
            told = [f"{two[0]:.3f}", f"{two[1]:.3f}", f"{100 * (two[1] - two[0]):+.1f}"]
            lines.append([task, f"{chance:.3f}", *told, f"{two[1] - chance:+.3f}"])
    yield (
        "Every subject, mean over {2, 4, 8} shots",
        listed(["", "chance", "base", "icl", "points", "over chance"], lines),
    )
    kinds = list(dict.fromkeys((r["task"], r["scoring"]) for r in found.rows if r["what"] == "retention"))
    head = [f"{task}, {'one of ten' if scoring != 'generate' else 'generation'}" for task, scoring in kinds]
    lines = [
        [name, *(cell(found.values(name, what="retention", task=t, scoring=s)) for t, s in kinds)]
        for name in found.names
    ]
    yield "Retention: what mini-base was taught", listed(["", *head], lines)
    others = [r for r in found.rows if r["what"] not in ("means", "world-icl", "retention")]
    columns = list(dict.fromkeys((r["what"], r["task"], r["scoring"], r["shots_per_class"]) for r in others))
    keys = ("what", "task", "scoring", "shots_per_class")
    lines = []
    for column in columns:
        wanted = dict(zip(keys, column, strict=True))
        scoring = "generation" if column[2] == "generate" else "likelihood"
        form = "choice" if column[1].endswith("choice") else "open"
        near = found.policy("nearest_centroid", **wanted) if form == "open" else None
        cells = [cell(found.values(name, **wanted)) for name in MAIN]
        lines.append([f"{column[0]}, {form}, {scoring}, {column[3]} per class", *cells, f"{near:.3f}" if near else ""])
    yield "Other benchmarks", listed(["", *MAIN, "nearest centroid"], lines)


def over(found: Found, name: str, task: str) -> list[float]:
    """Accuracies on one subject at 2, 4 and 8 shots, all seeds."""
    return [v for k in (2, 4, 8) for v in found.values(name, what="world-icl", task=task, shots_per_class=k)]


def effects(found: Found) -> str:
    """Each row less icl, subject by subject, with the 95 % interval over subjects (Student's t)."""
    lines = []
    for name in found.names:
        cells = []
        for unseen in (False, True):
            for form in ("open", "choice"):
                pairs = [(over(found, name, task), over(found, "icl", task)) for task in subjects(found, unseen, form)]
                cells.append(interval([100 * (fmean(a) - fmean(b)) for a, b in pairs if a and b]))
        if name != "icl":
            lines.append([name, *cells])
    return listed(["", "seen open", "seen choice", "unseen open", "unseen choice"], lines)


def subjects(found: Found, unseen: bool, form: str) -> list[str]:
    """The tasks of world-icl's rows in one form: those of held-out types, or the others."""
    tasks = sorted({row["task"] for row in found.rows if row["what"] == "world-icl" and row["task"].endswith(form)})
    return [task for task in tasks if (task.partition("/")[0] in HELD_OUT) == unseen]


def interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:+.1f}" if values else ""
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):+.1f} [{fmean(values) - half:+.1f}, {fmean(values) + half:+.1f}]"


def plot(found: Found) -> Figure:
    """Means by shots in four panels, a line a row, a dot a seed."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, tasks in zip(axes, ("seen tasks", "unseen tasks"), strict=True):
        for axis, form in zip(row, ("open", "choice"), strict=True):
            for number, name in enumerate(found.names):
                values = [found.values(name, what="means", tasks=tasks, form=form, shots=k) for k in SHOTS]
                style = "-" if name in MAIN else (":" if name.startswith("without") else "--")
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(range(len(SHOTS)), [fmean(v) for v in values], style, color=colour, label=name)
                for at, seeds in enumerate(values):
                    axis.plot([at] * len(seeds), seeds, ".", color=colour, markersize=3, alpha=0.6)
            axis.set_title(f"{tasks}, {form}", fontsize=10)
            axis.set_xticks(range(len(SHOTS)), list(map(str, SHOTS)))
            axis.set_xlabel("shots in all")
            axis.set_ylim(0, 1.02)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    return figure


def main() -> None:
    table = tyro.cli(Table, description=__doc__)
    if unknown := set(table.only) - set(names()):
        sys.exit(f"--only {unknown.pop()}: the rows are {', '.join(names())}.")
    if table.toy:
        tiny = {f"{stage}_steps": 1 for stage in ("letters", "easy", "choice", "instruction", "icl")}
        tiny |= {"single": 4, "classes": 24, "episodes": 27, "seeds": (0,)}
        table = replace(table, out=table.out + "-toy", **tiny)
    about, out = machine("cpu"), Path(table.out)
    if not (out / "scenes" / "manifest.jsonl").exists():
        write_scenes(out / "scenes", seed=1, classes=table.classes, images=16, scenes=table.classes)
    for kind in ("10", "pair"):
        if not (out / f"isekai-{kind}" / f"ISEKAI-{kind}.json").exists():
            write_isekai(out / f"isekai-{kind}", kind, seed=9101)
    rows = []
    for name, seed in runs(table):
        rows += measured(table, name, seed)
        print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)
    found = Found(rows)
    for heading, text in tables(found):
        print(f"### {heading}\n\n{text}")
    where = out if table.toy or table.only else RESULTS
    write_text(
        json.dumps({"machine": about, "table": vars(table), "rows": slim(rows)}) + "\n", where / "icl_tuning.json"
    )
    plot(found).savefig(where / "icl_tuning.png", dpi=110)


if __name__ == "__main__":
    main()
