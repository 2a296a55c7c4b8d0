"""Write metrics.json and probe.json from the predictions in the folder of a run."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from linkcontext.evaluation import checks, lcl_metric
from linkcontext.evaluation.aggregate import mean_rows, shot_curves
from linkcontext.evaluation.grounding.findings import judge_predictions
from linkcontext.evaluation.metrics import grouped, metric_rows
from linkcontext.evaluation.recall import read_recall_answers
from linkcontext.evaluation.tasks.recall_questions import RecallTest
from linkcontext.evaluation.tasks.retention_rows import retention_rows
from linkcontext.jsonl import read_jsonl
from linkcontext.records import Episode, Prediction
from linkcontext.scoring.engine_names import current_name
from linkcontext.storage import write_text

log = logging.getLogger("linkcontext")


def write_metrics(
    out: Path,
    episodes: Sequence[Episode],
    counters: dict[str, Any],
    with_legacy: bool = False,
    unseen: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compute the metrics of the predictions in a folder, and write metrics.json.

    With `unseen` types of tasks, means over subjects are added; with `with_legacy`, the rows of `lcl_metric`.
    """
    by_id = {e.id: e for e in episodes}
    predictions = checks.check_predictions(
        by_id, read_jsonl(Prediction, out / "predictions.jsonl"), str(out / "predictions.jsonl")
    )
    rows = metric_rows(by_id, predictions) + (lcl_metric.lcl_rows(by_id, predictions) if with_legacy else [])
    metrics = {"rows": rows, "counters": with_engines(counters, (p.engine for p in predictions), out)}
    if unseen is not None:
        means = mean_rows(rows, unseen, grouped(by_id, predictions))
        metrics |= {"means": means, "curves": shot_curves(means)}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


def with_engines(counters: dict[str, Any], engines: Iterable[str], out: Path) -> dict[str, Any]:
    """The counters, and the number of answers of each engine if they come from several: a run may be resumed with
    another engine."""
    counts = Counter(current_name(engine) or "not recorded" for engine in engines)
    if counts.keys() <= {counters.get("engine")}:
        return counters
    listed = ", ".join(f"{engine} {count}" for engine, count in sorted(counts.items()))
    log.warning("%s: its answers were computed by these engines: %s.", out, listed)
    return {**counters, "engines": listed}


def write_recall_metrics(out: Path, test: RecallTest, counters: dict[str, Any]) -> dict[str, Any]:
    """Compute the metrics of answers to questions without a support, and write metrics.json."""
    answers = {answer.probe: answer for answer in read_recall_answers(test.questions, out / "answers.jsonl")}
    counters = with_engines(counters, (answer.engine for answer in answers.values()), out)
    counters |= {"questions": len(test.questions), "questions_in_data": test.total}
    metrics = {"rows": retention_rows(test, answers), "counters": counters}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


def write_findings(
    out: Path, model: str, data: str, left_out: Sequence[str], counters: dict[str, Any]
) -> dict[str, Any]:
    """Judge the predictions in the folder of a probe, and write probe.json."""
    episodes = {episode.id: episode for episode in read_jsonl(Episode, out / "episodes.jsonl")}
    path = out / "predictions.jsonl"
    predictions = checks.check_predictions(episodes, read_jsonl(Prediction, path), str(path))
    judgement = judge_predictions(model, episodes, predictions)
    counters = with_engines(counters, (p.engine for p in predictions), out)
    probe = {"model": model, "data": data, **judgement, "left_out": list(left_out), "counters": counters}
    text = json.dumps(probe, indent=1) + "\n"
    write_text(text, out / "probe.json")
    return dict(json.loads(text))
