"""Functions of an exported lmms-eval task: prompts, pictures, and how replies and likelihoods become accuracies.

The files beside this one: the tasks (YAML), episodes.jsonl with one query a line, pictures/, and answers.py, the strict
matching of linkcontext. Nothing else of linkcontext is needed.
"""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("linkcontext_answers", HERE / "answers.py")
assert _spec is not None
assert _spec.loader is not None
_answers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_answers)


def doc_to_messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation up to the answer, for chat models: pictures are opened, and are RGB."""
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "url": _picture(part["image"])}
                if part["type"] == "image"
                else {"type": "text", "text": part["text"]}
                for part in message["content"]
            ],
        }
        for message in doc["messages"]
    ]


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    """The pictures of the conversation in order, for simple models."""
    parts = (part for message in doc["messages"] for part in message["content"])
    return [_picture(part["image"]) for part in parts if part["type"] == "image"]


def doc_to_text(doc: dict[str, Any]) -> str:
    """The conversation as one text, for simple models: a line for each message, and `<image>` for each picture."""
    return "\n".join(
        "".join("<image>" if part["type"] == "image" else part["text"] for part in message["content"])
        for message in doc["messages"]
    )


def doc_to_choice(doc: dict[str, Any]) -> list[str]:
    """What is scored: each candidate as the scaffold words it in an answer."""
    return [candidate["answer"] for candidate in doc["candidates"]]


def doc_to_target(doc: dict[str, Any]) -> int:
    """The index of the right candidate."""
    return [candidate["class_id"] for candidate in doc["candidates"]].index(doc["class_id"])


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Strict matching: a reply is right if it names the right candidate and no other. Reasoning is not searched."""
    named = _answers.match(
        _without_reasoning(results[0]), [SimpleNamespace(**candidate) for candidate in doc["candidates"]]
    )
    return {
        f"accuracy_{doc['row']}": float(named == doc["class_id"]),
        f"answered_{doc['row']}": float(named is not None),
    }


def process_likelihoods(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """The likeliest candidate; of tied ones, each counts in part.

    Models of lmms-eval return losses, which are 0 or more, or log-probabilities, which are 0 or less. Raises
    `ValueError` where the values are neither.
    """
    values = [float(value) for value, _ in results]
    losses = all(value >= 0 for value in values)
    if not all(map(math.isfinite, values)) or not (losses or all(value <= 0 for value in values)):
        raise ValueError(f"{doc['id']}: {values} are neither losses nor log-probabilities of the candidates.")
    best = min(values) if losses else max(values)
    tied = [number for number, value in enumerate(values) if value == best]
    return {f"accuracy_{doc['row']}": (doc_to_target(doc) in tied) / len(tied)}


def _without_reasoning(reply: str) -> str:
    """A reply without the reasoning before it; empty if the reasoning is not finished."""
    if "</think>" in reply:
        return reply.rpartition("</think>")[2]
    return "" if reply.lstrip().startswith("<think>") else reply


def _picture(name: str) -> Image.Image:
    with Image.open(HERE / name) as image:
        return image.convert("RGB")
