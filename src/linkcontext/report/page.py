"""Write report.md and report.html of a run from the files in its folder.

The page is one file that contains its style, plots and pictures, and loads nothing from the network.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from linkcontext.episodes.questions import HELD_OUT
from linkcontext.evaluation import lcl_metric
from linkcontext.evaluation.aggregate import mean_rows as means_over
from linkcontext.evaluation.aggregate import shot_curves
from linkcontext.evaluation.attribution_file import Attribution, attribution_of
from linkcontext.evaluation.example_selection import main_scoring, main_shots
from linkcontext.evaluation.metrics import Key, Pair, Row, grouped, metric_rows
from linkcontext.evaluation.published_results import Beside, benchmark, published_beside
from linkcontext.evaluation.run_dir import (
    UNKNOWN_WEIGHTS,
    RunFolder,
    measurement_differences,
    read_config,
    read_object,
    read_run,
)
from linkcontext.evaluation.text import format_share
from linkcontext.jsonl import typed
from linkcontext.report.confusion import Confusion, confusion, confusion_grid
from linkcontext.report.gallery import gallery
from linkcontext.report.plots import accuracy_by_shots
from linkcontext.report.probe import probe_html, probe_markdown
from linkcontext.report.retention import CAPTION, retention_of, retention_unfinished
from linkcontext.report.tables import (
    Grid,
    curves_grid,
    episode_setting,
    format_interval,
    lift_constants,
    markdown,
    metrics_grid,
    pictures_note,
    power_note,
    published_grid,
    summary_grid,
)
from linkcontext.report.tree_view import branches, mask
from linkcontext.storage import write_text

MEANS = (
    "Every subject has the same weight; 95 % intervals are for other subjects and other pictures. ICL efficiency is "
    "the area between accuracy by shots and zero-shot accuracy, divided by the largest number of shots."
)

Groups = dict[Key, list[Pair]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its caption."""

    caption: str
    svg: Markup  # made by plots, which escapes


@dataclass(frozen=True, slots=True)
class Tables:
    """A section of plain tables."""

    title: str
    grids: tuple[Grid, ...]
    note: str


def write_report(run: Path) -> Path:
    """Write report.md and report.html into the folder of a run; return the path of the latter.

    All figures are computed from config.json, episodes.jsonl and predictions.jsonl. Only the counters of metrics.json
    are read, and without explain.json the page says how to make it. The report of an unfinished run says so at the top.
    Pictures are read from the data folder in config.json; missing ones become labelled placeholders.

    Raises:
        InputError: A file of the run is missing or damaged, or a report cannot be written. The message names it.
    """
    folder = read_run(run)
    rows, counters = _metrics(folder)
    tables = _tables(folder, rows)
    groups, why = grouped(folder.episodes, folder.predictions), attribution_of(folder)
    mistaken = confusions(groups)
    text = _markdown(folder, rows, tables, counters, mistaken, why)
    page = _html(folder, rows, tables, counters, groups, mistaken, why)
    write_text(text, run / "report.md")
    write_text(page, run / "report.html")
    return run / "report.html"


def cautions(folder: RunFolder) -> list[str]:
    """Warnings at the top of a report: unfinished runs, unknown weights, parts of another model."""
    sentences = [folder.unfinished] if folder.unfinished else []
    if folder.weights_unknown:
        sentences.append(UNKNOWN_WEIGHTS)
    if lacks := retention_unfinished(folder.path):
        sentences.append(lacks)
    for part in ("probe", "retention"):
        path = folder.path / part / "config.json"
        # Probes and retention runs have another scaffold and other prompts by design.
        if path.is_file() and (
            apart := measurement_differences(folder.config, {**read_config(path)}, ("scaffold", "prompts"))
        ):
            sentences.append(f"The folder {part} of this run differs from the run in {', '.join(apart)}.")
    return sentences


def summary(model: str, rows: Sequence[Row]) -> list[str]:
    """One or two sentences for each (task, names, ways), at the shots per class of the gallery."""
    scoring = main_scoring([row["scoring"] for row in rows])
    shots = main_shots([row["shots_per_class"] for row in rows])
    at_shots = [row for row in rows if row["shots_per_class"] == shots]
    sentences = []
    for row in (row for row in at_shots if row["scoring"] == scoring):
        replies = [r for r in at_shots if r["scoring"] == "generate" and episode_setting(r) == episode_setting(row)]
        sentence = _sentence(model, row)
        if scoring != "generate" and replies:
            sentence += f" Of its replies {_figure(replies[0])} name the right class and no other."
        sentences.append(sentence)
    return sentences


