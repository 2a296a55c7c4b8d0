"""Scenes: pictures of the world with questions and right answers for every type of task.

    thing    one thing                        naming, attribute (kind, colour, texture, shape), count (parts), caption,
                                              rule (an invented word stands for one attribute, whatever the others)
    size     one thing, small or large        attribute (size)
    light    one thing by day or by night     attribute (state)
    motion   one thing, with its trace        attribute (action)
    place    one thing somewhere              location
    herd     one to six of one thing          count (things)
    two      two things of two colours        relation (left-right, above-below)
    twins    two equal or different things    same-different
    sum      a few things left, a few right   rule (sum, difference, product, larger)

Except in `thing`, answers are independent of the concept, because concepts and answers are drawn separately.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.errors import InputError
from linkcontext.progress import progress
from linkcontext.records import Item, Question
from linkcontext.seeds import Name, rng
from linkcontext.storage import occupied
from linkcontext.worlds import concepts, questions, render
from linkcontext.worlds.concepts import COLOURS, Facts
from linkcontext.worlds.folder import EDGE, save_picture
from linkcontext.worlds.pseudo_words import pseudo_words

NUMBERS = tuple("123456")
RULES: dict[str, tuple[Callable[[int, int], int], tuple[str, ...]]] = {
    "sum": (lambda a, b: a + b, tuple("23456")),
    "difference": (lambda a, b: abs(a - b), tuple("012")),
    "product": (lambda a, b: a * b, ("1", "2", "3", "4", "6", "9")),
    "larger": (max, tuple("123")),
}
SIDE = 0.48  # distance of each of two things from the middle
PLACES = {"left": (-0.5, 0.0), "right": (0.5, 0.0), "top": (0.0, -0.5), "bottom": (0.0, 0.5), "middle": (0.0, 0.0)}
MOTIONS = {
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
    "resting": (0, 0),
}
GRID = tuple(product((-0.62, 0.0, 0.62), (-0.4, 0.4)))  # the positions of a herd
NIGHT = 0.35  # brightness relative to day


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture before it is drawn: things in layers, and the questions about it."""

    things: Tensor  # float32[L, concepts.LENGTH]
    places: tuple[tuple[float, float, float, float], ...]  # as in `render.compose`
    questions: tuple[Question, ...]
    light: float = 1.0


def write_scenes(
    out: Path, seed: int, classes: int = 60, images: int = 16, scenes: int = 240, size: int = EDGE
) -> Dataset:
    """Draw `classes` things in `images` pictures each and `scenes` pictures of every other kind, with their questions.

    Raises `InputError` for a folder that is not empty.
    """
    if occupied(out):
        raise InputError(f"{out}: the folder is not empty. Choose an empty or a new one.")
    stream: tuple[Name, ...] = ("world", "scenes", seed)
    drawn = {f"thing/{n:05d}": each for n, each in enumerate(_things(classes, images, stream))}
    for kind, make in KINDS.items():
        drawn |= {f"{kind}/{n:05d}": make(*stream, kind, n) for n in range(scenes)}
    items = []
    keys = list(drawn)
    with progress("Drawing", len(keys)) as advance:
        for start in range(0, len(keys), 64):
            chunk = keys[start : start + 64]
            for key, picture in zip(
                chunk, _drawn([drawn[key] for key in chunk], [(*stream, key) for key in chunk], size), strict=True
            ):
                path = f"{key}.png"
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                kind = key.partition("/")[0]
                content, pixels = save_picture(picture, out / path)
                items.append(Item(path, path, kind, kind, content, questions=drawn[key].questions, pixels=pixels))
                advance()
    dataset = Dataset(out, tuple(sorted(items, key=lambda item: item.id)))
    write_manifest(dataset)
    return dataset


def _drawn(scenes: Sequence[Scene], names: Sequence[tuple[Name, ...]], size: int) -> Tensor:
    """Draw scenes: uint8[N, size, size, 3]. `names` are the random streams of their instances."""
    layers = max(len(scene.places) for scene in scenes)
    things = torch.zeros(len(scenes), layers, concepts.LENGTH)
    places = torch.zeros(len(scenes), layers, 4)
    for i, scene in enumerate(scenes):
        things[i, : len(scene.places)] = scene.things
        places[i, : len(scene.places)] = torch.tensor(scene.places)
    instances = torch.cat([render.draw_instances(1, *name) for name in names])
    instances[:, render.SLOTS["grey"]] = 1.0  # no black-and-white pictures, because questions ask about colours
    pictures = render.compose(things, places, instances, size)
    light = torch.tensor([scene.light for scene in scenes])[:, None, None, None]
    return (pictures * light).round().to(torch.uint8)


def _things(classes: int, images: int, stream: tuple[Name, ...]) -> Iterator[Scene]:
    """Scenes of one thing: each of `classes` things with its own name in `images` pictures."""
    vectors = concepts.draw_concepts(classes, *stream)
    names = pseudo_words(classes, *stream)
    for vector, name, fact in zip(vectors, names, concepts.facts(concepts.decode(vectors)), strict=True):
        about_thing = thing_questions(fact, name)
        for n in range(images):
            x, y, scale = rng(*stream, name, n).random(3)
            place = (0.5 * (x - 0.5), 0.5 * (y - 0.5), 0.62 + 0.38 * scale, 1.0)
            yield Scene(vector[None], (place,), about_thing)


