"""What a model makes of it: runs, probes, reports, comparisons."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from linkcontext.cli.terminal import console, print_problems
from linkcontext.config import EpisodeConfig, EvalConfig
from linkcontext.errors import InputError


@dataclass(frozen=True, slots=True)
class Validate:
    """Before anything runs for long: gold answers score 1, no support leaks its query, every prompt fits."""

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)

    def run(self) -> None:
        """Check."""
        from linkcontext.evaluation.validate import validate

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
    benchmark: Literal["retention", "isekai", "world-icl", "fewshot", "seed", "vl-checklist", "vl-icl"] | None = None
    """retention: instead of episodes, naming, counting and describing what the model was taught (--data is
    then world:taught if not said), or the questions of a LLaVA or VQA file (--data FILE.json).
    isekai: the episodes of ISEKAI-10 or ISEKAI-pair in a folder or on the hub (--data hf:ISEKAI-Portal/ISEKAI-10).
    world-icl: all tasks of scenes nobody was trained on (--data scenes:SEED), openly and as a choice among letters,
    with means over tasks; seed, vl-checklist, vl-icl: the same of a folder made by `linkcontext data FILE --layout NAME
    --out DIR`; fewshot: few-shot recognition of any folder's classes, both ways."""
    retention: str | None = None
    """Ask also whether the model still knows what it was taught, without a support (see --benchmark retention):
    world:taught, or a LLaVA or VQA file of questions, --episodes of each kind. It goes into the folder `retention` of
    the run, and its table into the report."""
    probe: bool = False
    """Ask also whether the answers come from the pictures (see `linkcontext probe`), in the folder `probe` of the run;
    the report gets a section. A run that is there already gets it when its command is given again with this flag."""

    def run(self) -> None:
        """Measure."""
        if self.probe and self.benchmark:
            raise InputError("--probe: probes draw episodes of their own. Leave --benchmark out.")
        if self.retention is not None and (self.probe or self.benchmark == "retention"):
            raise InputError("--retention: not together with --probe or --benchmark retention. Leave one out.")
        if self.benchmark == "retention":
            self._retention()
            return
        from linkcontext.evaluation.runner import evaluate, evaluate_episodes, opened, run_folder
        from linkcontext.evaluation.tasks import world_icl
        from linkcontext.evaluation.tasks.isekai import open_isekai, settled
        from linkcontext.evaluation.tasks.retention import retention_of_run, run_retention
        from linkcontext.report.page import write_report
        from linkcontext.report.retention import retention_table
        from linkcontext.report.tables import curves_table, metrics_table, summary_table

        config = settled(self.config) if self.benchmark == "isekai" else self.config
        if self.benchmark is not None and self.benchmark != "isekai":
            config = world_icl.settled(config, self.benchmark)
        known = retention_of_run(config, self.retention, run_folder(config)) if self.retention is not None else None
        model = opened(config.model) if known else None  # loaded once for both
        if self.benchmark is not None and self.benchmark != "isekai":
            dataset, episodes, left_out = world_icl.open_benchmark(config)
            metrics = evaluate_episodes(config, dataset, episodes, left_out, model)
        elif self.benchmark == "isekai":
            e = config.episodes
            metrics = evaluate_episodes(config, *open_isekai(e.data, e.shots, e.seed), model=model)
        elif self.probe:
            metrics = self._probed()
        else:
            metrics = evaluate(config, model)
        if known is not None:
            console.print(retention_table(run_retention(known, model)["rows"]))
        page = write_report(run_folder(config))
        _print_problems(run_folder(config))
        if config.episodes.tasks:
            console.print(summary_table(metrics["means"]))
            console.print(curves_table(metrics["curves"]))
        else:
            console.print(metrics_table(metrics["rows"]))
        counters = metrics["counters"]
        console.print(f"engine: {counters['engine']} ({counters['engine_reason']})", markup=False)
        console.print(f"report: {page}", markup=False)

    def _retention(self) -> None:
        from linkcontext.evaluation.tasks.retention import retention_folder, run_retention, settled
        from linkcontext.report.retention import retention_table

        metrics = run_retention(self.config)
        config = settled(self.config)
        _print_problems(retention_folder(config))
        console.print(f"{config.model.model} on {config.episodes.data}", markup=False)
        console.print(retention_table(metrics["rows"]))
        console.print(f"answers: {retention_folder(config) / 'answers.jsonl'}", soft_wrap=True)

    def _probed(self) -> dict[str, Any]:
        from linkcontext.evaluation.grounding.conditions import probe_grounding, probe_of_run
        from linkcontext.evaluation.runner import evaluate, opened, run_folder
        from linkcontext.report.probe import write_probe

        config = self.config
        asked = probe_of_run(config, run_folder(config))
        model = opened(config.model)
        metrics = evaluate(config, model)
        console.print(probe_grounding(asked, model)["sentence"], markup=False)
        write_probe(run_folder(asked))
        return metrics


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
        from linkcontext.evaluation.grounding.conditions import probe_folder, probe_grounding
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