def _sentence(model: str, row: Row) -> str:
    references = [f"chance is {format_share(row['chance'])}"]
    for name, value in row["baselines"].items():
        if value is not None:
            references.append(f"{name.replace('_', ' ')} {format_share(value)}")
    return (
        f"With {row['shots_per_class']} {_counted(row['ways'])} {model} gives {_figure(row)} of "
        f"{row['n_queries']:,} queries the right name ({episode_setting(row)}, {row['scoring'].replace('_', ' ')}); "
        f"{', '.join(references)}."
    )


def _counted(ways: int) -> str:
    return "shots per class" if ways > 1 else "shots in all"


def _figure(row: Row) -> str:
    return f"{format_share(row['accuracy'])} {format_interval(row['ci95'])}"


def _metrics(folder: RunFolder) -> tuple[list[Row], dict[str, Any]]:
    """The rows, computed from the predictions, and the counters of metrics.json if that exists."""
    figures = metric_rows(folder.episodes, folder.predictions)
    if folder.config["config"].get("scoring") == "lcl-legacy":
        figures += lcl_metric.lcl_rows(folder.episodes, folder.predictions)
    path = folder.path / "metrics.json"
    kept = read_object(path, ("counters",)) if path.exists() else {}
    return figures, typed(dict[str, Any], kept.get("counters", {}), str(path), "counters")


def _tables(folder: RunFolder, rows: Sequence[Row]) -> list[Tables]:
    """The tables below the main one: means over tasks of a run with --tasks, and the retention run of a run."""
    tables, config = [], folder.config["config"]
    if config.get("episodes", {}).get("tasks"):
        means = means_over(rows, config.get("unseen", HELD_OUT), grouped(folder.episodes, folder.predictions))
        tables.append(Tables("Means over tasks", (summary_grid(means), curves_grid(shot_curves(means))), MEANS))
    if retained := retention_of(folder.path):
        tables.append(Tables("What the model still knows without a support", (retained,), f"{CAPTION}."))
    return tables


def _model_name(folder: RunFolder) -> str:
    return str(folder.config["model"].get("name", "the model"))


def _model(folder: RunFolder) -> dict[str, Any]:
    """Everything that the run records about its model."""
    return {**folder.config["model"], "measured": folder.config.get("measured", {})}


def _title(folder: RunFolder) -> str:
    return f"{_model_name(folder)} on {folder.config['data']['spec']}"


def _again(folder: RunFolder) -> str:
    return f"linkcontext report {shlex.quote(str(folder.path))}"


def published(folder: RunFolder, rows: Sequence[Row]) -> list[Beside]:
    """The published tables that have rows of this run to compare, with these rows."""
    spec, kind = folder.config["data"]["spec"], folder.config["model"].get("model_type", "")
    names = dict.fromkeys(name for row in rows if (name := benchmark(spec, row["task"])))
    return [
        published_beside([row for row in rows if benchmark(spec, row["task"]) == name], name, kind) for name in names
    ]


def confusions(groups: Groups) -> dict[str, Confusion]:
    """Title -> confusion matrix, one for each setting, at the shots per class and by the scoring of the gallery."""
    scoring, shots = main_scoring([key.scoring for key in groups]), main_shots([key.shots_per_class for key in groups])
    chosen = {key: pairs for key, pairs in groups.items() if (key.scoring, key.shots_per_class) == (scoring, shots)}

    def title(key: Key) -> str:
        counted = "shots per class" if key.ways > 1 else "shots"  # the setting says "shots in all"
        return f"{episode_setting(key._asdict())}, {shots} {counted}, {scoring.replace('_', ' ')}"

    return {title(key): confusion(pairs, scoring) for key, pairs in chosen.items()}


def worst(matrix: Confusion) -> str:
    """A sentence about the pairs of classes that were confused most often; "" if there are none."""
    pairs = [
        f"{right} for {answer} ({round(cell.answered, 1):g} of {cell.met})" for right, answer, cell in matrix.worst
    ]
    return f"Most often mistaken: {', '.join(pairs)}." if pairs else ""