def thing_questions(fact: Facts, name: str) -> tuple[Question, ...]:
    """All questions about a picture of one thing. For those without candidates, an episode invents names."""
    attributes = questions.attribute_questions(fact)
    rules = [
        replace(q, task="rule", concept=f"by {q.concept}", question=questions.NAMING[0], candidates=())
        for q in attributes
        if q.concept in ("kind", "colour")
    ]
    styles = questions.styles(fact)
    captions = [
        Question("caption", style, questions.DESCRIBING[0], text, tuple(styles.values()))
        for style, text in styles.items()
    ]
    return (Question("naming", "thing", questions.NAMING[0], name), *attributes, *rules, *captions)


def _one(*stream: Name) -> tuple[Tensor, np.random.Generator]:
    """A concept, and a random generator for everything else in the scene."""
    return concepts.draw_concepts(1, *stream), rng(*stream, "scene")


def _pick(generator: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(generator.integers(len(options)))]


def _size(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    answer = _pick(generator, ("small", "large"))
    scale = generator.uniform(0.28, 0.38) if answer == "small" else generator.uniform(0.85, 1.0)
    x, y = generator.uniform(-0.3, 0.3, 2) * (1.2 - scale)
    question = Question("attribute", "size", "Is it small or large?", answer, ("small", "large"))
    return Scene(thing, ((x, y, scale, 1.0),), (question,))


def _light(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    answer = _pick(generator, ("day", "night"))
    question = Question("attribute", "state", "Is it day or night?", answer, ("day", "night"))
    x, y = generator.uniform(-0.2, 0.2, 2)
    return Scene(thing, ((x, y, 0.8, 1.0),), (question,), 1.0 if answer == "day" else NIGHT)


def _motion(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    answer = _pick(generator, tuple(MOTIONS))
    dx, dy = MOTIONS[answer]
    x, y = 0.3 * dx + generator.uniform(-0.1, 0.1), 0.3 * dy + generator.uniform(-0.1, 0.1)
    traces = [(x - 0.25 * n * dx, y - 0.25 * n * dy, 0.45, 0.5 - 0.12 * n) for n in (3, 2, 1) if dx or dy]
    question = Question("attribute", "action", "What is it doing?", answer, tuple(MOTIONS))
    places = (*traces, (x, y, 0.45, 1.0))
    return Scene(thing.expand(len(places), -1), places, (question,))


def _place(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    answer = _pick(generator, tuple(PLACES))
    x, y = np.array(PLACES[answer]) + generator.uniform(-0.08, 0.08, 2)
    question = Question("location", "place", "Where is it?", answer, tuple(PLACES))
    return Scene(thing, ((x, y, 0.42, 1.0),), (question,))


def _herd(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    answer = _pick(generator, NUMBERS)
    spots = [GRID[i] for i in generator.permutation(len(GRID))[: int(answer)]]
    places = tuple((x + generator.uniform(-0.06, 0.06), y + generator.uniform(-0.06, 0.06), 0.3, 1.0) for x, y in spots)
    question = Question("count", "things", "How many things are there?", answer, NUMBERS)
    return Scene(thing.expand(len(places), -1), places, (question,))


def _two(*stream: Name) -> Scene:
    """Two things with different main colours, by which questions refer to them."""
    generator = rng(*stream, "scene")
    things = concepts.draw_concepts(2, *stream)
    first, second = generator.permutation(len(COLOURS))[:2]
    things[:, concepts.SLOTS["colour"]] = (torch.tensor([first, second])[:, None] + 0.5) / len(COLOURS)
    colour = tuple(COLOURS)[int(first)]
    concept, answers = [("left-right", ("left", "right")), ("above-below", ("above", "below"))][
        int(generator.integers(2))
    ]
    answer = _pick(generator, answers)
    away = -SIDE if answer in ("left", "above") else SIDE
    spots = [(away, 0.0), (-away, 0.0)] if concept == "left-right" else [(0.0, away), (0.0, -away)]
    places = tuple(
        (x + generator.uniform(-0.06, 0.06), y + generator.uniform(-0.06, 0.06), 0.44, 1.0) for x, y in spots
    )
    question = Question("relation", concept, f"Where is the {colour} one?", answer, answers)
    return Scene(things, places, (question,))


def _twins(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    answer = _pick(generator, ("same", "different"))
    other = thing if answer == "same" else concepts.draw_concepts(1, *stream, "other")
    places = tuple((x, generator.uniform(-0.15, 0.15), 0.44, 1.0) for x in (-SIDE, SIDE))
    question = Question("same-different", "things", "Are the two the same?", answer, ("same", "different"))
    return Scene(torch.cat([thing, other]), places, (question,))


def _sum(*stream: Name) -> Scene:
    thing, generator = _one(*stream)
    a, b = (int(n) for n in generator.integers(1, 4, 2))
    rows = (-0.62, 0.0, 0.62)
    spots = [(x, rows[i]) for x, n in ((-0.55, a), (0.55, b)) for i in generator.permutation(3)[:n]]
    places = tuple((x + generator.uniform(-0.05, 0.05), y, 0.3, 1.0) for x, y in spots)
    rule_questions = tuple(
        Question("rule", name, "What does it make?", str(rule(a, b)), answers)
        for name, (rule, answers) in RULES.items()
    )
    return Scene(thing.expand(len(places), -1), places, rule_questions)


KINDS = {
    "size": _size,
    "light": _light,
    "motion": _motion,
    "place": _place,
    "herd": _herd,
    "two": _two,
    "twins": _twins,
    "sum": _sum,
}
