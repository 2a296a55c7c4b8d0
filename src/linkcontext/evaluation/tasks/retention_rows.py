"""Rows of the retention benchmark: the metrics of its answers, and those of the best constant reply."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linkcontext.evaluation import answers, vqa
from linkcontext.evaluation.intervals import clustered_wilson
from linkcontext.evaluation.tasks.recall_questions import CHOICES, RecallAnswer, RecallQuestion, RecallTest
from linkcontext.records import Candidate
from linkcontext.worlds.questions import stated

COMMONEST = 20  # most frequent right answers among which the best constant reply is searched
COUNTS = 5  # different answers to counting questions of a world: two to six

Metric = Callable[[str, Sequence[str]], float]  # a reply and the right answers -> a value in [0, 1]
Row = dict[str, Any]


def retention_rows(test: RecallTest, by_question: Mapping[str, RecallAnswer]) -> list[Row]:
    """One row per task and scoring, in the order of the tasks; `by_question` has the answer to each question id.

    A row has task, scoring, metric, accuracy (the mean of that metric), ci95 (clustered by class or picture),
    n_queries, chance (None without a set of possible answers) and blind, the metric of the best constant reply (None
    if an answer is chosen among candidates).
    """
    rows = []
    for task in dict.fromkeys(question.task for question in test.questions):
        questions = [question for question in test.questions if question.task == task]
        given = [by_question[question.id] for question in questions]
        if task == "naming":
            credits = [choice_credit(q, a) for q, a in zip(questions, given, strict=True)]
            row = {"task": task, "scoring": "likelihood_sum", "metric": "accuracy"}
            rows.append(row | _figures(questions, credits) | {"chance": 1 / CHOICES, "blind": None})
        name, metric, chance = _metric(task, test)
        values = [metric(a.reply, q.gold) for q, a in zip(questions, given, strict=True)]
        row = {"task": task, "scoring": "generate", "metric": name}
        rows.append(row | _figures(questions, values) | {"chance": chance, "blind": _blind(questions, metric)})
    return rows


def _figures(questions: Sequence[RecallQuestion], values: Sequence[float]) -> Row:
    return {
        "accuracy": math.fsum(values) / len(values),
        "ci95": list(clustered_wilson(values, [question.cluster for question in questions])),
        "n_queries": len(values),
    }


def _metric(task: str, test: RecallTest) -> tuple[str, Metric, float | None]:
    """The metric of a task: its name, its value for one reply, and its value for guessing."""
    if task == "vqa":
        return "vqa_accuracy", vqa.accuracy, None
    if task == "llava":
        return "exact_match", lambda reply, gold: vqa.exact(reply, gold[0]), None
    if task == "describing":
        return "f1", lambda reply, gold: f1(reply, gold[0]), None
    if task == "counting":
        return "accuracy", lambda reply, gold: vqa.exact(reply, gold[0]), 1 / COUNTS
    names = [Candidate(name, name, name) for name in test.names]
    return "accuracy", lambda reply, gold: float(answers.match(reply, names) == gold[0]), 1 / len(names)


def choice_credit(question: RecallQuestion, answered: RecallAnswer) -> float:
    """1 if the right name is the most likely candidate, 1 / (number tied) for ties, else 0."""
    best = max(answered.logprobs)
    top = [name for name, value in zip(question.candidates, answered.logprobs, strict=True) if value == best]
    return 1 / len(top) if question.gold[0] in top else 0.0


def f1(reply: str, caption: str) -> float:
    """F1 of the attributes that a description states: the harmonic mean of precision and recall."""
    predicted, true = stated(reply), stated(caption)
    return 2 * len(predicted & true) / (len(predicted) + len(true))  # a caption states at least one attribute


def _blind(questions: Sequence[RecallQuestion], metric: Metric) -> float:
    """The mean metric of the best constant reply, searched among the most frequent right answers."""
    commonest = Counter(answer for question in questions for answer in question.gold).most_common(COMMONEST)
    return max(math.fsum(metric(reply, p.gold) for p in questions) / len(questions) for reply, _ in commonest)