def cost(why: Attribution) -> str:
    """A sentence about the cost of the explanations."""
    return (
        f"{len(why.queries)} queries were asked again without each support turn: {why.prompts:,} answers were scored "
        f"in {why.seconds:.1f} s besides the evaluation (engine {why.engine})."
    )


def _html(
    folder: RunFolder,
    rows: Sequence[Row],
    tables: Sequence[Tables],
    counters: dict[str, Any],
    groups: Groups,
    mistaken: dict[str, Confusion],
    why: Attribution | None,
) -> str:
    above, grid = lift_constants(metrics_grid(rows))
    source = resources.files("linkcontext.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        title=_title(folder),
        cautions=cautions(folder),
        shorter=any(row["shorter"] is not None for row in rows),
        summary=summary(_model_name(folder), rows),
        above=above,
        grid=grid,
        power=f"{power_note(rows)} {pictures_note(rows)}".strip(),
        tables=tables,
        evidence=probe_html(folder.path),
        published=[(table, published_grid(table)) for table in published(folder, rows)],
        plots=_plots(rows),
        mistaken=[(title, it, worst(it)) for title, it in mistaken.items()],
        gallery=gallery(groups, Path(folder.config["data"]["root"]), why),
        cost=cost(why) if why else "",
        reading=why.reading if why else None,
        read_at=_counted(folder.episodes[why.reading.episode_id].ways) if why else "",
        tree=branches(why.reading) if why else (),
        mask=mask(why.reading) if why else "",
        data=folder.config["data"],
        config=folder.config,
        config_json=json.dumps(folder.config["config"], indent=2, ensure_ascii=False),
        model_json=json.dumps(_model(folder), indent=2, ensure_ascii=False),
        counters=counters,
        again=_again(folder),
    )


def _plots(rows: Sequence[Row]) -> list[Plot]:
    by_setting: dict[str, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(episode_setting(row), []).append(row)
    return [Plot(caption, Markup(accuracy_by_shots({caption: group}))) for caption, group in by_setting.items()]


def _markdown(
    folder: RunFolder,
    rows: Sequence[Row],
    tables: Sequence[Tables],
    counters: dict[str, Any],
    mistaken: dict[str, Confusion],
    why: Attribution | None,
) -> str:
    config, data = folder.config, folder.config["data"]
    listed = {
        "Problems": [*data["problems"]] or ["none"],
        "Counters": [f"{name}: {value}" for name, value in counters.items()] or ["none"],
        "Versions": [f"{name}: {value}" for name, value in config["versions"].items()],
    }
    parts = [
        f"# {_title(folder)}\n",
        *(f"**{caution}**\n" for caution in cautions(folder)),
        *(sentence + "\n" for sentence in summary(_model_name(folder), rows)),
        markdown(metrics_grid(rows)),
        f"{power_note(rows)} {pictures_note(rows)}".strip() + "\n",
        *(f"## {t.title}\n\n" + "\n".join(map(markdown, t.grids)) + f"\n{t.note}\n" for t in tables),
        *(f"{markdown(published_grid(t))}\n{t.source}.\n" for t in published(folder, rows)),
        probe_markdown(folder.path),
        "Pictures and plots are in [report.html](report.html).\n",
        "## Confusion\n",
        *(f"{title}:\n\n{markdown(confusion_grid(it))}\n{worst(it)}\n" for title, it in mistaken.items()),
        *([f"## Explanation\n\n{cost(why)}\n"] if why else []),
        *(f"## {head}\n\n" + "".join(f"- {line}\n" for line in lines) for head, lines in listed.items()),
        f"## Data\n\n- {data['spec']}\n- root: {data['root']}\n- digest: {data['digest']}\n",
        "## Run it again\n\n" + _block(str(config["command"])) + "\nThis report alone:\n\n" + _block(_again(folder)),
        "## Configuration\n\n" + _block(json.dumps(config["config"], indent=2, ensure_ascii=False)),
        "## Model\n\n" + _block(json.dumps(_model(folder), indent=2, ensure_ascii=False)),
    ]
    return "\n".join(parts)


def _block(text: str) -> str:
    """Indented code: a fence could be closed by what is inside."""
    return "".join(f"    {line}\n" for line in text.splitlines())
