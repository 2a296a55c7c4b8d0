"""report.md and report.html of a run, from the files in its folder alone.

The page is one file that asks the network for nothing: style, plots and pictures are inside it.
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
    measured_apart,
    read_config,
    read_object,
    read_run,
)
from linkcontext.evaluation.text import share
from linkcontext.records import typed
from linkcontext.report.confusion import Confusion, confusion, confusion_grid
from linkcontext.report.gallery import gallery
from linkcontext.report.plots import accuracy_by_shots
from linkcontext.report.probe import probe_html, probe_markdown
from linkcontext.report.retention import CAPTION, retention_of, retention_unfinished
from linkcontext.report.tables import (
    Grid,
    bounds,
    curves_grid,
    lift,
    markdown,
    metrics_grid,
    pictures_note,
    power_note,
    published_grid,
    setting,
    summary_grid,
)
from linkcontext.report.tree_view import branches, mask
from linkcontext.storage import write_text

MEANS = (
    "Every subject weighs the same; intervals hold 95 % for other subjects and for other pictures. Efficiency is the "
    "area between the accuracy by shots and that without any, over the most shots."
)

Groups = dict[Key, list[Pair]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure and what it is about."""

    caption: str
    svg: Markup  # made by plots, which escapes


@dataclass(frozen=True, slots=True)
class Tables:
    """A section of plain tables."""

    title: str
    grids: tuple[Grid, ...]
    note: str


def write_report(run: Path) -> Path:
    """Write report.md and report.html into a run's folder; the path of the latter.

    Needs config.json, episodes.jsonl and predictions.jsonl, from which all figures are computed. Of metrics.json only
    the counters are read, and without explain.json the page says how to get it. A report of an unfinished run says so
    at its top. The pictures are looked for where config.json says the data was; those that are gone become labelled
    placeholders.

    Raises:
        InputError: a file of the run is missing or damaged (named), or a report cannot be written.
    """
    folder = read_run(run)
    found, counters = _metrics(folder)
    tables = _tables(folder, found)
    groups, why = grouped(folder.episodes, folder.predictions), attribution_of(folder)
    mistaken = confusions(groups)
    text = _markdown(folder, found, tables, counters, mistaken, why)
    page = _html(folder, found, tables, counters, groups, mistaken, why)
    write_text(text, run / "report.md")
    write_text(page, run / "report.html")
    return run / "report.html"


def cautions(folder: RunFolder) -> list[str]:
    """What a reader must know before any figure."""
    sentences = [folder.unfinished] if folder.unfinished else []
    if folder.weights_unknown:
        sentences.append(UNKNOWN_WEIGHTS)
    if lacks := retention_unfinished(folder.path):
        sentences.append(lacks)
    for part in ("probe", "retention"):
        path = folder.path / part / "config.json"
        # Their scaffold and prompts differ on purpose.
        if path.is_file() and (apart := measured_apart(folder.config, {**read_config(path)}, ("scaffold", "prompts"))):
            sentences.append(f"The folder {part} in this run is about something else: {', '.join(apart)}.")
    return sentences


def summary(model: str, found: Sequence[Row]) -> list[str]:
    """One sentence or two for each (task, names, ways), at the shots per class that the gallery shows too."""
    scoring = main_scoring([row["scoring"] for row in found])
    shots = main_shots([row["shots_per_class"] for row in found])
    at_shots = [row for row in found if row["shots_per_class"] == shots]
    sentences = []
    for row in (row for row in at_shots if row["scoring"] == scoring):
        replies = [r for r in at_shots if r["scoring"] == "generate" and setting(r) == setting(row)]
        sentence = _sentence(model, row)
        if scoring != "generate" and replies:
            sentence += f" Of its replies {_figure(replies[0])} name the right one and no other."
        sentences.append(sentence)
    return sentences


def _sentence(model: str, row: Row) -> str:
    references = [f"chance is {share(row['chance'])}"]
    for name, value in row["baselines"].items():
        if value is not None:
            references.append(f"{name.replace('_', ' ')} {share(value)}")
    return (
        f"With {row['shots_per_class']} {_counted(row['ways'])} {model} gives {_figure(row)} of "
        f"{row['n_queries']:,} queries the right name ({setting(row)}, {row['scoring'].replace('_', ' ')}); "
        f"{', '.join(references)}."
    )


def _counted(ways: int) -> str:
    return "shots per class" if ways > 1 else "shots in all"


def _figure(row: Row) -> str:
    return f"{share(row['accuracy'])} {bounds(row['ci95'])}"


