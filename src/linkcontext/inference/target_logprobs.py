"""The log-probabilities that a tree asks for, collected from the states of its forward passes."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
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
            states = hidden[torch.from_numpy(place[tree.parent[mine]]).to(device)]
            values = self._of(states, torch.from_numpy(tree.ids[mine]).to(device))
            self.values[torch.from_numpy(mine)] = values.double().cpu()
        place[tokens] = -1

    def _of(self, states: Tensor, ids: Tensor) -> Tensor:
        """float32[n]: log-probabilities of tokens int64[n] after states float[n, width]."""
        rows = max(1, LOGITS // self.forward.network.config.get_text_config().vocab_size)
        pieces = []
        for start in range(0, len(ids), rows):
            logprobs = F.log_softmax(self.forward.logits(states[start : start + rows]).float(), -1)
            pieces.append(logprobs.gather(1, ids[start : start + rows, None])[:, 0])
        return torch.cat(pieces)
