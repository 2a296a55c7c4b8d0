"""smmile: SMMILE and SMMILE++, with the examples of each problem and without, openly and as a choice.

An open reply is right if it has the words of the answer (SMMILE's exact match); the options of a choice are the
different answers of the problem, the query's among them. Both are also scored by likelihood. The benchmark's judge, a
language model, is not asked.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from string import ascii_uppercase

from linkcontext.config import EpisodeConfig
from linkcontext.data.problems import Problems
from linkcontext.data.readers.smmile import HUB, SmmileProblem, read_smmile
from linkcontext.episodes.scaffold import Scaffold, build_messages
from linkcontext.evaluation.task import Task
from linkcontext.evaluation.tasks.own_context import configure_own_context, own_context_run_name, with_pictures
from linkcontext.evaluation.tasks.recall_questions import RecallQuestion, RecallTest, random_subset
from linkcontext.records import Turn
from linkcontext.seeds import rng

OPEN, CHOICE, ALONE = "smmile open", "smmile choice", ", no examples"
METRICS = {OPEN: "same words", CHOICE: "letter", OPEN + ALONE: "same words", CHOICE + ALONE: "letter"}


def _open(options: EpisodeConfig, scaffold: Scaffold) -> RecallTest:
    """Up to --episodes problems, each asked in four ways. Raises `InputError` like `read_smmile`."""
    problems = Problems(options.strict)
    folder, read = read_smmile(options.data, problems)
    drawn = random_subset(read, options.episodes, "smmile", options.seed)
    every = [q for problem in drawn for q in _questions(problem, scaffold, options.seed)]
    ordered = [q for task in METRICS for q in every if q.task == task]
    dataset, questions = with_pictures(ordered, folder, problems)
    return RecallTest(dataset, questions, (), len(read) * len(METRICS), METRICS)


def _questions(problem: SmmileProblem, scaffold: Scaffold, seed: int) -> Iterator[RecallQuestion]:
    """The questions about one problem; no choice if all of its answers are the same."""
    *shown, query = (Turn(e.picture, "", e.answer, e.question) for e in problem.examples)
    different = [*dict.fromkeys(example.answer for example in problem.examples)]
    order = rng("smmile", seed, problem.id).permutation(len(different))
    texts = tuple(different[place] for place in order)
    candidates = texts if len(texts) > 1 else ()
    letters = tuple(ascii_uppercase[: len(texts)])
    options = " ".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=False))
    lettered = replace(query, question=f"{query.question} {options} Answer with the option's letter.")
    for support, how in ((shown, ""), ([], ALONE)):
        forms = [(OPEN, query, query.answer, candidates)]
        if 1 < len(texts) <= len(ascii_uppercase):
            forms.append((CHOICE, lettered, letters[texts.index(query.answer)], letters))
        for form, final, gold, among in forms:
            messages = tuple(build_messages(support, scaffold, final))
            name = f"{problem.id}/{form}{how}"
            yield RecallQuestion(name, form + how, problem.original, messages, (gold,), among)


SMMILE = Task(_open, partial(configure_own_context, "smmile", HUB), partial(own_context_run_name, "smmile"))
