"""metrics.json: what the predictions in a run's folder are worth, and how they were computed."""

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
from linkcontext.evaluation.recall import read_answers
from linkcontext.evaluation.tasks.recall_questions import RecallTest
from linkcontext.evaluation.tasks.retention_rows import retention_rows
from linkcontext.records import Episode, Prediction, read_jsonl
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
    """Metrics of the predictions in a run's folder; with types of tasks that are `unseen`, means over tasks too."""
    asked = {e.id: e for e in episodes}
    predictions = checks.check_predictions(
        asked, read_jsonl(Prediction, out / "predictions.jsonl"), str(out / "predictions.jsonl")
    )
    found = metric_rows(asked, predictions) + (lcl_metric.lcl_rows(asked, predictions) if with_legacy else [])
    metrics = {"rows": found, "counters": with_engines(counters, (p.engine for p in predictions), out)}
    if unseen is not None:
        means = mean_rows(found, unseen, grouped(asked, predictions))
        metrics |= {"means": means, "curves": shot_curves(means)}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


def with_engines(counters: dict[str, Any], engines: Iterable[str], out: Path) -> dict[str, Any]:
    """The counters of a run, with the number of answers of each engine if not all are of the one named there: a run may
    be resumed with another engine."""
    counts = Counter(current_name(engine) or "not recorded" for engine in engines)
    if counts.keys() <= {counters.get("engine")}:
        return counters
    listed = ", ".join(f"{engine} {count}" for engine, count in sorted(counts.items()))
    log.warning("%s: its answers were computed by these engines: %s.", out, listed)
    return {**counters, "engines": listed}


def write_recall_metrics(out: Path, test: RecallTest, counters: dict[str, Any]) -> dict[str, Any]:
    """Metrics of the answers in a run's folder to questions without a support."""
    answers = {answer.probe: answer for answer in read_answers(test.questions, out / "answers.jsonl")}
    counters = with_engines(counters, (answer.engine for answer in answers.values()), out)
    counters |= {"questions": len(test.questions), "questions_in_data": test.total}
    metrics = {"rows": retention_rows(test, answers), "counters": counters}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


def write_findings(
    out: Path, model: str, data: str, left_out: Sequence[str], counters: dict[str, Any]
) -> dict[str, Any]:
    """What the predictions in a probe's folder say; writes probe.json."""
    episodes = {episode.id: episode for episode in read_jsonl(Episode, out / "episodes.jsonl")}
    path = out / "predictions.jsonl"
    predictions = checks.check_predictions(episodes, read_jsonl(Prediction, path), str(path))
    found = judge_predictions(model, episodes, predictions)
    counters = with_engines(counters, (p.engine for p in predictions), out)
    probe = {"model": model, "data": data, **found, "left_out": list(left_out), "counters": counters}
    text = json.dumps(probe, indent=1) + "\n"
    write_text(text, out / "probe.json")
    return dict(json.loads(text))
