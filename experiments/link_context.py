"""Link-Context Learning's table in miniature, from mini-base. Run: `python experiments/link_context.py`.

    vanilla          mini-base as it is
    2-way, 2-way-random, 2-way-weight, mix
                     the paper's strategies unchanged: hard negatives (linear), a string of random letters for the
                     first class and the real name for the other, one query to a support, only its answer learnt
    ... + warm-up    the same after our warm-up: four classes under new words, any negatives, eight queries
    mix 1:4 + warm-up
                     a mix of four replayed answers to one episode, with as many episodes as 2-way

Each is trained with every seed and measured on ISEKAI-mini-10 and -pair (`linkcontext world --isekai`), an unseen world
and digits, by likelihood and generation; on what mini-base was taught; with false labels; and by the place of the
only support. Writes experiments/link_context.json and .png, and prints the tables of experiments/link_context.md.
Resumable: a row that --out or, made with the same options, link_context.json has is not made again. `--tables-only`
trains nothing and makes the tables of what is measured, `--only vanilla 2-way` takes some rows. `--toy` shows in some
minutes that all of it runs; its figures say nothing.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import tyro
from matplotlib.figure import Figure
from table import COLOURS, RESULTS, Found, Results, cell, check_rows, learnt, listed, machine, refuse

from linkcontext.config import EvalConfig, ModelConfig, eval_config
from linkcontext.evaluation.metrics import accuracy_by_position, grouped
from linkcontext.evaluation.published_results import LABEL, published_beside
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.jsonl import read_jsonl
from linkcontext.mining.embed import mine
from linkcontext.models.loading import load_model
from linkcontext.records import Episode, Prediction
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.storage import write_text
from linkcontext.train.config import TrainConfig
from linkcontext.worlds.isekai import write_isekai

STRATEGIES = {"2-way": "2-way", "2-way-random": "2-way-random", "2-way-weight": "2-way-weight", "mix": "2-way"}
VANILLA, WARM = "vanilla", " + warm-up"
REPLAYED = "mix 1:4"
SHOTS = (0, 1, 2, 4, 8, 16)
FALSE = (0.0, 0.25, 0.5, 0.75, 1.0)
PICTURES = {
    "isekai-10": "ISEKAI-mini-10",
    "isekai-pair": "ISEKAI-mini-pair",
    "world": "unseen world",
    "digits": "digits",
}


@dataclass
class Table:
    """Train and measure all rows of the table."""

    out: str = "runs/link-context"
    base: str = "mini-base"
    """What everything is trained from; another one needs another --out, and its results are written there."""
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    """Names of rows; all without. Their results are written into --out."""
    steps: int = 250
    batch: int = 16
    """Examples of a step; the warm-up takes a quarter, with eight queries each."""
    warm_steps: int = 150
    lr: float = 1e-4
    """Of the language model. The projector stays as it is: in mini-base it is the whitening by which pictures are
    compared, and training it undoes that (docs/log.md)."""
    precision: Literal["no", "bf16"] = "no"
    """Of the trainings; bf16 is faster on a CPU with AMX."""
    episodes: int = 150
    """Of each evaluation on the unseen world and on digits."""
    groups: int = 20
    """Pairs of things in each ISEKAI-mini."""
    world: int = 9101
    """Seed of the unseen world."""
    tables_only: bool = False
    """Train nothing: the tables of what is measured."""
    toy: bool = False
    """Tiny, to see that it runs."""


def names() -> list[str]:
    """All rows."""
    both = [row for name in STRATEGIES for row in (name, name + WARM)]
    return [VANILLA, *both, REPLAYED + WARM]


def runs(table: Table) -> Iterator[tuple[str, int | None]]:
    """All rows in an order in which one seed of everything is there first."""
    wanted = [name for name in names() if not table.only or name in table.only]
    if VANILLA in wanted:
        yield VANILLA, None
    for seed in table.seeds:
        yield from ((name, seed) for name in wanted if name != VANILLA)


def slug(name: str) -> str:
    """A row's name as a folder is called."""
    return re.sub("[ :]", "-", name)


