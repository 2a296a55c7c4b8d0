"""What a model makes of it: runs, probes, reports, comparisons."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from linkcontext.cli.terminal import console, print_problems
from linkcontext.config import EpisodeConfig, EvalConfig
from linkcontext.errors import InputError
from linkcontext.evaluation.task import TASKS, task_help


@dataclass(frozen=True, slots=True)
class Validate:
    """Before anything runs for long: gold answers score 1, no support leaks its query, every prompt fits."""

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)

    def run(self) -> None:
        """Check."""
        from linkcontext.evaluation.runner import validate

        for line in validate(self.config):
            console.print(line, markup=False)


@dataclass(frozen=True, slots=True)
class Eval:
    """Measure how well a model names new pictures after it was shown a few. --shots is per class.

    The run's folder gets config.json, episodes.jsonl, predictions.jsonl, metrics.json, explain.json, report.md and
    report.html. --model openai:http://localhost:8000/v1#NAME asks a model that a server has (docs/serve.md).
    Killed and started again with the same flags, it goes on where it was.
    """

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    benchmark: Annotated[str | None, tyro.conf.arg(help=task_help(), metavar=f"{{{','.join(TASKS)}}}")] = None
    retention: str | None = None
    """Ask also whether the model still knows what it was taught, without a support (see --benchmark retention):
    world:taught, or a LLaVA or VQA file of questions, --episodes of each kind. It goes into the folder `retention` of
    the run, and its table into the report."""
    probe: bool = False
    """Ask also whether the answers come from the pictures (see `linkcontext probe`), in the folder `probe` of the run;
    the report gets a section. A run that is there already gets it when its command is given again with this flag."""

    def run(self) -> None:
        """Measure."""
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
        if probe is not None:
            console.print(probe_grounding(probe, model)["sentence"], markup=False)
            write_probe(folder / "probe")
        if recall is not None:
            console.print(retention_table(run_evaluation(recall, model, "retention")["rows"]))
        if "questions" in metrics["counters"]:
            _print_recall(folder, metrics)
        else:
            _print_run(folder, metrics)

    def _check_flags(self) -> None:
        """Refuse flags that exclude each other."""
        if self.probe and self.benchmark:
            raise InputError("--probe: probes draw episodes of their own. Leave --benchmark out.")
        if self.retention is not None and (self.probe or self.benchmark == "retention"):
            raise InputError("--retention: not together with --probe or --benchmark retention. Leave one out.")


def _print_run(folder: Path, metrics: dict[str, Any]) -> None:
    """Write the report of a run of episodes, and print its tables."""
    from linkcontext.report.page import write_report
    from linkcontext.report.tables import curves_table, metrics_table, summary_table

    page = write_report(folder)
    _print_problems(folder)
    if "means" in metrics:
        console.print(summary_table(metrics["means"]))
        console.print(curves_table(metrics["curves"]))
    else:
        console.print(metrics_table(metrics["rows"]))
    counters = metrics["counters"]
    console.print(f"engine: {counters['engine']} ({counters['engine_reason']})", markup=False)
    console.print(f"report: {page}", markup=False)


def _print_recall(folder: Path, metrics: dict[str, Any]) -> None:
    """Print the table of a run of questions without a support."""
    from linkcontext.evaluation.run_dir import read_config
    from linkcontext.report.retention import retention_table

    config = read_config(folder / "config.json")
    _print_problems(folder)
    console.print(f"{config['config']['model']['model']} on {config['data']['spec']}", markup=False)
    console.print(retention_table(metrics["rows"]))
    console.print(f"answers: {folder / 'answers.jsonl'}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Probe:
    """Does the answer come from the pictures? Ten probes, each with what a model that links would show, and a verdict.

    Names swapped and false, pictures shuffled, blank and left out, other orders, places, wordings and numbers of ways
    (docs/evidence.md). --episodes is of each probe. The folder gets config.json, episodes.jsonl, predictions.jsonl,
    probe.json and probe.md; killed and started again, it goes on where it was.
    """

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EvalConfig(episodes=EpisodeConfig(shots=(4,), episodes=200))
    )

    def run(self) -> None:
        """Probe."""
        from linkcontext.evaluation.runner import probe_folder, probe_grounding
        from linkcontext.report.probe import probe_table, write_probe

        probe = probe_grounding(self.config)
        console.print(probe_table(probe["findings"]))
        for finding in probe["findings"]:
            console.print(f"{finding['probe']}: {finding['verdict']}", markup=False)
        _print_problems(probe_folder(self.config))
        console.print(f"\n{probe['sentence']}", markup=False)
        console.print(f"written: {write_probe(probe_folder(self.config))}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Report:
    """Write report.md and report.html of a run again, from its files alone."""

    run_folder: Annotated[str, tyro.conf.Positional]

    def run(self) -> None:
        """Write them."""
        from linkcontext.report.page import write_report

        console.print(f"report: {write_report(Path(self.run_folder))}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Compare:
    """Two runs on the same queries: the paired difference, its interval and p."""

    run_a: Annotated[str, tyro.conf.Positional]
    run_b: Annotated[str, tyro.conf.Positional]

    def run(self) -> None:
        """Compare."""
        from linkcontext.evaluation.compare import compare_runs, comparison_notes
        from linkcontext.evaluation.run_dir import read_run
        from linkcontext.report.tables import comparison_table

        a, b = read_run(Path(self.run_a)), read_run(Path(self.run_b))
        console.print(comparison_table(compare_runs(a, b)))
        for caution in comparison_notes(a, b):
            console.print(caution, style="yellow", markup=False, soft_wrap=True)


def _print_problems(folder: Path) -> None:
    """Print what the run in a folder left out of its data."""
    from linkcontext.evaluation.run_dir import read_object

    print_problems(read_object(folder / "config.json", ("data",))["data"]["problems"])
