"""Plots of accuracy by shots per class as SVG elements of a page, for one run or several.

Text and axes have the colour `currentColor`, and each line a custom property (`--series-0` …) with a colour-blind-safe
default, so the page can be dark or light. Lines also differ in marker and dash, and not by colour alone.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from linkcontext.evaluation.metrics import SCORINGS, Row

INK = "#010203"  # replaced by currentColor, which matplotlib does not support
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
# Five markers and six colours have no common factor, so their combinations repeat only after thirty lines.
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
STYLE = {
    "svg.fonttype": "none",  # text and not outlines: smaller, searchable, in the page's font
    "text.parse_math": False,  # a run may be named "$1"
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def accuracy_by_shots(runs: Mapping[str, Sequence[Row]]) -> str:
    """One `<svg>` element. `runs` maps the label of a run to its rows, all of one (task, names, ways).

    It has a line for each run and scoring with 95 % intervals, a dotted line for the nearest centroid of each run, and
    a level for chance.

    Raises:
        ValueError: There are no rows, or rows of different (task, names, ways), whose chance levels may differ.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": _salt(runs)}):
        figure = Figure(figsize=(4.8, 3.8), layout="constrained")
        axes = figure.add_subplot()
        draw_accuracy(axes, runs)
        _dress(axes, figure)
        svg = _svg(figure)
    return _open_to_the_page(svg, f"Accuracy by shots per class: {', '.join(runs)}")


def draw_accuracy(axes: Axes, runs: Mapping[str, Sequence[Row]]) -> None:
    """Draw the lines of `accuracy_by_shots`, without a legend. Raises `ValueError` as it does."""
    settings = {(row["task"], row["names"], row["ways"]) for rows in runs.values() for row in rows}
    if len(settings) != 1:
        raise ValueError(f"one plot shows one (task, names, ways), got {sorted(settings)}")
    everything = [row for rows in runs.values() for row in rows]
    places = {shots: x for x, shots in enumerate(sorted({row["shots_per_class"] for row in everything}))}
    _draw_series(axes, runs, places)
    _draw_references(axes, runs, places)
    axes.set_xticks(list(places.values()), [str(shots) for shots in places])
    axes.set_xlim(-0.4, len(places) - 0.6)
    axes.set_ylim(-0.02, 1.02)  # the whole scale, because a cut one exaggerates small differences
    axes.set_xlabel("shots per class")
    axes.set_ylabel("accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)


def _draw_series(axes: Axes, runs: Mapping[str, Sequence[Row]], places: Mapping[int, int]) -> None:
    series = [
        (_label(run, scoring, len(runs)), [row for row in rows if row["scoring"] == scoring])
        for run, rows in runs.items()
        for scoring in SCORINGS
        if any(row["scoring"] == scoring for row in rows)
    ]
    for index, (label, rows) in enumerate(series):
        # Lines are shifted a little, because intervals of equal accuracies would hide each other.
        aside = min(0.07, 0.4 / len(series)) * (index - (len(series) - 1) / 2)
        x = [places[row["shots_per_class"]] + aside for row in rows]
        y = [row["accuracy"] for row in rows]
        below = [row["accuracy"] - row["ci95"][0] for row in rows]
        above = [row["ci95"][1] - row["accuracy"] for row in rows]
        axes.errorbar(
            x,
            y,
            yerr=(below, above),
            label=label,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle=DASHES[index % len(DASHES)],
            markersize=5,
            linewidth=1.6,
            capsize=2.5,
        )


def _draw_references(axes: Axes, runs: Mapping[str, Sequence[Row]], places: Mapping[int, int]) -> None:
    for run, rows in runs.items():
        known = {
            places[row["shots_per_class"]]: row["baselines"]["nearest_centroid"]
            for row in rows
            if row["baselines"]["nearest_centroid"] is not None
        }
        if known:
            label = _label(run, "nearest centroid", len(runs))
            # Without a marker, a line with a single point would be invisible.
            axes.plot(*zip(*sorted(known.items()), strict=True), label=label, **_reference(":"), marker="x")
    chance = next(row["chance"] for rows in runs.values() for row in rows)
    axes.axhline(chance, label="chance", **_reference("-"))


def _reference(linestyle: str) -> dict[str, Any]:
    # The reference is thinner and drawn above the series (zorder), so that it is visible if both agree.
    return {
        "color": INK,
        "linestyle": linestyle,
        "linewidth": 1.2,
        "alpha": 0.6,
        "markersize": 5,
        "zorder": 3,
    }


def _dress(axes: Axes, figure: Figure) -> None:
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)  # the background is the page's
    # matplotlib lists plain lines before lines with intervals; here the runs come first.
    order = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: _rank(entry[1]))
    figure.legend(*zip(*order, strict=True), loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with warnings.catch_warnings():
        # The browser draws the text, so glyphs that matplotlib's font lacks are no problem.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _open_to_the_page(svg: str, title: str) -> str:
    """Convert an SVG file to an element of a page, without prologue and fixed size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{_attribute(title)}"', 1)
    for index, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--series-{index}, {colour})")
    return svg.replace(INK, "currentColor")


def _label(run: str, what: str, runs: int) -> str:
    label = what.replace("_", " ") if runs == 1 else f"{run}: {what.replace('_', ' ')}"
    return label if not label.startswith("_") else "\u2060" + label  # matplotlib hides labels like "_a"


def _rank(label: str) -> int:
    return 2 if label == "chance" else int(label.endswith("nearest centroid"))


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _salt(runs: Mapping[str, Sequence[Row]]) -> str:
    """A salt for element ids, which are equal for equal plots and differ between the plots of a page."""
    return hashlib.sha256(repr([(run, list(rows)) for run, rows in runs.items()]).encode()).hexdigest()
