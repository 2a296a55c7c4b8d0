"""The findings of a probe as tables for a terminal, for Markdown and for the page of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from linkcontext.errors import InputError
from linkcontext.evaluation.grounding.findings import Finding
from linkcontext.evaluation.run_dir import check_types, read_object
from linkcontext.evaluation.text import format_difference, format_share
from linkcontext.jsonl import from_dict
from linkcontext.report.tables import Grid, format_interval, format_p, markdown
from linkcontext.storage import write_text

KEYS = {
    "model": str,
    "data": str,
    "conclusion": str,
    "sentence": str,
    "findings": tuple[dict[str, Any], ...],
    "left_out": tuple[str, ...],
}
HEADING = "Do the answers come from the pictures?"
NOT_PROBED = (
    "This run was not probed. If its episodes link classes to names, run the same command with --probe to test "
    "whether the answers come from the pictures."
)
NOT_FINISHED = "The probe of this run is not finished. Run the same command with --probe again to finish it."
EXPLAINED = (
    "Each effect is a difference between accuracies, which is positive for a model that links. For a probe with "
    "several comparisons it is the weakest. p-values are adjusted for all probes (Holm). 95 % intervals are clustered "
    "by episode and by query picture, and the wider one is shown."
)
SECTION = """
<h2>{{ heading }}</h2>
<p class="lead">{{ probe.sentence }}</p>
<div class="wide" tabindex="0">
<table>
<thead><tr>{% for heading in grid.headings %}<th scope="col" class="word">{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in grid.lines %}
<tr>{% for cell in line %}<td class="word" style="white-space: normal">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="quiet">{{ explained }}</p>
{% for line in probe.left_out %}
<p class="quiet">Left out: {{ line }}</p>
{% endfor %}
"""

Probe = Mapping[str, Any]


def probe_of(run: Path) -> dict[str, Any] | None:
    """The content of probe.json in the folder of a run or in its folder `probe`; None if there is none."""
    for path in (run / "probe.json", run / "probe" / "probe.json"):
        if path.is_file():
            return read_probe(path)
    return None


def read_probe(path: Path) -> dict[str, Any]:
    """Read a probe.json. Raises `InputError`, naming the file, if it is damaged."""
    probe = read_object(path, tuple(KEYS))
    check_types(probe, KEYS, path)
    for finding in probe["findings"]:
        checked = from_dict(Finding, finding, str(path))
        if any(len(ends) != 2 for ends in (checked.ci95, *(figure.ci95 for figure in checked.figures))):
            raise InputError(f"{path}: an interval does not have two ends. The file is damaged; probe again.")
    return probe


def without_probe(run: Path) -> str:
    """The sentence on the page of a run that has no finished probe."""
    return NOT_FINISHED if (run / "probe" / "config.json").is_file() else NOT_PROBED


def probe_html(run: Path) -> Markup:
    """The section about the probe in the page of a run, which says so if the run was not probed."""
    probe = probe_of(run)
    if probe is None:
        return Markup('<h2>{}</h2>\n<p class="quiet">{}</p>\n').format(HEADING, without_probe(run))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    context = {"heading": HEADING, "probe": probe, "grid": probe_grid(probe), "explained": EXPLAINED}
    return Markup(environment.from_string(SECTION).render(context))  # autoescaped


def probe_markdown(run: Path) -> str:
    """The section about the probe in report.md of a run, which says so if the run was not probed."""
    probe = probe_of(run)
    if probe is None:
        return f"## {HEADING}\n\n{without_probe(run)}\n"
    left_out = "".join(f"\nLeft out: {line}\n" for line in probe["left_out"])
    return f"## {HEADING}\n\n{probe['sentence']}\n\n{markdown(probe_grid(probe))}\n{EXPLAINED}\n{left_out}"


def write_probe(folder: Path) -> Path:
    """Write probe.md beside probe.json; return its path."""
    probe = read_probe(folder / "probe.json")
    write_text(f"# {probe['model']} on {probe['data']}\n\n{probe_markdown(folder)}", folder / "probe.md")
    return folder / "probe.md"


def probe_grid(probe: Probe) -> Grid:
    """A line for each finding: the behaviour of a model that links, that of this model, and the verdict."""
    headings = ("probe", "a model that links", "this one, right [95 %]", "effect [95 %]", "p (Holm)", "verdict")
    return Grid(
        (*headings, "queries / episodes / pictures"),
        tuple(
            (
                finding["probe"],
                finding["linker"],
                "; ".join(
                    f"{f['label']}: {format_share(f['accuracy'])} {format_interval(f['ci95'])}"
                    for f in finding["figures"]
                ),
                f"{finding['measured']}: {_effect(finding)}",
                format_p(finding["p_holm"]),
                finding["verdict"],
                f"{finding['n_queries']:,} / {finding['n_episodes']:,} / {finding['n_pictures']:,}",
            )
            for finding in probe["findings"]
        ),
    )


def probe_table(findings: Sequence[Probe]) -> Table:
    """The findings for a terminal: figures with intervals, effect, p. Verdicts are printed below the table."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("probe", "right", "[95 %]", "effect\n[95 %]", "p\n(Holm)"):
        table.add_column(
            heading, justify="left" if heading in ("probe", "right") else "right", no_wrap=heading != "right"
        )
    for finding in findings:
        figures = finding["figures"]
        table.add_row(
            Text(finding["probe"]),
            Text("\n".join(f["label"] for f in figures)),
            "\n".join(f"{format_share(f['accuracy'])} {format_interval(f['ci95'])}" for f in figures),
            _effect(finding).replace(" [", "\n["),
            format_p(finding["p_holm"]),
        )
    return table


def _effect(finding: Probe) -> str:
    return f"{format_difference(finding['effect'])} [{', '.join(map(format_difference, finding['ci95']))}]"
