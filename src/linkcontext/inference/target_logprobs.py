"""The log-probabilities that a tree asks for, collected from the states of its forward passes."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from linkcontext.inference.forward import TreeForward
from linkcontext.inference.prefix_tree import Ints, PrefixTree

LOGITS = 2**24  # the most logits that are computed at once


@dataclass
class TargetLogprobs:
    """float64[T]: the log-probability (nats) of every token that a tree asks for, 0 elsewhere."""

    forward: TreeForward
    tree: PrefixTree
    values: Tensor = field(init=False)
    _added: int = field(default=0, init=False, repr=False)
    _scored: Ints = field(init=False, repr=False)
    _place: Ints = field(init=False, repr=False)  # of a token in a pass; the last entry serves padding and first tokens

    def __post_init__(self) -> None:
        self.values = torch.zeros(len(self.tree), dtype=torch.float64)
        self._scored = np.flatnonzero(self.tree.weight)
        self._place = np.full(len(self.tree) + 1, -1)

    def add(self, tokens: Ints, hidden: Tensor) -> None:
        """Take the states float[n, width] of tokens int64[n], of which -1 are padding.

        The log-probability of a token comes from the state of its parent.
        """
        place, tree = self._place, self.tree
        place[tokens] = np.arange(len(tokens))
        place[-1] = -1
        mine = self._scored[place[tree.parent[self._scored]] >= 0]
        if len(mine):
            device = self.forward.device
            places, which = np.unique(place[tree.parent[mine]], return_inverse=True)
            ids = torch.from_numpy(tree.ids[mine]).to(device)
            values = self._of(hidden[torch.from_numpy(places).to(device)], torch.from_numpy(which).to(device), ids)
            self.values[torch.from_numpy(mine)] = values.double().cpu()
            self._added += len(mine)
        place[tokens] = -1

    def complete(self) -> Tensor:
        """The values, of which none is missing. First tokens have no state before them, and stay 0."""
        assert self._added == int((self.tree.parent[self._scored] >= 0).sum()), "a token that is asked for was left out"
        return self.values

    def _of(self, states: Tensor, which: Tensor, ids: Tensor) -> Tensor:
        """float32[n]: log-probabilities of tokens int64[n], each after one of the states float[s, width] by its number.

        Answers that begin alike have a state in common, for which logits are computed once.
        """
        values = torch.empty(len(ids), device=ids.device)
        most = max(1, LOGITS // self.forward.network.config.get_text_config().vocab_size)
        for start in range(0, len(states), most):
            logits = self.forward.logits(states[start : start + most]).float()
            here = ((which >= start) & (which < start + most)).nonzero()[:, 0]
            rows = which[here] - start
            values[here] = logits[rows, ids[here]] - logits.logsumexp(-1)[rows]
        return values
