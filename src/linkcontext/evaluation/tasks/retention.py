"""`linkcontext eval --benchmark retention`: does the model still know what it was taught?

Questions of one turn without a support, about pictures of the world (naming, counting, describing) or from a
LLaVA or VQA file. A run's folder holds config.json, questions.jsonl, answers.jsonl and metrics.json.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linkcontext.config import EpisodeConfig, EvalConfig, flags
from linkcontext.episodes.scaffold import Scaffold, load_scaffold, refuse_scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.checks import ANEW, ROUNDING
from linkcontext.evaluation.open_run import open_run_dir, run_identity
from linkcontext.evaluation.runner import Evaluator, opened, prompted, with_engines
from linkcontext.evaluation.tasks.question_files import file_recall_test
from linkcontext.evaluation.tasks.recall_questions import (
    RecallAnswer,
    RecallQuestion,
    RecallTest,
    refuse_marked_recall,
    without_refused_pictures,
    world_recall_test,
)
from linkcontext.evaluation.tasks.retention_rows import retention_rows
from linkcontext.progress import progress
from linkcontext.records import appending, read_jsonl
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.source import open_data
from linkcontext.storage import write_text

TAUGHT = "world:taught"
SAMPLE = 64  # questions whose prompts a folder is compared by
GROUP = 32  # questions whose prompts are batched together
NEW_TOKENS = 64  # of a reply: the longest description of a world takes some 40


def run_retention(config: EvalConfig, model: ScoringModel | None = None) -> dict[str, Any]:
    """Ask, and write the run's folder; the content of metrics.json.

    With `model` that one is used instead of loading `config.model`. Both scorings always run. A folder that
    holds the same run goes on where it stopped.

    Raises:
        InputError: flags that only episodes have; data without right answers; the folder of another run.
    """
    config = settled(config)
    wording = load_scaffold(config.scaffold)
    exam = _exam(config.episodes, wording)
    model = opened(config.model) if model is None else prompted(model, config.model)
    exam = without_refused_pictures(exam, model, config.episodes.strict)
    out = retention_folder(config)
    scorer = Evaluator.of(model, exam.dataset, wording, config).scorer
    refuse_scaffold(wording, scorer.card.special_tokens)
    refuse_marked_recall(exam.probes, scorer.card.special_tokens)
    if (out / "episodes.jsonl").exists():
        raise InputError(f"{out}: holds a run of episodes, not of this benchmark. Choose another --out.")
    about = run_identity(model, wording, (probe.messages for probe in exam.probes[:SAMPLE]))
    open_run_dir(out / "questions.jsonl", exam.probes, config, model, exam.dataset, list(exam.dataset.problems), about)
    _ask_all(scorer, exam.probes, wording, out / "answers.jsonl", model.card.prompting.max_new_tokens or NEW_TOKENS)
    answers = {a.probe: a for a in _belonging(exam.probes, out / "answers.jsonl")}
    counters = with_engines(scorer.counters(), (answer.engine for answer in answers.values()), out)
    counters |= {"questions": len(exam.probes), "questions_in_data": exam.total}
    metrics = {"rows": retention_rows(exam, answers), "counters": counters}
    write_text(json.dumps(metrics, indent=1) + "\n", out / "metrics.json")
    return metrics


def settled(config: EvalConfig) -> EvalConfig:
    """The configuration as this benchmark reads it: no support, both scorings.

    A world nobody was taught has nothing to be retained, so the default of --data means world:taught here.
    """
    e, default = config.episodes, EpisodeConfig()
    kept = EpisodeConfig(data=e.data, episodes=e.episodes, seed=e.seed, strict=e.strict)
    idle = [flag for flag in flags(e, kept) if (flag, e.shots) != ("--shots", (0,))]
    idle += ["--calibrate"] * config.calibrate
    if idle:
        raise InputError(f"{', '.join(idle)}: --benchmark retention asks without a support. Leave it out.")
    if e.episodes < 1:
        raise InputError(f"--episodes {e.episodes}: give at least one question of each kind.")
    data = TAUGHT if e.data == default.data else e.data
    asked = dataclasses.replace(kept, data=data, shots=(0,))
    return dataclasses.replace(config, episodes=asked, scoring="both")


def retention_of_run(config: EvalConfig, data: str, run: Path) -> EvalConfig:
    """What `retention` is to be asked for beside a run, in the folder `retention` of the run's.

    Raises `InputError` for data without right answers, before anything else is asked.
    """
    e = config.episodes
    episodes = EpisodeConfig(data=data, episodes=e.episodes, seed=e.seed, strict=e.strict)
    chosen = settled(dataclasses.replace(config, episodes=episodes, calibrate=False, out=str(run / "retention")))
    _exam(chosen.episodes, load_scaffold(chosen.scaffold))
    return chosen


def retention_folder(config: EvalConfig) -> Path:
    """Where the files go."""
    if config.out is not None:
        return Path(config.out)
    e = config.episodes
    words = [Path(config.model.model).name, "retention", Path(e.data).stem.replace(":", "-"), f"seed{e.seed}"]
    return Path("runs") / "-".join(words)


def _exam(episodes: EpisodeConfig, wording: Scaffold) -> RecallTest:
    if episodes.data.endswith((".json", ".jsonl")):
        return file_recall_test(Path(episodes.data), wording, episodes.episodes, episodes.seed)
    return world_recall_test(open_data(episodes.data, episodes.strict), wording, episodes.episodes, episodes.seed)


def _ask_all(
    scorer: ScoringModel, probes: Sequence[RecallQuestion], wording: Scaffold, path: Path, new_tokens: int
) -> None:
    """Append the answers that `path` does not hold yet."""
    with appending(path) as append:
        done = {answered.probe for answered in _belonging(probes, path)}
        left = [probe for probe in probes if probe.id not in done]
        with progress("Asking", len(left)) as advance:
            for start in range(0, len(left), GROUP):
                answers = answer_questions(scorer, left[start : start + GROUP], wording, new_tokens)
                append(answers)
                for _ in answers:
                    advance()


def _belonging(probes: Sequence[RecallQuestion], path: Path) -> list[RecallAnswer]:
    """The answers in a file. Raises `InputError` for one that belongs to no question, is repeated or is impossible."""
    known, checked = {probe.id: probe for probe in probes}, dict[str, RecallAnswer]()
    for answered in read_jsonl(RecallAnswer, path):
        probe = known.get(answered.probe)
        if probe is None or answered.probe in checked:
            why = "is to no question of this run" if probe is None else "comes twice"
        elif len(answered.logprobs) != len(probe.candidates):
            why = f"has {len(answered.logprobs)} log-probabilities for {len(probe.candidates)} candidates"
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
    scorer: ScoringModel, probes: Sequence[RecallQuestion], wording: Scaffold, new_tokens: int = NEW_TOKENS
) -> list[RecallAnswer]:
    """The model's reply to each probe and, where it has candidates, how likely it finds each."""
    chosen = [probe for probe in probes if probe.candidates]
    scores = dict(zip((p.id for p in chosen), scorer.score([_candidates(p, wording) for p in chosen]), strict=True))
    replies = scorer.generate([list(probe.messages) for probe in probes], new_tokens)
    found = []
    for probe, reply in zip(probes, replies, strict=True):
        logprobs = tuple(value for value, _ in scores.get(probe.id, ()))
        if not all(map(math.isfinite, logprobs)):
            raise InputError(f"{probe.id}: a candidate's likelihood is {logprobs}. Try another --dtype.")
        found.append(RecallAnswer(probe.id, reply, logprobs, scorer.engine))
    return found


def _candidates(probe: RecallQuestion, wording: Scaffold) -> ScoringRequest:
    told = (wording.query_answer.replace("{answer}", name) for name in probe.candidates)
    replies = ({"role": "assistant", "content": [{"type": "text", "text": text}]} for text in told)
    return ScoringRequest(list(probe.messages), tuple([*probe.messages, reply] for reply in replies))
