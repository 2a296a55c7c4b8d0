"""Rows of the retention benchmark: the metrics of its answers, and those of the best constant reply."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linkcontext.evaluation import answers, short_answers, vqa
from linkcontext.evaluation.intervals import clustered_wilson
from linkcontext.evaluation.tasks.recall_questions import CHOICES, RecallAnswer, RecallQuestion, RecallTest
from linkcontext.records import Candidate
from linkcontext.worlds.questions import stated

COMMONEST = 20  # most frequent right answers among which the best constant reply is searched
COUNTS = 5  # different answers to counting questions of a world: two to six

Metric = Callable[[str, RecallQuestion], float]  # a reply to a question -> a value in [0, 1]
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
        if scored := [(q, a) for q, a in zip(questions, given, strict=True) if q.candidates]:
            chosen = [q for q, _ in scored]
            row = {"task": task, "scoring": "likelihood_sum", "metric": "accuracy"}
            row |= _figures(chosen, [choice_credit(q, a) for q, a in scored])
            rows.append(row | {"chance": _guessing(task, chosen), "blind": None})
        name, metric, chance = _metric(task, test, questions)
        values = [metric(a.reply, q) for q, a in zip(questions, given, strict=True)]
        row = {"task": task, "scoring": "generate", "metric": name}
        rows.append(row | _figures(questions, values) | {"chance": chance, "blind": _blind(questions, metric)})
    return rows


def _figures(questions: Sequence[RecallQuestion], values: Sequence[float]) -> Row:
    return {
        "accuracy": math.fsum(values) / len(values),
        "ci95": list(clustered_wilson(values, [question.cluster for question in questions])),
        "n_queries": len(values),
    }


def _metric(task: str, test: RecallTest, questions: Sequence[RecallQuestion]) -> tuple[str, Metric, float | None]:
    """The metric of a task: its name, its value for one reply, and its value for guessing."""
    if task in test.metrics:
        name, metric = METRICS[test.metrics[task]]
        return name, metric, _guessing(task, questions) if test.metrics[task] == "letter" else None
    if task == "vqa":
        return "vqa_accuracy", lambda reply, q: vqa.accuracy(reply, q.gold), None
    if task == "llava":
        return "exact_match", lambda reply, q: vqa.exact(reply, q.gold[0]), None
    if task == "describing":
        return "f1", lambda reply, q: f1(reply, q.gold[0]), None
    if task == "counting":
        return "accuracy", lambda reply, q: vqa.exact(reply, q.gold[0]), 1 / COUNTS
    names = [Candidate(name, name, name) for name in test.names]
    return "accuracy", lambda reply, q: float(answers.match(reply, names) == q.gold[0]), 1 / len(names)


def _guessing(task: str, questions: Sequence[RecallQuestion]) -> float:
    """The expected accuracy of guessing among the candidates."""
    if task == "naming":
        return 1 / CHOICES
    return math.fsum(1 / len(question.candidates) for question in questions) / len(questions)


def _letter(reply: str, question: RecallQuestion) -> float:
    """1 if the reply names the right candidate and no other."""
    candidates = [Candidate(letter, letter, letter) for letter in question.candidates]
    return float(answers.match(reply, candidates) == question.gold[0])


# Metrics of `RecallTest.metrics`: the name of the figure in reports, and the function.
METRICS: dict[str, tuple[str, Metric]] = {
    "letter": ("accuracy", _letter),
    "same words": ("exact_match", lambda reply, q: short_answers.same_words(reply, q.gold[0])),
    "token f1": ("f1", lambda reply, q: short_answers.token_f1(reply, q.gold[0])),
    "contains": ("accuracy", lambda reply, q: float(q.gold[0] in reply)),
}


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
    return max(math.fsum(metric(reply, p) for p in questions) / len(questions) for reply, _ in commonest)
