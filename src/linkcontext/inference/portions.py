"""Scores of any number of sequences, of which few are in memory at a time.

Each portion is a prefix tree of its own. The path on which the last one ended stays in the KV cache, and what the next
portion begins with is not computed again. Where sequences come in the order of their tree, nothing is computed twice
but, at a portion's end, a part of a trunk that was small enough to be run as a branch (`schedule`).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch

from linkcontext.inference.engine import Engine
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import new_cache, truncate
from linkcontext.inference.prefix_tree import Ints, TokenSequence, merge, token_keys
from linkcontext.inference.schedule import EMPTY


def scores_in_portions(
    engine: Engine, sequences: Iterable[TokenSequence], images: Sequence[ImageFeatures], portion: int
) -> Iterator[float]:
    """The log-probability (nats) of what each sequence asks for, in order; `portion` sequences are taken at a time."""
    remaining = iter(sequences)
    cache, kept = None, EMPTY
    for first in remaining:
        tree = merge(chain([first], islice(remaining, portion - 1)))
        keys = token_keys(tree.ids, tree.slot, tree.image)
        # Keys and values are kept, and no states: the token that predicts an answer is computed again.
        length = _shared(keys[: tree.shared_length], kept)
        length = int(np.flatnonzero(np.append(tree.predictors[:length], True))[0])
        inputs = TreeInputs(tree, images, cache, length)
        passes = engine.passes(inputs, tree.inner)
        if cache is None:  # of the size that it needs: one that grows holds its content twice
            cache = new_cache(engine.network, max(len(run.cached) + len(run.tokens) for run in passes))
        truncate(cache, length)
        with torch.inference_mode():
            values = engine.targets(inputs, passes, cache)
        path = np.concatenate([passes[-1].cached, passes[-1].trunk])
        kept = keys[path]
        yield from tree.sums(values.numpy())


def _shared(keys: Ints, others: Ints) -> int:
    """How many of the first keys are equal."""
    most = min(len(keys), len(others))
    return int(np.flatnonzero(np.append(keys[:most] != others[:most], True))[0])
