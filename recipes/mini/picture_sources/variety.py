"""Different drawings of one thing: authors in turn, and no two that look the same.

A copy of a query among the pictures beside it would teach a model to look for copies.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.02  # squared distance of two shapes, over their mean square, below which one is a copy

Shape = NDArray[np.float32]  # [16, 16], how much of each square is covered
T = TypeVar("T")


def in_turn(items: Sequence[T], author: Callable[[T], Hashable], each: int, random: np.random.Generator) -> list[T]:
    """The items in random order, authors taking turns; at most `each` of an author."""
    by_author: dict[Hashable, list[T]] = defaultdict(list)
    for i in random.permutation(len(items)):
        by_author[author(items[i])].append(items[i])
    turns = [(turn, i, one) for i, own in enumerate(by_author.values()) for turn, one in enumerate(own[:each])]
    return [one for *_, one in sorted(turns, key=lambda turn: turn[:2])]


def is_copy(shape: Shape, others: Sequence[Shape]) -> bool:
    """Whether a drawing covers nearly the same as one of the others."""
    square = (shape**2).sum()
    return any(((shape - other) ** 2).sum() < ALIKE * (square + (other**2).sum()) / 2 for other in others)
