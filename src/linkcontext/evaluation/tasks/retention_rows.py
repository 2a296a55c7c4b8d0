"""Rows of the retention benchmark: what its answers are worth, and what a reply that sees nothing would get."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linkcontext.evaluation import answers, vqa
from linkcontext.evaluation.intervals import clustered_wilson
from linkcontext.evaluation.tasks.recall_questions import CHOICES, RecallAnswer, RecallQuestion, RecallTest
from linkcontext.records import Candidate
from linkcontext.worlds.questions import stated

COMMONEST = 20  # right answers among which the best constant reply is looked for
COUNTS = 5  # numbers a world counts to: two to six

Metric = Callable[[str, Sequence[str]], float]  # a reply and the right answers -> a figure in [0, 1]
Row = dict[str, Any]


def retention_rows(test: RecallTest, found: Mapping[str, RecallAnswer]) -> list[Row]:
    """One row per task and scoring, in the order the tasks come in; `found` has an answer to every question.

    A row has task, scoring, metric, accuracy (the mean of that metric), ci95 (clustered by class or picture),
    n_queries, chance (null where there is nothing to guess among) and blind: what the best of all replies that
    are the same to every question would get (null where a reply is chosen among candidates).
    """
    made = []
    for task in dict.fromkeys(question.task for question in test.questions):
        questions = [question for question in test.questions if question.task == task]
        said = [found[question.id] for question in questions]
        if task == "naming":
            credits = [choice_credit(p, a) for p, a in zip(questions, said, strict=True)]
            row = {"task": task, "scoring": "likelihood_sum", "metric": "accuracy"}
            made.append(row | _figures(questions, credits) | {"chance": 1 / CHOICES, "blind": None})
        name, metric, chance = _metric(task, test)
        values = [metric(a.reply, p.gold) for p, a in zip(questions, said, strict=True)]
        row = {"task": task, "scoring": "generate", "metric": name}
        made.append(row | _figures(questions, values) | {"chance": chance, "blind": _blind(questions, metric)})
    return made


def _figures(questions: Sequence[RecallQuestion], values: Sequence[float]) -> Row:
    return {
        "accuracy": math.fsum(values) / len(values),
        "ci95": list(clustered_wilson(values, [question.cluster for question in questions])),
        "n_queries": len(values),
    }


def _metric(task: str, test: RecallTest) -> tuple[str, Metric, float | None]:
    """What is averaged: its name, the figure of one reply, and what guessing gives."""
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
    """1 where the right name is the likeliest, shared with those it ties with."""
    best = max(answered.logprobs)
    top = [name for name, value in zip(question.candidates, answered.logprobs, strict=True) if value == best]
    return 1 / len(top) if question.gold[0] in top else 0.0


def f1(reply: str, caption: str) -> float:
    """Harmonic mean of precision and recall of the attributes that a description states."""
    said, true = stated(reply), stated(caption)
    return 2 * len(said & true) / (len(said) + len(true))  # a caption always states something


def _blind(questions: Sequence[RecallQuestion], metric: Metric) -> float:
    """The best constant reply's figure, looked for among the commonest right answers."""
    commonest = Counter(answer for question in questions for answer in question.gold).most_common(COMMONEST)
    return max(math.fsum(metric(reply, p.gold) for p in questions) / len(questions) for reply, _ in commonest)
