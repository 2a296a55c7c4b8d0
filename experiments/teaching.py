"""What a taught model gets right, what it turns down, and which supports to show. Run: `python experiments/teaching.py`

Teaching: five classes with 8 pictures each under their own names, again and again with other classes; then pictures of
these five and of a sixth. `ask` names the former; AUROC tells how well pictures of the sixth are told from them by
their similarity, by the probability of the likeliest name, and which pictures the rejection threshold accepts.
Selection: five-way episodes whose supports are chosen of 24 pictures of each class: at random, by medoid, by RICES.
Digits, and the class folders in $LINKCONTEXT_DATA/images where there are any. Writes experiments/teaching.json
and prints the tables of docs/teaching.md. `--toy` for a dry run.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import tyro
from sklearn.metrics import roc_auc_score
from table import RESULTS, listed, machine

from linkcontext.config import HeadName, eval_config
from linkcontext.evaluation.intervals import clustered_wilson
from linkcontext.evaluation.nearest import nearest
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.seeds import rng
from linkcontext.source import open_data
from linkcontext.storage import write_text
from linkcontext.teach.learner import Learner

CLASSES, SHOWN = 5, 8
CONFIDENT = 0.9


@dataclass
class Teaching:
    """Measure teaching and selection."""

    model: str = "mini"
    head: HeadName = "lm"
    """What names the pictures: the language model, or as `linkcontext teach --head` says. Another head needs another
    --out."""
    out: str = str(RESULTS / "teaching.json")
    draws: int = 20
    """Of five classes and a sixth."""
    fewest: int = SHOWN
    """Pictures of the first of the five; the others have 8."""
    asked: int = 4
    """Pictures of each of the five that are asked about, and of the sixth five times as many."""
    episodes: int = 60
    """Of each selection."""
    toy: bool = False
    """Tiny, to see that it runs."""


def data_sets() -> list[str]:
    images = Path(os.environ.get("LINKCONTEXT_DATA", "nowhere")) / "images"
    return ["world:9301", "digits", *(sorted(map(str, images.iterdir())) if images.is_dir() else ())]


def taught(table: Teaching, model: ScoringModel, data: str) -> dict:
    """One data set's figures."""
    dataset = open_data(data)
    classes = {k: v for k, v in sorted(dataset.by_class().items()) if len(v) >= SHOWN + table.asked}
    right, near, near_tokens, draws = [], [], [], []
    fits, sure, known, kept, refused, aurocs = [], [], [], [], [], []
    for draw in range(table.draws):
        stream = rng("teaching", draw)
        chosen = [list(classes)[i] for i in stream.permutation(len(classes))[: CLASSES + 1]]
        pictures = {c: [classes[c][i] for i in stream.permutation(len(classes[c]))] for c in chosen}
        learner = Learner(model, head=table.head)
        five = {pictures[c][0].name: pictures[c] for c in chosen[:CLASSES]}
        counts = [table.fewest, *[SHOWN] * (CLASSES - 1)]
        learner.teach(
            {
                name: [dataset.path(i.id) for i in items[:count]]
                for (name, items), count in zip(five.items(), counts, strict=True)
            }
        )
        sixth = [(None, i) for i in pictures[chosen[-1]][: CLASSES * table.asked]]
        asked = [(name, i) for name, items in five.items() for i in items[SHOWN : SHOWN + table.asked]]
        by_name, features = learner.pictures.by_name, learner.pictures.features
        support = [(name, features[content]) for name, contents in by_name.items() for content in contents]
        pooled, tokens = [seen.pooled for _, seen in support], [seen.mean for _, seen in support]
        for name, item in [*asked, *sixth]:
            answer = learner.ask(dataset.path(item.id))
            fits.append(answer.similarity)
            sure.append(max(answer.probabilities.values()))
            known.append(name is not None)
            (refused if name is None else kept).append((answer.name is None) == (name is None))
            if name is not None:
                right.append(max(answer.probabilities, key=answer.probabilities.__getitem__) == name)
                (seen,) = learner.model.pictures.features([learner.query(dataset.path(item.id)).item])
                names = [n for n, _ in support]
                near.append(nearest(seen.pooled, pooled, names)[0] == name)
                near_tokens.append(nearest(seen.mean, tokens, names)[0] == name)
                draws.append(str(draw))
        # Within a draw, because similarities of different kinds of vectors cannot be compared.
        aurocs.append(float(roc_auc_score(known[-len(asked) - len(sixth) :], fits[-len(asked) - len(sixth) :])))
    return {
        "data": Path(data).name,
        "accuracy": fmean(right),
        "ci95": clustered_wilson([float(r) for r in right], draws),
        "nearest_centroid": fmean(near),
        "nearest_centroid_tokens": fmean(near_tokens),
        "n": len(right),
        "auroc_fit": fmean(aurocs),
        "auroc_probability": float(roc_auc_score(known, sure)),
        "kept": fmean(kept),
        "refused": fmean(refused),
        "n_sixth": len(refused),
        **confidence([p for p, is_known in zip(sure, known, strict=True) if is_known], right),
    }


