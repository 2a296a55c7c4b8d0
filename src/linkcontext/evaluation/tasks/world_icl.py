"""Benchmarks of in-context learning beyond linking, after arXiv 2403.12736.

world-icl      all tasks of scenes that nobody was trained on
fewshot        few-shot recognition among the classes of any folder
seed           SEED-Bench, by its types of tasks
vl-checklist   which of two descriptions fits, by kind of attribute and relation
vl-icl         the image-to-text tasks of VL-ICL (arXiv 2403.13164), with its efficiency of learning

All are asked openly and as a choice among letters. The last three are folders that `linkcontext data FILE --layout NAME
--out DIR` made of the published files; supports are drawn from them (VL-ICL's own support set), of the query's concept.
Supports and queries are counterbalanced as everywhere (`episodes.link`, `episodes.questions`), so that copying the
first or the last answer, or always giving one letter, is right by chance only.
"""

import dataclasses
from typing import Literal

from linkcontext.config import EpisodeConfig, EvalConfig
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.plan import LETTERS
from linkcontext.episodes.questions import with_letters
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_episodes
from linkcontext.evaluation.runner import run_folder
from linkcontext.records import Episode
from linkcontext.source import open_data

Benchmark = Literal["world-icl", "fewshot", "seed", "vl-checklist", "vl-icl"]
SHOTS = (0, 1, 2, 4, 8)
SCENES = "scenes:0"


def settled(config: EvalConfig, benchmark: Benchmark) -> EvalConfig:
    """The configuration as the benchmark reads it. Raises `InputError` for flags that it decides itself."""
    e, default = config.episodes, EpisodeConfig()
    if e.format != default.format:
        raise InputError(f"--format: --benchmark {benchmark} asks openly and as a choice. Leave it out.")
    if benchmark == "fewshot":
        if e.tasks:
            raise InputError("--tasks: --benchmark fewshot asks for classes. Leave it out.")
    else:
        if e.data == default.data and benchmark != "world-icl":
            made = f"linkcontext data FILE --layout {benchmark} --out DIR"
            raise InputError(f"--benchmark {benchmark} needs --data: the folder made by `{made}`.")
        data = SCENES if e.data == default.data else e.data
        shots = SHOTS if e.shots == default.shots else e.shots
        e = dataclasses.replace(e, data=data, shots=shots, tasks=e.tasks or ("all",))
        if benchmark != "world-icl" and e.names == default.names:
            e = dataclasses.replace(e, names="real")  # the file's own answers: VL-ICL's made-up names are in it
        if benchmark == "vl-icl":
            e = dataclasses.replace(e, support_split="support", query_split="query")
            e = dataclasses.replace(e, balanced=e.balanced or e.coherence == "concept")
    config = dataclasses.replace(config, episodes=e)
    return dataclasses.replace(config, out=config.out or f"{run_folder(config)}-{benchmark}")


def open_benchmark(config: EvalConfig) -> tuple[Dataset, tuple[Episode, ...], list[str]]:
    """Pictures, the episodes of a settled configuration in both forms, and the classes left out."""
    e = config.episodes
    dataset = open_data(e.data, e.strict)
    sampled = draw_episodes(e, dataset)
    left_out = [f"{c.class_id}: left out, {c.shortfall}" for c in sampled.left_out]
    choice: tuple[Episode, ...] = ()
    if e.tasks:
        try:
            lettered = draw_episodes(dataclasses.replace(e, format="choice"), dataset)
        except InputError as error:  # which asking openly did not raise
            left_out.append(f"choice: left out, {error}")
        else:
            choice, known = lettered.episodes, {c.class_id for c in sampled.left_out}
            left_out += [
                f"{c.class_id}: left out as a choice, {c.shortfall}"
                for c in lettered.left_out
                if c.class_id not in known
            ]
    elif e.ways > len(LETTERS):
        left_out.append(f"choice: left out, {e.ways} ways, and there are letters for {len(LETTERS)}")
    else:
        choice = tuple(with_letters(episode, "fewshot", e.seed) for episode in sampled.episodes)
    both = {"open": sampled.episodes, "choice": choice}
    episodes = [dataclasses.replace(ep, id=f"{form}-{ep.id}") for form, found in both.items() for ep in found]
    return dataset, tuple(episodes), left_out
