"""Ask questions without a support: the model's replies, and the log-probabilities of a question's candidates."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from linkcontext.episodes.scaffold import Scaffold, image_ids
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.evaluation.checks import ANEW, ROUNDING
from linkcontext.evaluation.tasks.recall_questions import RecallAnswer, RecallQuestion, RecallTest
from linkcontext.inference.vision import chunks
from linkcontext.jsonl import read_jsonl
from linkcontext.processes import Processes, append_results
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest

GROUP = 32  # questions whose prompts are batched together
NEW_TOKENS = 64  # maximum length of a reply: the longest description of a world takes about 40 tokens


def questions_without_refused(test: RecallTest, model: ScoringModel, strict: bool) -> RecallTest:
    """The test without questions about pictures that the model's image processor refuses.

    `dataset.problems` lists these pictures.
    Raises `InputError` for the first such picture with `strict`, and if no question is left.
    """
    shown = dict.fromkeys(item for question in test.questions for item in image_ids(question.messages))
    dataset = model.pictures.without_refused(test.dataset, shown, strict)
    if dataset is test.dataset:
        return test
    there = {item.id for item in dataset.items}
    questions = tuple(question for question in test.questions if there.issuperset(image_ids(question.messages)))
    if not questions:
        raise InputError(f"no question is left, because no picture can be used. {dataset.problems[-1]}")
    return replace(test, dataset=dataset, questions=questions)


def refuse_marked_recall(questions: Iterable[RecallQuestion], marks: re.Pattern[str]) -> None:
    """Raise `InputError` if a text of a question contains a special token (`episodes.special_tokens`)."""
    for question in questions:
        written = [part["text"] for m in question.messages for part in m["content"] if part["type"] == "text"]
        for text in (*written, *question.gold, *question.candidates):
            refuse_marks(text, marks, f"{question.id} of {question.task}")


def append_answers(
    scorer: ScoringModel,
    questions: Sequence[RecallQuestion],
    scaffold: Scaffold,
    path: Path,
    new_tokens: int,
    processes: Processes,
) -> None:
    """Append the answers that the file lacks; `processes` share the questions."""
    append_results(
        processes,
        path,
        list(chunks(questions, GROUP)),
        lambda group: answer_questions(scorer, group, scaffold, new_tokens),
        RecallAnswer,
        lambda: {answer.probe for answer in read_recall_answers(questions, path)},
        lambda group: (question.id for question in group),
        lambda answer: answer.probe,
    )


def read_recall_answers(questions: Sequence[RecallQuestion], path: Path) -> list[RecallAnswer]:
    """Read the answers in a file. Raises `InputError` for one that has no question, is repeated or is impossible."""
    known, checked = {question.id: question for question in questions}, dict[str, RecallAnswer]()
    for answered in read_jsonl(RecallAnswer, path):
        question = known.get(answered.probe)
        if question is None or answered.probe in checked:
            why = "has no question in this run" if question is None else "comes twice"
        elif len(answered.logprobs) != len(question.candidates):
            why = f"has {len(answered.logprobs)} log-probabilities for {len(question.candidates)} candidates"
        elif max(answered.logprobs, default=0.0) > ROUNDING:
            why = f"has {max(answered.logprobs):g} as a log-probability, which is above 0"
        else:
            checked[answered.probe] = answered
            continue
        raise InputError(
            f"{path}: the answer {answered.probe!r} {why}. The file is of another run, or was edited. {ANEW}"
        )
    return list(checked.values())


def answer_questions(
    scorer: ScoringModel, questions: Sequence[RecallQuestion], scaffold: Scaffold, new_tokens: int = NEW_TOKENS
) -> list[RecallAnswer]:
    """The model's reply to each question, and the log-probabilities of its candidates if it has some."""
    chosen = [question for question in questions if question.candidates]
    scores = dict(zip((p.id for p in chosen), scorer.score([_candidates(p, scaffold) for p in chosen]), strict=True))
    replies = scorer.generate([list(question.messages) for question in questions], new_tokens)
    answers = []
    for question, reply in zip(questions, replies, strict=True):
        logprobs = tuple(value for value, _ in scores.get(question.id, ()))
        if not all(map(math.isfinite, logprobs)):
            raise InputError(
                f"{question.id}: its candidates have the log-probabilities {logprobs}, which are not all "
                "finite. Try another --dtype."
            )
        answers.append(RecallAnswer(question.id, reply, logprobs, scorer.engine))
    return answers


def _candidates(question: RecallQuestion, scaffold: Scaffold) -> ScoringRequest:
    texts = (scaffold.query_answer.replace("{answer}", name) for name in question.candidates)
    replies = ({"role": "assistant", "content": [{"type": "text", "text": text}]} for text in texts)
    return ScoringRequest(list(question.messages), tuple([*question.messages, reply] for reply in replies))