def _metrics(folder: RunFolder) -> tuple[list[Row], dict[str, Any]]:
    """Rows made anew from the predictions, and the counters of metrics.json where there is one."""
    figures = metric_rows(folder.episodes, folder.predictions)
    if folder.config["config"].get("scoring") == "lcl-legacy":
        figures += lcl_metric.lcl_rows(folder.episodes, folder.predictions)
    path = folder.path / "metrics.json"
    kept = read_object(path, ("counters",)) if path.exists() else {}
    return figures, typed(dict[str, Any], kept.get("counters", {}), str(path), "counters")


def _tables(folder: RunFolder, found: Sequence[Row]) -> list[Tables]:
    """What stands below the rows: means over tasks, where tasks were asked about, and what was asked beside the run."""
    made, config = [], folder.config["config"]
    if config.get("episodes", {}).get("tasks"):
        means = means_over(found, config.get("unseen", HELD_OUT), grouped(folder.episodes, folder.predictions))
        made.append(Tables("Means over tasks", (summary_grid(means), curves_grid(shot_curves(means))), MEANS))
    if retained := retention_of(folder.path):
        made.append(Tables("What it still knows without a support", (retained,), f"{CAPTION}."))
    return made


def _model_name(folder: RunFolder) -> str:
    return str(folder.config["model"].get("name", "the model"))


def _model(folder: RunFolder) -> dict[str, Any]:
    """What the run records about its model."""
    return {**folder.config["model"], "measured": folder.config.get("measured", {})}


def _title(folder: RunFolder) -> str:
    return f"{_model_name(folder)} on {folder.config['data']['spec']}"


def _again(folder: RunFolder) -> str:
    return f"linkcontext report {shlex.quote(str(folder.path))}"


def published(folder: RunFolder, found: Sequence[Row]) -> list[Beside]:
    """The published tables that rows lie beside, each with its rows."""
    spec, kind = folder.config["data"]["spec"], folder.config["model"].get("model_type", "")
    names = dict.fromkeys(name for row in found if (name := benchmark(spec, row["task"])))
    return [
        published_beside([row for row in found if benchmark(spec, row["task"]) == name], name, kind) for name in names
    ]


def confusions(groups: Groups) -> dict[str, Confusion]:
    """One of each setting, at the shots per class and by the scoring that the gallery has too: its title -> it."""
    scoring, shots = main_scoring([key.scoring for key in groups]), main_shots([key.shots_per_class for key in groups])
    chosen = {key: pairs for key, pairs in groups.items() if (key.scoring, key.shots_per_class) == (scoring, shots)}

    def title(key: Key) -> str:
        counted = "shots per class" if key.ways > 1 else "shots"  # the setting says that they are all
        return f"{setting(key._asdict())}, {shots} {counted}, {scoring.replace('_', ' ')}"

    return {title(key): confusion(pairs, scoring) for key, pairs in chosen.items()}


def worst(found: Confusion) -> str:
    """The pairs mistaken most, in a sentence; empty where nothing was."""
    told = [f"{right} for {said} ({round(cell.said, 1):g} of {cell.met})" for right, said, cell in found.worst]
    return f"Most often mistaken: {', '.join(told)}." if told else ""


def cost(why: Attribution) -> str:
    """What the explanation took, in a sentence."""
    return (
        f"{len(why.queries)} queries were asked again with each support picture, and what is said of it, left out: "
        f"{why.prompts:,} answers scored, {why.seconds:.1f} s beside the evaluation (engine {why.engine})."
    )


def _html(
    folder: RunFolder,
    found: Sequence[Row],
    tables: Sequence[Tables],
    counters: dict[str, Any],
    groups: Groups,
    mistaken: dict[str, Confusion],
    why: Attribution | None,
) -> str:
    above, grid = lift(metrics_grid(found))
    source = resources.files("linkcontext.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        title=_title(folder),
        cautions=cautions(folder),
        shorter=any(row["shorter"] is not None for row in found),
        summary=summary(_model_name(folder), found),
        above=above,
        grid=grid,
        power=f"{power_note(found)} {pictures_note(found)}".strip(),
        tables=tables,
        evidence=probe_html(folder.path),
        published=[(table, published_grid(table)) for table in published(folder, found)],
        plots=_plots(found),
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


def _plots(found: Sequence[Row]) -> list[Plot]:
    by_setting: dict[str, list[Row]] = {}
    for row in found:
        by_setting.setdefault(setting(row), []).append(row)
    return [Plot(caption, Markup(accuracy_by_shots({caption: group}))) for caption, group in by_setting.items()]


def _markdown(
    folder: RunFolder,
    found: Sequence[Row],
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
        *(sentence + "\n" for sentence in summary(_model_name(folder), found)),
        markdown(metrics_grid(found)),
        f"{power_note(found)} {pictures_note(found)}".strip() + "\n",
        *(f"## {t.title}\n\n" + "\n".join(map(markdown, t.grids)) + f"\n{t.note}\n" for t in tables),
        *(f"{markdown(published_grid(t))}\n{t.source}.\n" for t in published(folder, found)),
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