def confidence(probabilities: list[float], right: list[bool]) -> dict[str, float | None]:
    """How much the probability of the likeliest name is worth: the share of answers above .9, their accuracy, and the
    expected calibration error over ten bins of equal width."""
    confident = [hit for p, hit in zip(probabilities, right, strict=True) if p > CONFIDENT]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, hit in zip(probabilities, right, strict=True):
        bins.setdefault(min(9, int(10 * p)), []).append((p, hit))
    gaps = (abs(sum(p - hit for p, hit in pairs)) for pairs in bins.values())
    return {
        "confident": len(confident) / len(right),
        "confident_right": fmean(confident) if confident else None,
        "ece": sum(gaps) / len(right),
    }


def selected(table: Teaching, model: ScoringModel, data: str, folder: Path) -> Iterator[dict]:
    """Rows of each selection."""
    for select in ("random", "medoid", "rices"):
        config = eval_config(
            model=table.model,
            data=data,
            ways=CLASSES,
            shots=(1, 4),
            choose_from=24,
            select=select,
            episodes=table.episodes,
            out=str(folder / f"{Path(data).name}-{select}".replace(":", "-")),
        )
        start = time.perf_counter()
        found = run_evaluation(config, model)
        seconds = time.perf_counter() - start
        for row in found["rows"]:
            if row["scoring"] == "likelihood_sum":
                yield {"data": Path(data).name, "select": select, "seconds": seconds, **row}


def tables(lessons: list[dict], choices: list[dict]) -> Iterator[tuple[str, str]]:
    head = [
        "",
        "ask [95 %]",
        "nearest centroid, pooled",
        "of tokens",
        "n",
        "above .9",
        "of these right",
        "ECE",
        "AUROC by similarity",
        "AUROC by probability",
        "accepted",
        "rejected",
        "n of sixth",
    ]
    lines = []
    for one in lessons:
        low, high = one["ci95"]
        figures = [one[k] for k in ("auroc_fit", "auroc_probability", "kept", "refused")]
        share = f"{one['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        told = (*(f"{v:.3f}" for v in figures), str(one["n_sixth"]))
        trust = [one[k] for k in ("confident", "confident_right", "ece")]
        trusted = ["" if value is None else f"{value:.3f}" for value in trust]
        near = [f"{one[k]:.3f}" for k in ("nearest_centroid", "nearest_centroid_tokens")]
        lines.append([one["data"], share, *near, str(one["n"]), *trusted, *told])
    yield "Five classes, 8 pictures each (chance .200)", listed(head, lines)
    head = ["", "per class", "random", "medoid", "rices", "majority of rices", "seconds (random, medoid, rices)"]
    lines = []
    for data in dict.fromkeys(row["data"] for row in choices):
        for k in (1, 4):
            rows = {row["select"]: row for row in choices if (row["data"], row["shots_per_class"]) == (data, k)}
            if len(rows) < 3:
                continue
            told = [f"{r['accuracy']:.3f} [{r['ci95'][0]:.3f}, {r['ci95'][1]:.3f}]" for r in rows.values()]
            took = ", ".join(f"{r['seconds']:.1f}" for r in rows.values())
            lines.append([data, str(k), *told, f"{rows['rices']['baselines']['majority']:.3f}", took if k == 1 else ""])
    yield "Selections of 24 pictures of each of five classes (chance .200)", listed(head, lines)


def main() -> None:
    table = tyro.cli(Teaching, description=__doc__)
    if table.toy:
        table.draws, table.episodes = 1, 2
    about, model = machine("cpu"), LocalModel(load_model(table.model))
    lessons, choices = [], []
    with tempfile.TemporaryDirectory() as folder:
        for data in data_sets()[: 2 if table.toy else None]:
            lessons.append(taught(table, model, data))
            sizes = [len(items) for items in open_data(data).by_class().values()]
            if table.head == "lm" and sum(size > 24 for size in sizes) >= CLASSES:  # selections need no head
                choices += selected(table, model, data, Path(folder))
    for heading, text in tables(lessons, choices):
        print(f"### {heading}\n\n{text}")
    if not table.toy:
        told = {"machine": about, "table": vars(table), "teaching": lessons, "selection": choices}
        write_text(json.dumps(told, indent=1) + "\n", Path(table.out))


if __name__ == "__main__":
    main()
