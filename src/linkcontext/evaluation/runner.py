"""Run an evaluation, a probe or a validation: open the task, open the model, collect answers, write the folder.

Only this module and the command line see a whole configuration; everything else takes plain arguments. The same call
resumes a run that was interrupted.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from linkcontext.config import EvalConfig
from linkcontext.data.manifest import Dataset, digest
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.episodes.scaffold import Scaffold, load_scaffold, refuse_scaffold
from linkcontext.episodes.special_tokens import refuse_marked_episodes
from linkcontext.errors import InputError
from linkcontext.evaluation import recall
from linkcontext.evaluation.aggregate import type_of
from linkcontext.evaluation.attribution import write_attribution
from linkcontext.evaluation.evaluator import Evaluator, append_predictions, check_fits, sample_prompts
from linkcontext.evaluation.grounding import conditions
from linkcontext.evaluation.open_model import open_model, with_prompting
from linkcontext.evaluation.open_run import RunOptions, open_run_dir, run_identity
from linkcontext.evaluation.run_metrics import write_findings, write_metrics, write_recall_metrics
from linkcontext.evaluation.support_selection import select_supports
from linkcontext.evaluation.task import EpisodeSet, Task, TaskOptions, find_task
from linkcontext.evaluation.tasks.recall_questions import RecallTest
from linkcontext.evaluation.validate import check_episodes, check_prompts
from linkcontext.jsonl import read_jsonl, to_json
from linkcontext.processes import Processes, together
from linkcontext.records import Episode, Prediction
from linkcontext.scoring.identity import digest_of
from linkcontext.scoring.protocol import ScoringModel, require
from linkcontext.source import open_data

RECALL_SAMPLE = 64  # questions whose prompts are compared when a run is resumed


def run_evaluation(
    config: EvalConfig, model: ScoringModel | None = None, benchmark: str | None = None
) -> dict[str, Any]:
    """Run a task, write its folder, and return the content of metrics.json. A folder of the same run is resumed.

    Args:
        config: All options. `config.model` is loaded unless `model` is given.
        model: A loaded model to use instead.
        benchmark: The name of a task in `evaluation.task.TASKS` or in another package. Default: `questions` if the
            options name tasks, else `link`.

    Raises:
        InputError: The options or the data are bad, or the folder has another run.
    """
    task = _task(config, benchmark)
    config = configured(config, task)
    scaffold, out = load_scaffold(config.scaffold), _folder(config, task)
    with together() as processes:
        data = processes.after_main(lambda: task.open(config.episodes, scaffold))
        if isinstance(data, RecallTest):
            return _evaluate_recall(config, data, scaffold, out, _model(config, model), processes)
        if config.episodes.tasks:
            _check_unseen(config.unseen, data)
        model = _model(config, model)
        data = episodes_without_refused(data, model, config.episodes.strict)
        return _evaluate_episodes(config, data, scaffold, out, model, processes)


def configured(config: EvalConfig, task: Task) -> EvalConfig:
    """The configuration with the changes of a task. Raises `InputError` for options that the task sets itself."""
    options = task.configure(TaskOptions(config.episodes, config.scoring, config.calibrate))
    return dataclasses.replace(config, episodes=options.episodes, scoring=options.scoring, calibrate=options.calibrate)


def run_folder(config: EvalConfig, benchmark: str | None = None) -> Path:
    """The folder of a run."""
    task = _task(config, benchmark)
    return _folder(configured(config, task), task)


def _folder(config: EvalConfig, task: Task) -> Path:
    if config.out is not None:
        return Path(config.out)
    options = TaskOptions(config.episodes, config.scoring, config.calibrate)
    return Path("runs") / task.run_name(config.model.model, options)


def _task(config: EvalConfig, benchmark: str | None) -> Task:
    return find_task(benchmark or ("questions" if config.episodes.tasks else "link"))


def _model(config: EvalConfig, model: ScoringModel | None) -> ScoringModel:
    return open_model(config.model) if model is None else with_prompting(model, config.model)


def evaluator_of(config: EvalConfig, model: ScoringModel, dataset: Dataset, scaffold: Scaffold) -> Evaluator:
    """An evaluator of a model with the pictures of a data set."""
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
    scorer = model.with_pictures(sources, config.batch, config.engine, config.memory_gb)
    return Evaluator.of(scorer, dataset, scaffold, config.scoring, config.calibrate, config.head)


def episodes_without_refused(data: EpisodeSet, model: ScoringModel, strict: bool) -> EpisodeSet:
    """The episodes, drawn again without pictures that the model's image processor refuses.

    Raises `InputError` for the first such picture with `strict`, and if the task cannot draw its episodes again.
    """
    while True:
        strict = strict or data.redraw is None
        dataset = model.pictures.without_refused(data.dataset, _used(data.episodes), strict)
        if dataset is data.dataset or data.redraw is None:
            return data
        data = data.redraw(dataset)


def _used(episodes: Sequence[Episode]) -> dict[str, None]:
    """The different ids of the pictures in some episodes, in order."""
    turns = (turn for episode in episodes for turn in (*episode.support, *episode.queries))
    return dict.fromkeys(item for turn in turns for item in turn.pictures)


def _check_unseen(unseen: Sequence[str], data: EpisodeSet) -> None:
    """Raise `InputError` if --unseen names a type of task that the data do not have."""
    types = {type_of(episode.task)[0] for episode in data.episodes} | {
        sentence.partition("/")[0] for sentence in data.left_out if "/" in sentence.partition(":")[0]
    }
    if unknown := sorted({*unseen} - types - {*HELD_OUT}):
        raise InputError(f"--unseen {unknown[0]}: the data have no such type of task, only {', '.join(sorted(types))}.")


def _evaluate_episodes(
    config: EvalConfig, data: EpisodeSet, scaffold: Scaffold, out: Path, model: ScoringModel, processes: Processes
) -> dict[str, Any]:
    """Predict every query at every shot count, and write the files of the run in the main process."""
    dataset, episodes = data.dataset, data.episodes
    evaluator = evaluator_of(config, model, dataset, scaffold)
    if config.episodes.select != "random":
        require(evaluator.scorer, "image features", f"--select {config.episodes.select}")
        episodes = select_supports(config.episodes, dataset, evaluator.scorer)
    refuse_scaffold(scaffold, evaluator.scorer.card.special_tokens)
    refuse_marked_episodes(episodes, evaluator.scorer.card.special_tokens)
    check_fits(evaluator, episodes)
    about = run_identity(model, scaffold, sample_prompts(evaluator, episodes))
    problems = [*dataset.problems, *data.left_out]
    run = partial(open_run_dir, out / "episodes.jsonl", episodes, _options(config), model, dataset, problems, about)
    _open_together(processes, run, about, episodes, dataset)
    append_predictions(evaluator, episodes, out / "predictions.jsonl", processes)
    evaluator.scorer.pictures.save()
    counters = processes.totals(evaluator.scorer.counters())

    def finish() -> dict[str, Any]:
        unseen = config.unseen if config.episodes.tasks else None
        metrics = write_metrics(out, episodes, counters, with_legacy=config.scoring == "lcl-legacy", unseen=unseen)
        predictions = tuple(read_jsonl(Prediction, out / "predictions.jsonl"))
        write_attribution(evaluator.scorer, scaffold, episodes, predictions, out, config.explain)
        return metrics

    return dict(processes.from_main(finish))


def _open_together(
    processes: Processes, open_run: Callable[[], None], about: Mapping[str, Any], records: Sequence[Any], data: Dataset
) -> None:
    """Open the folder of a run in the main process, after a check that all processes measure the same."""
    processes.same("the model and the prompts", lambda: about)
    processes.same("the episodes and the pictures", lambda: digest_of([digest(data), [*map(to_json, records)]]))
    processes.from_main(open_run)


def _evaluate_recall(
    config: EvalConfig, data: RecallTest, scaffold: Scaffold, out: Path, model: ScoringModel, processes: Processes
) -> dict[str, Any]:
    """Ask every question without a support, and write the files of the run in the main process."""
    data = recall.questions_without_refused(data, model, config.episodes.strict)
    scorer = evaluator_of(config, model, data.dataset, scaffold).scorer
    refuse_scaffold(scaffold, scorer.card.special_tokens)
    recall.refuse_marked_recall(data.questions, scorer.card.special_tokens)
    if (out / "episodes.jsonl").exists():
        raise InputError(f"{out}: holds a run of episodes, and not of this benchmark. Choose another --out.")
    about = run_identity(model, scaffold, (question.messages for question in data.questions[:RECALL_SAMPLE]))
    path, dataset = out / "questions.jsonl", data.dataset
    run = partial(open_run_dir, path, data.questions, _options(config), model, dataset, list(dataset.problems), about)
    _open_together(processes, run, about, data.questions, dataset)
    new_tokens = model.card.prompting.max_new_tokens or recall.NEW_TOKENS
    recall.append_answers(scorer, data.questions, scaffold, out / "answers.jsonl", new_tokens, processes)
    counters = processes.totals(scorer.counters())
    return dict(processes.from_main(lambda: write_recall_metrics(out, data, counters)))


def _options(config: EvalConfig) -> RunOptions:
    return RunOptions.of(config, EvalConfig())


def recall_beside(config: EvalConfig, data: str, run: Path) -> EvalConfig:
    """The configuration of the retention run of a run, in the folder `retention` of its folder.

    The data are opened here, so that `InputError` for bad data is raised before the model is loaded.
    """
    e, task = config.episodes, find_task("retention")
    episodes = dataclasses.replace(type(e)(), data=data, episodes=e.episodes, seed=e.seed, strict=e.strict)
    beside = dataclasses.replace(config, episodes=episodes, calibrate=False, head="lm", out=str(run / "retention"))
    beside = configured(beside, task)
    task.open(beside.episodes, load_scaffold(beside.scaffold))
    return beside


def probe_grounding(config: EvalConfig, model: ScoringModel | None = None) -> dict[str, Any]:
    """Probe whether answers come from the pictures, write the folder, and return the content of probe.json.

    `config.model` is loaded unless `model` is given. A folder of the same probe is resumed.

    Raises:
        InputError: An option is set that the probe sets itself, the model has no log-probabilities, the data have too
            few pictures, or the folder has another run.
    """
    check_probe_config(config)
    with together() as processes:
        return _probe(config, model, processes)


def _probe(config: EvalConfig, model: ScoringModel | None, processes: Processes) -> dict[str, Any]:
    """Predict the episodes of all conditions, and write the files of the probe in the main process."""
    e, scaffold = config.episodes, load_scaffold(config.scaffold)
    dataset = processes.after_main(lambda: open_data(e.data, e.strict))
    model = _model(config, model)
    dataset = model.pictures.without_refused(dataset, [item.id for item in dataset.items], e.strict)
    evaluator = dataclasses.replace(evaluator_of(config, model, dataset, scaffold), grey=False)
    require(evaluator.scorer, "log-probabilities", "probe")
    planned, left_out = conditions.plan_conditions(evaluator, e, config.scaffold)
    for each, episodes in planned:
        refuse_scaffold(each.scaffold, each.scorer.card.special_tokens)
        refuse_marked_episodes(episodes, each.scorer.card.special_tokens)
    out = probe_folder(config)
    every = [episode for _, episodes in planned for episode in episodes]
    conversations = [messages for each, episodes in planned for messages in sample_prompts(each, episodes)]
    about = run_identity(model, scaffold, conversations)
    problems = [*dataset.problems, *left_out]
    run = partial(open_run_dir, out / "episodes.jsonl", every, _options(config), model, dataset, problems, about)
    _open_together(processes, run, about, every, dataset)
    conditions.predict_conditions(planned, out / "predictions.jsonl", processes)
    evaluator.scorer.pictures.save()
    counters = processes.totals(evaluator.scorer.counters())
    return dict(processes.from_main(lambda: write_findings(out, model.card.name, e.data, left_out, counters)))


def check_probe_config(config: EvalConfig) -> None:
    """Raise `InputError` for options that a probe sets itself, and for more than one number of shots."""
    given = conditions.options_not_read(config.episodes)
    given += ["--scoring"] * (config.scoring != "likelihood") + ["--explain"] * (config.explain is not None)
    given += ["--calibrate"] * config.calibrate + ["--head"] * (config.head != "lm")
    if given:
        raise InputError(f"{', '.join(given)}: a probe sets this itself. Leave it out.")
    conditions.check_shots(config.episodes.shots)


def probe_of_run(config: EvalConfig, run: Path) -> EvalConfig:
    """The configuration of the probe of a run, in the folder `probe` of its folder.

    It has the run's data, ways, episodes, seed and scaffold, and its largest shots per class up to 4.
    """
    episodes = conditions.options_of_run(config.episodes)
    return dataclasses.replace(
        config,
        episodes=episodes,
        scoring="likelihood",
        calibrate=False,
        head="lm",
        explain=None,
        out=str(run / "probe"),
    )


def probe_folder(config: EvalConfig) -> Path:
    """The folder of a probe."""
    if config.out is not None:
        return Path(config.out)
    return Path("runs") / conditions.run_name(config.model.model, config.episodes)


def validate(config: EvalConfig, model: ScoringModel | None = None) -> list[str]:
    """Check the episodes and prompts of a run before it starts; return a line for each check, with its counts.

    `config.model` is loaded unless `model` is given. Raises `InputError`, naming the episode, for the first error.
    """
    scaffold = load_scaffold(config.scaffold)
    data = _task(config, None).open(config.episodes, scaffold)
    assert isinstance(data, EpisodeSet), "link and questions draw episodes"
    model = _model(config, model)
    data = episodes_without_refused(data, model, config.episodes.strict)
    lines = check_episodes(data, config.episodes, scaffold)
    return [*lines, *check_prompts(data.episodes, evaluator_of(config, model, data.dataset, scaffold))]
