"""The commands that measure a model: validate, eval, probe, report and compare."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from linkcontext.cli.terminal import console, print_problems
from linkcontext.config import EpisodeConfig, EvalConfig
from linkcontext.errors import InputError
from linkcontext.evaluation.task import TASKS, task_help
from linkcontext.launch import is_main_process
from linkcontext.metavars import OptionalData


@dataclass(frozen=True, slots=True)
class Validate:
    """Check a run before it starts: right answers score 1, no support contains its query, every prompt fits."""

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)

    def run(self) -> None:
        """Check the run, and print a line for each check."""
        from linkcontext.evaluation.runner import validate

        for line in validate(self.config):
            console.print(line, markup=False)


@dataclass(frozen=True, slots=True)
class Eval:
    """Measure how well a model names new pictures after it has been shown a few.

    The folder of the run gets config.json, episodes.jsonl, predictions.jsonl, metrics.json, explain.json, report.md and
    report.html. --model openai:http://localhost:8000/v1#NAME evaluates a model behind a server (docs/serve.md). Started
    by torchrun or accelerate launch, several processes share the episodes (docs/machines.md). To resume an interrupted
    run, run the same command again.
    """

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    benchmark: Annotated[
        str | None, tyro.conf.arg(help=task_help(), metavar=f"{{{','.join(TASKS)}}}", help_behavior_hint="")
    ] = None
    retention: OptionalData = None
    """Also measure what the model still knows without a support (see --benchmark retention), by --episodes questions of
    each kind: about world:taught, or from a LLaVA or VQA file. The answers go into the folder `retention` of the run,
    and their table into its report."""
    probe: bool = False
    """Also probe whether the answers come from the pictures (see `linkcontext probe`), in the folder `probe` of the
    run; the report gets a section about it. To probe a finished run, repeat its command with this flag."""

    def run(self) -> None:
        """Measure the model, and print the tables."""
        self._check_flags()
        from linkcontext.evaluation.open_model import open_model
        from linkcontext.evaluation.runner import (
            probe_grounding,
            probe_of_run,
            recall_beside,
            run_evaluation,
            run_folder,
        )
        from linkcontext.report.probe import write_probe
        from linkcontext.report.retention import retention_table

        config, folder = self.config, run_folder(self.config, self.benchmark)
        probe = probe_of_run(config, folder) if self.probe else None
        recall = recall_beside(config, self.retention, folder) if self.retention is not None else None
        model = open_model(config.model) if probe or recall else None  # loaded once for both runs
        metrics = run_evaluation(config, model, self.benchmark)
        findings = probe_grounding(probe, model) if probe is not None else None
        retained = run_evaluation(recall, model, "retention") if recall is not None else None
        if not is_main_process():
            return
        if findings is not None:
            console.print(findings["sentence"], markup=False)
            write_probe(folder / "probe")
        if retained is not None:
            console.print(retention_table(retained["rows"]))
        if "questions" in metrics["counters"]:
            _print_recall(folder, metrics)
        else:
            _print_run(folder, metrics)

    def _check_flags(self) -> None:
        """Raise `InputError` for flags that exclude each other."""
        if self.probe and self.benchmark:
            raise InputError("--probe: a probe draws its own episodes. Leave --benchmark out.")
        if self.retention is not None and (self.probe or self.benchmark == "retention"):
            raise InputError("--retention: not together with --probe or --benchmark retention. Leave one out.")


def _print_run(folder: Path, metrics: dict[str, Any]) -> None:
    """Write the report of a run of episodes, and print its tables."""
    from linkcontext.report.page import write_report
    from linkcontext.report.tables import curves_table, metrics_table, summary_table
    from linkcontext.report.verdict import main_rows

    page = write_report(folder)
    _print_problems(folder)
    parts = ("means", "curves") if "means" in metrics else ("rows",)
    tables = {"means": summary_table, "curves": curves_table, "rows": metrics_table}
    for part in parts:
        shown = main_rows(metrics[part])
        console.print(tables[part](shown))
        if len(shown) < len(metrics[part]):
            console.print(f"These are {len(shown)} of {len(metrics[part])} rows; all are in {page.with_suffix('.md')}")
    counters = metrics["counters"]
    console.print(f"engine: {counters['engine']} ({counters['engine_reason']})", markup=False)
    _print_pictures(folder)
    console.print(f"report: {page}", markup=False)


def _print_recall(folder: Path, metrics: dict[str, Any]) -> None:
    """Print the table of a run whose questions have no support."""
    from linkcontext.evaluation.run_dir import read_config
    from linkcontext.report.retention import retention_table

    config = read_config(folder / "config.json")
    _print_problems(folder)
    console.print(f"{config['config']['model']['model']} on {config['data']['spec']}", markup=False)
    console.print(retention_table(metrics["rows"]))
    _print_pictures(folder)
    console.print(f"answers: {folder / 'answers.jsonl'}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Probe:
    """Test whether a model's answers come from the pictures, by thirteen probes with a verdict each, and a conclusion.

    The probes swap and falsify names; shuffle, blank and remove pictures; add irrelevant and contradicting examples;
    and vary the order, the position, the wording and the number of classes (docs/evidence.md). Each probe draws
    --episodes episodes. The folder gets config.json, episodes.jsonl, predictions.jsonl, probe.json and probe.md. To
    resume, run the same command again.
    """

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EvalConfig(episodes=EpisodeConfig(shots=(4,), episodes=200))
    )

    def run(self) -> None:
        """Run the probes, and print the findings."""
        from linkcontext.evaluation.runner import probe_folder, probe_grounding
        from linkcontext.report.probe import probe_table, write_probe

        probe = probe_grounding(self.config)
        if not is_main_process():
            return
        console.print(probe_table(probe["findings"]))
        for finding in probe["findings"]:
            console.print(f"{finding['probe']}: {finding['verdict']}", markup=False)
        _print_problems(probe_folder(self.config))
        _print_pictures(probe_folder(self.config))
        console.print(f"\n{probe['sentence']}", markup=False)
        console.print(f"written: {write_probe(probe_folder(self.config))}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Report:
    """Write report.md and report.html of a run again, from the files in its folder."""

    run_folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of the run."""

    def run(self) -> None:
        """Write the report."""
        from linkcontext.report.page import write_report

        console.print(f"report: {write_report(Path(self.run_folder))}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare two runs on the same queries: the paired difference B - A, its 95 % interval and p-value."""

    run_a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_A")]
    """The folder of run A."""
    run_b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_B")]
    """The folder of run B."""

    def run(self) -> None:
        """Print the comparison."""
        from linkcontext.evaluation.compare import compare_runs, comparison_notes
        from linkcontext.evaluation.run_dir import read_run
        from linkcontext.report.tables import comparison_table
        from linkcontext.report.verdict import comparison_verdict

        a, b = read_run(Path(self.run_a)), read_run(Path(self.run_b))
        rows = compare_runs(a, b)
        console.print(comparison_table(rows))
        for caution in comparison_notes(a, b):
            console.print(caution, style="yellow", markup=False, soft_wrap=True)
        console.print(comparison_verdict(rows, a.path.name, b.path.name), markup=False, soft_wrap=True)


def _print_pictures(folder: Path) -> None:
    """Print what --max-pixels and --processor-kwargs did to the pictures of the run in a folder."""
    from linkcontext.evaluation.run_dir import read_object

    if done := read_object(folder / "config.json", ("model",))["model"].get("pictures"):
        console.print(f"pictures: {done}", markup=False)


def _print_problems(folder: Path) -> None:
    """Print the problems with the data of the run in a folder."""
    from linkcontext.evaluation.run_dir import read_object

    print_problems(read_object(folder / "config.json", ("data",))["data"]["problems"])