def trained(table: Table, name: str, seed: int | None) -> str:
    """The folder of a row's model, trained if it is not there."""
    if seed is None:
        return table.base
    base, folder = table.base, Path(table.out) / "models"
    warm = TrainConfig(
        model=ModelConfig(base),
        data="world:replay",
        strategy="2-way-random",
        ways=4,
        support=12,
        queries=8,
        batch=max(1, table.batch // 4),
        steps=table.warm_steps,
        lr=table.lr,
        precision=table.precision,
        train=("language",),
        save_every=100,
        keep=1,
        seed=seed,
        out=str(folder / f"warm-up-{seed}"),
    )
    if name.endswith(WARM):
        base = learnt(warm)
    name = name.removesuffix(WARM)
    mixture, batch, steps = ("link",), table.batch, table.steps
    if name == "mix":
        mixture = ("link=0.5", "taught=0.5")
    elif name == REPLAYED:  # half of a step's episodes for twice the steps
        mixture, batch, steps = ("link=0.2", "taught=0.8"), table.batch * 5 // 2, table.steps * 2
    return learnt(
        replace(
            warm,
            model=ModelConfig(base),
            strategy=STRATEGIES.get(name, STRATEGIES["mix"]),
            ways=2,
            support=16,
            queries=1,
            names="lcl",
            negatives="neighbours",
            neighbours=str(Path(table.out) / "neighbours.jsonl"),
            mixture=mixture,
            batch=batch,
            steps=steps,
            out=str(folder / f"{slug(name)}{'-warm' if base != table.base else ''}-{seed}"),
        )
    )


def measured(table: Table, name: str, seed: int | None) -> list[dict]:
    """Every figure of one row; of one that is not measured yet, none with --tables-only."""
    folder = f"{slug(name.replace(WARM, '-warm'))}-{'base' if seed is None else seed}"
    where = Path(table.out) / "evals" / folder
    if (where / "rows.json").exists():
        return json.loads((where / "rows.json").read_text())
    if table.tables_only:
        return []
    model = LocalModel(load_model(trained(table, name, seed)))
    told = [{"name": name, "seed": seed, **row} for row in figures(table, where, model)]
    write_text(json.dumps(told, indent=1) + "\n", where / "rows.json")
    return told


def figures(table: Table, where: Path, model: LocalModel) -> Iterator[dict]:
    def config(what: str, **options: Any) -> EvalConfig:
        return eval_config(model=model.card.name, out=str(where / what), explain=0, **options)

    for kind in ("10", "pair"):
        data = str(Path(table.out) / f"isekai-{kind}")
        found = run_evaluation(config(f"isekai-{kind}", data=data, shots=SHOTS, scoring="both"), model, "isekai")
        yield from ({"what": f"isekai-{kind}", **row} for row in found["rows"])
    n = table.episodes
    for what, data in (("world", f"world:{table.world}"), ("digits", "digits")):
        # Few supports and many queries: replies to one support are said together.
        asked = config(what, data=data, shots=SHOTS, scoring="both", episodes=max(2, n // 4), queries=8)
        found = run_evaluation(asked, model)
        yield from ({"what": what, **row} for row in found["rows"])
    for share in FALSE:
        asked = config(f"false-{share:g}", data=f"world:{table.world}", shots=(4,), episodes=n, false_labels=share)
        yield from ({"what": "false labels", "share": share, **row} for row in run_evaluation(asked, model)["rows"])
    asked = config("place", data=f"world:{table.world}", shots=(1,), ways=8, episodes=n // 2)
    run_evaluation(asked, model)
    episodes = {e.id: e for e in read_jsonl(Episode, where / "place" / "episodes.jsonl")}
    predictions = read_jsonl(Prediction, where / "place" / "predictions.jsonl")
    for key, pairs in grouped(episodes, predictions).items():
        if key.scoring == "likelihood_sum":
            yield from ({"what": "place", **place._asdict()} for place in accuracy_by_position(pairs, key.scoring))
    found = run_evaluation(config("retention", episodes=5 * n), model, "retention")
    yield from ({"what": "retention", **row} for row in found["rows"])


def tables(found: Found) -> Iterator[tuple[str, str]]:
    """Heading and table, one after the other."""
    for what, called in PICTURES.items():
        columns = [str(2 * k) for k in SHOTS]
        for scoring, said in (("generate", "generation"), ("likelihood_sum", "likelihood")):
            n = next((r["n_queries"] for r in found.rows if r["what"] == what), 0)
            lines = [
                [name, *(cell(found.values(name, what=what, scoring=scoring, shots_per_class=k)) for k in SHOTS)]
                for name in found.names
            ]
            if scoring == "likelihood_sum":
                near = [found.policy("nearest_centroid", what=what, scoring=scoring, shots_per_class=k) for k in SHOTS]
                lines.append(["nearest centroid", *("" if v is None else f"{v:.3f}" for v in near)])
            elif what.startswith("isekai"):
                for line in published_beside([], what).lines:
                    cells = [f"{line.accuracy[2 * k]:.2f}" if 2 * k in line.accuracy else "" for k in SHOTS]
                    lines.append([f"*{line.model}* ({LABEL})", *cells])
            yield f"{called}, by {said}, total shots ({n} queries a row)", listed(["", *columns], lines)
    shares = [f"{share:g}" for share in FALSE]
    lines = [
        [name, *(cell(found.values(name, what="false labels", scoring="likelihood_sum", share=s)) for s in FALSE)]
        for name in found.names
    ]
    yield (
        "False labels: true answers on the unseen world, 4 per class, by the share of false names",
        listed(["", *shares], lines),
    )
    lines = [[name, *(cell(found.values(name, what="place", place=p)) for p in range(8))] for name in found.names]
    yield (
        "8 ways, 1 per class: accuracy by the place of the class's only support",
        listed(["", *map(str, range(8))], lines),
    )
    kinds = list(dict.fromkeys((r["task"], r["scoring"]) for r in found.rows if r["what"] == "retention"))
    head = [f"{task}, {'one of ten' if scoring != 'generate' else 'generation'}" for task, scoring in kinds]
    lines = [
        [name, *(cell(found.values(name, what="retention", task=t, scoring=s)) for t, s in kinds)]
        for name in found.names
    ]
    yield "Retention: what mini-base was taught", listed(["", *head], lines)


def plot(found: Found) -> Figure:
    """Four panels of accuracy by shots; then false labels and place."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    flat = [axes[0][0], axes[0][1], axes[1][0], axes[1][1]]
    for axis, (what, called) in zip(flat, PICTURES.items(), strict=True):
        draw(
            axis,
            found,
            called,
            list(range(len(SHOTS))),
            [{"shots_per_class": k} for k in SHOTS],
            what=what,
            scoring="likelihood_sum",
        )
        near = [found.policy("nearest_centroid", what=what, scoring="likelihood_sum", shots_per_class=k) for k in SHOTS]
        drawn = [(x, v) for x, v in enumerate(near) if v is not None]
        axis.plot(*zip(*drawn, strict=True), color="grey", linestyle=":", label="nearest centroid")
        axis.set_xticks(range(len(SHOTS)), [str(2 * k) for k in SHOTS])
        axis.set_xlabel("total shots")
        axis.axhline(0.5, color="grey", linewidth=0.8)
    draw(
        axes[0][2],
        found,
        "false labels, 4 per class",
        list(FALSE),
        [{"share": s} for s in FALSE],
        what="false labels",
        scoring="likelihood_sum",
    )
    axes[0][2].set_xlabel("share of false names")
    draw(axes[1][2], found, "8 ways, 1 per class", list(range(8)), [{"place": p} for p in range(8)], what="place")
    axes[1][2].set_xlabel("place of the class's only support")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    return figure


def draw(axis: Any, found: Found, title: str, x: list, points: list[dict], **wanted: Any) -> None:
    """A line through the means of each row, and a dot for every seed; warm-up rows are solid."""
    bare = list(dict.fromkeys(name.removesuffix(WARM) for name in found.names))
    for name in found.names:
        values = [found.values(name, **wanted, **point) for point in points]
        colour = COLOURS[bare.index(name.removesuffix(WARM)) % len(COLOURS)]
        solid = name.endswith(WARM) or name == VANILLA
        axis.plot(x, [fmean(v) for v in values], color=colour, linestyle="-" if solid else "--", label=name)
        for at, seeds in zip(x, values, strict=True):
            axis.plot([at] * len(seeds), seeds, ".", color=colour, markersize=3, alpha=0.6)
    axis.set_title(title, fontsize=10)
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("accuracy")


def prepare(table: Table) -> None:
    """The benchmark's pictures and the mined neighbours."""
    for kind in ("10", "pair"):
        folder = Path(table.out) / f"isekai-{kind}"
        if not (folder / f"ISEKAI-{kind}.json").exists():
            write_isekai(folder, kind, seed=table.world, groups=table.groups)
    if not (Path(table.out) / "neighbours.jsonl").exists():
        mine(open_data("world:replay"), Path(table.out) / "neighbours.jsonl")


def main() -> None:
    table = tyro.cli(Table, description=__doc__)
    check_rows(table.only, names())
    if table.toy:
        table = replace(table, out=table.out + "-toy", seeds=(0,), steps=2, warm_steps=2, episodes=4, groups=2)
    about = machine("cpu")
    where = RESULTS if table.base == Table.base and not (table.toy or table.only) else Path(table.out)
    results = Results("link_context", table, lambda name: table.base)
    if not table.tables_only:
        prepare(table)
    rows = []
    for name, seed in runs(table):
        rows += (row := results.of(name, seed) or measured(table, name, seed))
        print(f"{name}, seed {seed}: {'done' if row else 'not measured'}", file=sys.stderr, flush=True)
    if not rows:
        refuse(f"--tables-only: neither {table.out} nor {RESULTS} has rows that were made with these options.")
    found = Found(rows)
    for heading, text in tables(found):
        print(f"### {heading}\n\n{text}")
    results.write(rows, about, where)
    plot(found).savefig(where / "link_context.png", dpi=110)


if __name__ == "__main__":
    main()
