"""Inspect's task `linkcontext/episodes`: episodes, prompts and strict matching of `linkcontext eval` with any model of
Inspect.

    inspect eval linkcontext/episodes -T data=world:7 -T shots=0,1,4 -T episodes=64 --model openai/gpt-4o
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, mean, metric, scorer, stderr
from inspect_ai.solver import TaskState, generate

from linkcontext.data.images import data_uri, portable
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.names import NameKind
from linkcontext.episodes.scaffold import Message, Scaffold, load_scaffold, query_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.answers import match
from linkcontext.models.prompting import REPLY_TOKENS, without_reasoning
from linkcontext.records import Candidate, Episode
from linkcontext.source import open_data

ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


@task(name="episodes")  # type: ignore[untyped-decorator]
def episodes_task(
    data: str = "world:0",
    ways: int = 2,
    shots: int | str | Sequence[int] = (0, 1, 2, 4),
    episodes: int = 256,
    names: NameKind = "pseudo",
    seed: int = 0,
    scaffold: str = "turns",
    max_new_tokens: int = REPLY_TOKENS,
    options: dict[str, Any] | None = None,
) -> Task:
    """Name new pictures after a few have been shown: one sample for each query at each number of shots per class.

    Args:
        data: A folder of class folders, digits, world:SEED, hf:NAME, ...
        ways: Classes in an episode.
        shots: Support pictures per class; each number is measured.
        episodes: How many.
        names: pseudo, random, real or swapped.
        seed: The same seed draws the same episodes as `linkcontext eval`.
        scaffold: turns, single_turn, lcl, or a JSON file.
        max_new_tokens: The maximum length of a reply. Models that reason need thousands.
        options: Further options of `linkcontext episodes`, such as negatives: `-T options='{"queries": 4}'`.
    """
    from linkcontext.api import draw_episodes  # noqa: PLC0415 - Inspect imports this module at each start

    wording, dataset = load_scaffold(scaffold), open_data(data)
    drawn = draw_episodes(
        dataset, ways=ways, shots=_numbers(shots), episodes=episodes, names=names, seed=seed, **(options or {})
    )
    return Task(
        dataset=MemoryDataset(_samples(drawn, dataset, wording), name=data),
        solver=generate(),
        scorer=strict_matching(),
        config=GenerateConfig(temperature=0, max_tokens=max_new_tokens),
    )


@metric  # type: ignore[untyped-decorator]
def by_shots() -> Metric:
    """For each number of shots per class the mean of a value, and its standard error with episodes as clusters."""
    average, error = mean(), stderr(cluster="episode")

    def measure(scores: list[SampleScore]) -> Value:
        rows: dict[int, list[SampleScore]] = defaultdict(list)
        for sample in scores:
            assert sample.sample_metadata is not None
            rows[sample.sample_metadata["shots_per_class"]].append(sample)
        values: dict[str, Any] = {}
        for shots, row in sorted(rows.items()):
            values |= {f"k{shots}": average(row), f"k{shots}_stderr": error(row)}
        return values

    return measure


@scorer(metrics={"accuracy": [by_shots()], "answered": [by_shots()]})  # type: ignore[untyped-decorator]
def strict_matching() -> Scorer:
    """A reply is right if it names the right candidate and no other; `answered` if it names exactly one."""

    async def score(state: TaskState, target: Target) -> Score:
        candidates = [Candidate(**candidate) for candidate in state.metadata["candidates"]]
        reply = without_reasoning(state.output.completion.strip()) or ""
        named = match(reply, candidates)
        values = {"accuracy": float(named == state.metadata["class_id"]), "answered": float(named is not None)}
        return Score(value=values, answer=next((c.name for c in candidates if c.class_id == named), None))

    return score


def _samples(episodes: Sequence[Episode], dataset: Dataset, scaffold: Scaffold) -> list[Sample]:
    """A sample for each query at each number of shots per class."""
    picture = lru_cache(maxsize=4096)(lambda item: _picture(dataset, item))
    return [
        Sample(
            id=f"{episode.query_id(number)}/k{k}",
            input=[_chat_message(m, picture) for m in query_messages(episode, number, k, scaffold)],
            target=query.answer,
            metadata={"episode": episode.id, "shots_per_class": k, **_truth(episode, number)},
        )
        for episode in episodes
        for k in episode.shots_per_class
        for number, query in enumerate(episode.queries)
    ]


def _numbers(shots: float | str | Sequence[float | str]) -> tuple[int, ...]:
    """Shot counts as `-T shots=0,1` may give them: one number, a text or a list."""
    parts = [shots] if isinstance(shots, int | float) else shots.split(",") if isinstance(shots, str) else shots
    try:
        return tuple(int(str(part)) for part in parts)  # `int` would cut 0.5 to 0
    except ValueError as error:
        raise InputError(f"shots={shots}: numbers are expected, for example -T shots=0,1,4.") from error


def _truth(episode: Episode, query: int) -> dict[str, Any]:
    """What the scorer needs to know about a query."""
    return {"class_id": episode.queries[query].class_id, "candidates": [*map(asdict, episode.candidates)]}


def _chat_message(message: Message, picture: Callable[[str], str]) -> Any:
    """A message of Inspect. A single text is given as such: of a list, Inspect would put a line break before it."""
    parts = message["content"]
    content = [
        ContentImage(image=picture(part["image"])) if part["type"] == "image" else ContentText(text=part["text"])
        for part in parts
    ]
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    return ROLES[message["role"]](content=parts[0]["text"] if only_text else content)


def _picture(dataset: Dataset, item: str) -> str:
    """A picture as a data URI: upright and RGB, as `linkcontext eval` sends it to servers."""
    path: Path = dataset.path(item)
    return data_uri(*portable(path))
