"""In-context instruction tuning and its ablations, from mini-base. Run: `python experiments/icl_tuning.py`.

    base                 mini-base as it is
    icl                  a curriculum after arXiv 2403.12736: alignment (what letters stand for: told in words, then of
                         colours in pictures, then of all attributes, then in conversations), single-turn instruction
                         on the tasks, any-shot conversations about one concept. Half of the examples of the last
                         two are replay
    no coherence         turns of a conversation about any task that is trained on
    no curriculum        conversations alone, from mini-base, as many steps as instruction and conversations
    query only           the last answer of a conversation is learnt, not every one
    replay 0, .25, .75   other shares of replay among the conversations
    without TASK         one family of tasks left out of instruction and conversations
    mini                 the bundled model: mini-base after the other paper's tuning (Link-Context Learning)
    mini + icl           both: the same curriculum from there, its replay with link episodes too
    icl x3, mini + icl x3   three times as many conversations
    ... averaged 0.7     their weights times .7, and .3 times those of the model they began from; 0.8 likewise

Every row with every seed; the alignment is common to all of them. relation, same-different and rule are never trained
on. Writes experiments/icl_tuning.json and .png, and prints the tables of experiments/icl_tuning.md. Resumable: a row
that --out or, made with the same options, icl_tuning.json has is not made again. `--only icl "no coherence"` takes some
rows and writes into --out, `--tables-only` trains nothing and makes the tables of what is measured, `--toy` shows that
all of it runs; its figures say nothing.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import tyro
from matplotlib.figure import Figure
from scipy.stats import t as student
from table import COLOURS, RESULTS, Found, Results, cell, check_rows, learnt, listed, machine, refuse

from linkcontext.config import EvalConfig, ModelConfig, eval_config
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.models.average import average
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.storage import write_text
from linkcontext.train.config import TrainConfig
from linkcontext.worlds.isekai import write_isekai
from linkcontext.worlds.scenes import write_scenes

LINKS = "world:replay"  # pictures of link episodes
ATTRIBUTES = ("colour", "kind", "texture", "shape", "size", "state")
TASKS = ("naming", "attribute", "count", "location", "caption")
REPLAY = 0.5
REPLAYS = (0.0, 0.25, 0.75)
GIVEN = {"base": "mini-base", "mini": "mini"}  # rows that nothing is trained for
AVERAGED = (0.7, 0.8)  # shares of the tuned weights: the range that promised most on other scenes (docs/log.md)
MAIN = (  # measured on the other benchmarks too
    *("base", "icl", "icl x3", *(f"icl x3 averaged {share:g}" for share in AVERAGED)),
    *("mini", "mini + icl", "mini + icl x3", *(f"mini + icl x3 averaged {share:g}" for share in AVERAGED)),
)
SHOTS = (0, 1, 2, 4, 8)
FIXED = ("baselines", "detectable", "names", "ways", "n_episodes", "chance", "n_queries", "n_subjects", "answered")
POINT = ("what", "task", "tasks", "form", "scoring", "shots_per_class", "shots")  # tells a model's figures apart


@dataclass
class Table:
    """Train and measure all rows of the table."""

    out: str = "runs/icl-tuning"
    base: str = "mini-base"
    """What everything is trained from; another one needs another --out, and its results are written there."""
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    """Names of rows; all without. Their results are written into --out."""
    letters_steps: int = 200
    """From mini, which has learnt to answer with names alone, twice as many."""
    colour_steps: int = 400
    attributes_steps: int = 800
    chosen: int = 48
    """Choices of a step of these two."""
    lists_steps: int = 500
    listed: int = 10
    """Conversations of a step of it."""
    instruction_steps: int = 150
    icl_steps: int = 250
    single: int = 32
    """Single turns of a step of letters and instruction."""
    batch: int = 8
    """Conversations of a step."""
    lr: float = 1e-4
    """Of the language model; the projector stays as it is."""
    precision: Literal["no", "bf16"] = "no"
    """Of the trainings; bf16 is faster on a CPU with AMX."""
    classes: int = 400
    """Things in the pictures that are trained on, sixteen pictures each; and so many scenes of every other kind."""
    episodes: int = 270
    """Of world-icl in each form, on scenes of another seed: ten of every subject."""
    tables_only: bool = False
    """Train nothing: the tables of what is measured."""
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
        return table.base if name == "base" else GIVEN[name]
    models, left_out = Path(table.out) / "models", name.removeprefix("without ")
    both, times = name.startswith("mini + icl"), 3 if name.endswith(" x3") else 1
    tuned, _, portion = name.partition(" averaged ")
    if portion:
        began, out = "mini" if both else table.base, models / f"{name.replace(' ', '-')}-{seed}"
        if not out.exists():
            average((began, trained(table, tuned, seed)), (1 - float(portion), float(portion)), out)
        return str(out)
    share = float(name.removeprefix("replay ")) if name.startswith("replay") else REPLAY
    whole = TrainConfig(
        model=ModelConfig(table.base),
        icl_data=str(Path(table.out) / "scenes"),
        tasks=tuple(task for task in TASKS if task != left_out),
        coherence="none" if name == "no coherence" else "concept",
        supervise="query" if name == "query only" else None,
        mixture=(f"icl={1 - share:g}", f"taught={share:g}") if share else ("icl",),
        batch=table.batch,
        steps=times * table.icl_steps,
        lr=table.lr,
        precision=table.precision,
        train=("language",),
        save_every=200,
        keep=1,
        seed=seed,
        out=str(models / f"{name.replace(' ', '-')}-{seed}"),
    )
    if name == "no curriculum":
        return learnt(replace(whole, steps=table.instruction_steps + table.icl_steps))
    common = name if name.startswith("without") else "mini + icl" if both else "icl"  # whose instruction it begins with
    if both:
        whole = replace(whole, data=LINKS, mixture=("icl=0.5", "taught=0.4", "link=0.1"))
    instruction = replace(
        whole,
        model=ModelConfig(aligned(table, "mini" if both else table.base)),
        mixture=whole.mixture if both else (f"icl={1 - REPLAY:g}", f"taught={REPLAY:g}"),
        coherence="concept",
        supervise=None,
        turns=(1,),
        batch=table.single,
        steps=table.instruction_steps,
        out=str(models / f"{common.replace(' ', '-')}-{seed}-instruction"),
    )
    return learnt(replace(whole, model=ModelConfig(learnt(instruction))))


def aligned(table: Table, model: str) -> str:
    """What letters stand for: in words, then of colours in pictures, then of all attributes and places, then in
    conversations, where every turn has a list of options of its own.

    Among four options from the start: two can be told apart by looking at one of them (docs/log.md).
    """
    models, links = Path(table.out) / "models", model == "mini"

    def mixture(most: str, **others: float) -> tuple[str, ...]:
        others |= {"link": 0.05} if links else {}
        return tuple(f"{part}={share:g}" for part, share in ({most: 1 - sum(others.values())} | others).items())

    letters = TrainConfig(
        model=ModelConfig(model),
        data=LINKS,
        icl_data=str(Path(table.out) / "scenes"),
        tasks=("naming", "attribute"),
        mixture=mixture("letters"),
        turns=(1,),
        batch=table.single,
        steps=table.letters_steps * (2 if links else 1),
        lr=table.lr,
        precision=table.precision,
        train=("language",),
        save_every=200,
        keep=1,
        out=str(models / f"{model}-letters"),
    )
    colour = replace(
        letters,
        model=ModelConfig(learnt(letters)),
        tasks=("attribute/colour",),
        mixture=mixture("icl", letters=0.15, taught=0.1),
        format="choice",
        batch=table.chosen,
        steps=table.colour_steps,
        lr=2 * table.lr,
        out=str(models / f"{model}-colour"),
    )
    attributes = replace(
        colour,
        model=ModelConfig(learnt(colour)),
        tasks=(*(f"attribute/{name}" for name in ATTRIBUTES), "location"),
        mixture=mixture("icl", letters=0.1, taught=0.15),
        steps=table.attributes_steps,
        out=str(models / f"{model}-attributes"),
    )
    lists = replace(
        attributes,
        model=ModelConfig(learnt(attributes)),
        mixture=mixture("icl", letters=0.15, taught=0.2),
        turns=tuple(range(1, 10)),
        batch=table.listed,
        steps=table.lists_steps,
        out=str(models / f"{model}-lists"),
    )
    return learnt(lists)


def measured(table: Table, name: str, seed: int | None) -> list[dict]:
    """Every figure of one row; of one that is not measured yet, none with --tables-only."""
    where = Path(table.out) / "evals" / f"{name.replace(' ', '-')}-{'base' if seed is None else seed}"
    if (where / "rows.json").exists():
        return json.loads((where / "rows.json").read_text())
    if table.tables_only:
        return []
    model = LocalModel(load_model(trained(table, name, seed)))
    told = [{"name": name, "seed": seed, **row} for row in figures(table, where, model, name in MAIN)]
    write_text(json.dumps(told) + "\n", where / "rows.json")
    return told


def figures(table: Table, where: Path, model: LocalModel, main: bool) -> Iterator[dict]:
    def config(what: str, **options: Any) -> EvalConfig:
        return eval_config(model=model.card.name, out=str(where / what), explain=0, **options)

    metrics = run_evaluation(config("world-icl", data="scenes:9201", episodes=table.episodes), model, "world-icl")
    yield from ({"what": "world-icl", **row} for row in metrics["rows"] if row["scoring"] == "likelihood_sum")
    yield from ({"what": "means", **line} for line in metrics["means"] if line["scoring"] == "likelihood_sum")
    n = max(2, table.episodes // 2)
    yield from (
        {"what": "retention", **row}
        for row in run_evaluation(config("retention", episodes=table.episodes), model, "retention")["rows"]
    )
    if not main:
        return
    found = run_evaluation(config("world", data="world:9101", shots=(0, 1, 4), episodes=n), model)
    yield from ({"what": "unseen world", **row} for row in found["rows"] if row["scoring"] == "likelihood_sum")
    images = Path(os.environ.get("LINKCONTEXT_DATA", "nowhere")) / "images"
    for data in ("digits", *(sorted(map(str, images.iterdir())) if images.is_dir() else ())):
        called = Path(data).name
        found = run_evaluation(config(called, data=data, shots=(1, 4), episodes=n // 2), model, "fewshot")
        yield from ({"what": called, **row} for row in found["rows"] if row["scoring"] == "likelihood_sum")
    for kind in ("10", "pair"):
        data = str(Path(table.out) / f"isekai-{kind}")
        asked = config(f"isekai-{kind}", data=data, shots=(0, 1, 4), scoring="both")
        found = run_evaluation(asked, model, "isekai")
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
    means, lines, main = over(found), [], [name for name in MAIN if name in found.names]
    for task in sorted({row["task"] for row in found.rows if row["what"] == "world-icl"}):
        chance = next(r["chance"] for r in found.rows if r.get("task") == task and r["what"] == "world-icl")
        of = {name: [v[task] for (row, _), v in means.items() if row == name] for name in main}
        if of.get("base") and of.get("icl"):
            gain = fmean(of["icl"]) - fmean(of["base"])
            told = [*(f"{fmean(v):.3f}" if v else "" for v in of.values()), f"{100 * gain:+.1f}"]
            lines.append([task, f"{chance:.3f}", *told, f"{fmean(of['icl']) - chance:+.3f}"])
    yield (
        "Every subject, mean over {2, 4, 8} shots",
        listed(["", "chance", *main, "icl - base, points", "icl - chance"], lines),
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
        cells = [cell(found.values(name, **wanted)) for name in main]
        lines.append([f"{column[0]}, {form}, {scoring}, {column[3]} per class", *cells, f"{near:.3f}" if near else ""])
    yield "Other benchmarks", listed(["", *main, "nearest centroid"], lines)


def over(found: Found) -> dict[tuple[str, int | None], dict[str, float]]:
    """Of every row and seed, accuracy by subject: the mean over 2, 4 and 8 shots."""
    values: dict[tuple[str, int | None], dict[str, list[float]]] = {}
    for row in found.rows:
        if row["what"] == "world-icl" and row["shots_per_class"] in (2, 4, 8):
            values.setdefault((row["name"], row["seed"]), {}).setdefault(row["task"], []).append(row["accuracy"])
    return {key: {task: fmean(each) for task, each in tasks.items()} for key, tasks in values.items()}


def effects(found: Found) -> str:
    """Each row less icl of the same seed, with the 95 % interval over subjects (Student's t), and each seed's mean."""
    means, lines = over(found), []
    for name in found.names:
        given = means.get((name, None), {})
        seeds = [seed for of, seed in means if of == "icl" and (given or (name, seed) in means)]
        if name == "icl" or not seeds:
            continue
        cells = []
        for unseen, form in product((False, True), ("open", "choice")):
            points = [
                [100 * (means.get((name, seed), given)[task] - means["icl", seed][task]) for seed in seeds]
                for task in subjects(found, unseen, form)
            ]
            each = ", ".join(f"{fmean(of_seed):+.1f}" for of_seed in zip(*points, strict=True))
            cells.append(interval([fmean(seeds) for seeds in points]) + (f" ({each})" if len(seeds) > 1 else ""))
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


def once(rows: list[dict]) -> list[dict]:
    """Rows without what is the same for all models, but for those of the first."""
    first = rows[0]["name"]
    return [row if row["name"] == first else {k: v for k, v in row.items() if k not in FIXED} for row in rows]


def whole(rows: list[dict]) -> list[dict]:
    """Rows that `once` made, with what it left out."""
    first: dict[tuple, dict] = {}
    for row in rows:
        first.setdefault(tuple(map(row.get, POINT)), row)
    return [first[tuple(map(row.get, POINT))] | row for row in rows]


def plot(found: Found) -> Figure:
    """Means by shots in four panels, a line a row, a dot a seed."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
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
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    return figure


def prepare(table: Table) -> None:
    """The scenes that are trained on, and the other paper's benchmark."""
    out = Path(table.out)
    if not (out / "scenes" / "manifest.jsonl").exists():
        write_scenes(out / "scenes", seed=1, classes=table.classes, images=16, scenes=table.classes)
    for kind in ("10", "pair"):
        if not (out / f"isekai-{kind}" / f"ISEKAI-{kind}.json").exists():
            write_isekai(out / f"isekai-{kind}", kind, seed=9101)


def main() -> None:
    table = tyro.cli(Table, description=__doc__)
    check_rows(table.only, names())
    if table.toy:
        tiny = {f"{stage}_steps": 1 for stage in ("letters", "colour", "attributes", "lists", "instruction", "icl")}
        tiny |= {"single": 4, "chosen": 4, "listed": 4, "classes": 24, "episodes": 27, "seeds": (0,)}
        table = replace(table, out=table.out + "-toy", **tiny)
    about, out = machine("cpu"), Path(table.out)
    where = RESULTS if table.base == Table.base and not (table.toy or table.only) else out
    if not table.tables_only:
        prepare(table)
    results = Results("icl_tuning", table, lambda name: "mini" if name.startswith("mini") else table.base)
    results.rows = whole(results.rows)
    rows = []
    for name, seed in runs(table):
        rows += (row := results.of(name, seed) or measured(table, name, seed))
        print(f"{name}, seed {seed}: {'done' if row else 'not measured'}", file=sys.stderr, flush=True)
    if not rows:
        refuse(f"--tables-only: neither {table.out} nor {RESULTS} has rows that were made with these options.")
    found = Found(rows)
    for heading, text in tables(found):
        print(f"### {heading}\n\n{text}")
    results.write(rows, about, where, once)
    plot(found).savefig(where / "icl_tuning.png", dpi=110)


if __name__ == "__main__":
    main()
