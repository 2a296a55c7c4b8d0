"""From a configuration to what it trains on: the tasks of its mixture, opened and checked."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from linkcontext.data.manifest import Dataset, annotation_digest, digest
from linkcontext.data.neighbours import neighbours_from_file
from linkcontext.episodes.annotations import questions_about
from linkcontext.episodes.plan import TaskPlan
from linkcontext.episodes.pool import LeftOut
from linkcontext.episodes.questions import HELD_OUT, TaskSampler
from linkcontext.episodes.scaffold import SCAFFOLDS, Scaffold, load_scaffold, refuse_scaffold
from linkcontext.episodes.special_tokens import refuse_marked_names, refuse_marked_questions, refuse_marks
from linkcontext.evaluation.recall import questions_without_refused, refuse_marked_recall
from linkcontext.evaluation.tasks.question_files import file_recall_test
from linkcontext.models.model import Model
from linkcontext.models.unreadable import without_refused
from linkcontext.scoring.local import LocalModel
from linkcontext.seeds import key
from linkcontext.source import open_data
from linkcontext.train import mixture
from linkcontext.train.config import TrainConfig
from linkcontext.train.samplers import Lessons, Strategy, read_questions

log = logging.getLogger("linkcontext")


@dataclass
class TrainingData:
    """What a run trains on.

    Attributes:
        tasks: the tasks of the mixture, each with its share.
        checks: raise `InputError` for a text that holds one of a model's special tokens.
        longest: the longest example of each task whose length is known beforehand.
        digests: digests of the data sets and their annotations, by the name of the task.
        problems: a sentence for each picture or class that is left out.
    """

    tasks: list[tuple[float, mixture.Task]] = field(default_factory=list)
    checks: list[mixture.Check] = field(default_factory=list)
    longest: list[mixture.Example] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def mixture(self, examples: int, seed: int) -> mixture.Mixture:
        """The examples of a run of that many."""
        return mixture.Mixture.of(self.tasks, examples, seed)


def strategy_of(config: TrainConfig) -> Strategy:
    """What the link episodes of a training are like."""
    c = config
    return Strategy(c.strategy, c.ways, c.support, c.queries, c.names, c.negatives, c.rule, c.split, c.seed)


def open_examples(config: TrainConfig, model: Model | None = None) -> TrainingData:
    """Open the tasks of `--mixture`. With a model, pictures that its processor refuses are left out.

    Raises `InputError` for data that a task cannot be made of.
    """
    wording = load_scaffold(config.scaffold)
    data = TrainingData(checks=[partial(refuse_scaffold, wording)])
    for name, share in mixture.shares(config.mixture).items():
        if name == "link":
            _add_link(data, share, config, wording, model)
        elif name in ("icl", "letters"):
            _add_icl(data, name, share, config, wording, model)
        elif name == "taught":
            data.tasks.append((share, mixture.taught(config.seed)))
        else:
            _add_file(data, name, share, config, model)
    for problem in data.problems:
        log.warning(problem)
    return data


def _add_link(data: TrainingData, share: float, config: TrainConfig, wording: Scaffold, model: Model | None) -> None:
    questions = read_questions(Path(config.questions)) if config.questions else ()
    dataset = _pictures(config.data, model)
    lessons = Lessons.of(dataset, strategy_of(config), neighbours_from_file(config.neighbours, dataset), questions)
    data.problems += _problems(dataset, lessons.pool.left_out)
    data.digests |= {"link": digest(dataset), "link annotations": annotation_digest(dataset)}
    data.checks += [partial(refuse_marks, text, where=f"{config.questions}") for text in questions]
    if config.names not in ("pseudo", "random"):
        data.checks.append(partial(refuse_marked_names, dataset.items))
    make = mixture.link(lessons, dataset, wording, config.supervise == "every")
    data.longest.append(make(0, config.support))
    data.tasks.append((share, make))


def _add_icl(
    data: TrainingData, name: str, share: float, config: TrainConfig, wording: Scaffold, model: Model | None
) -> None:
    pictures = _pictures(config.icl_data, model)
    plan = task_plan(config, pictures)
    if name == "letters":
        plan = dataclasses.replace(plan, form="choice", text_only=True)
    sampler = TaskSampler.of(pictures, plan)
    make = mixture.icl(sampler, pictures, wording, config.supervise != "query", config.turns, config.seed)
    problems = _problems(pictures, sampler.left_out)
    data.problems += [problem for problem in problems if problem not in data.problems]
    data.digests |= {name: digest(pictures), f"{name} annotations": annotation_digest(pictures)}
    data.checks.append(partial(refuse_marked_questions, pictures.items))
    data.longest.append(make(0, max(config.turns)))
    data.tasks.append((share, make))


def _add_file(data: TrainingData, name: str, share: float, config: TrainConfig, model: Model | None) -> None:
    test = file_recall_test(Path(name), SCAFFOLDS["turns"], config.steps * config.batch, config.seed)
    test = test if model is None else questions_without_refused(test, LocalModel(model), strict=False)
    data.problems += test.dataset.problems
    data.digests |= {name: digest(test.dataset)}
    data.checks.append(partial(refuse_marked_recall, test.questions))
    data.tasks.append((share, mixture.from_file(test, Path(name), config.seed)))


def _pictures(spec: str, model: Model | None) -> Dataset:
    """A data set, without the pictures that the model's image processor refuses."""
    dataset = open_data(spec)
    return dataset if model is None else without_refused(dataset, [i.id for i in dataset.items], model, strict=False)


def _problems(dataset: Dataset, left_out: Sequence[LeftOut]) -> list[str]:
    """What is wrong with a data set, and what of it is not trained on."""
    return [*dataset.problems, *(f"{out.class_id}: left out, {out.shortfall}" for out in left_out)]


def task_plan(config: TrainConfig, pictures: Dataset) -> TaskPlan:
    """What the conversations are about: never the held-out types of tasks, unless they are named."""
    types = {question.task for item in pictures.items for question in questions_about(item)}
    return TaskPlan(
        tasks=config.tasks or tuple(sorted(types - set(HELD_OUT))),
        coherence=config.coherence,
        form=config.format,
        options=config.options,
        shots=config.turns,
        only=True,
        # Another seed than an evaluation's, so that no episode of an evaluation is trained on.
        seed=key("train", config.seed, "icl") % 2**62,
    )
