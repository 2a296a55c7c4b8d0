"""The training loss of prefix trees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.engine import Engine, TreeInputs
from linkcontext.inference.schedule import EMPTY, ForwardPass


@dataclass(frozen=True, slots=True, eq=False)
class TokenLosses:
    """What every asked token of some trees costs, in order. The sum of nats x weight is the sum over all sequences."""

    nats: Tensor  # float32[n]: cross-entropy
    weight: Tensor  # float32[n]: how many sequences ask for the token
    right: Tensor  # bool[n]: whether the token is the most likely one


def tree_losses(network: PreTrainedModel, rows: Sequence[TreeInputs]) -> TokenLosses:
    """The cross-entropy of every asked token. Each tree is a row of one forward pass, with gradients.

    A token of several sequences is computed once, and its loss is weighted by their number, so that the gradient is the
    sum of the single sequences' gradients.
    """
    engine = Engine(network, 0)
    hidden = engine.hidden([(row, ForwardPass(EMPTY, np.arange(len(row.tree)))) for row in rows], None)
    asked = [np.flatnonzero(row.tree.weight) for row in rows]
    states = [
        hidden[i, torch.from_numpy(row.tree.parent[a])] for i, (row, a) in enumerate(zip(rows, asked, strict=True))
    ]
    target = torch.from_numpy(np.concatenate([row.tree.ids[a] for row, a in zip(rows, asked, strict=True)]))
    weight = torch.from_numpy(np.concatenate([row.tree.weight[a] for row, a in zip(rows, asked, strict=True)]))
    logits, target = engine.logits(torch.cat(states)), target.to(engine.device)
    nats = F.cross_entropy(logits.float(), target, reduction="none")
    return TokenLosses(nats, weight.to(engine.device), logits.argmax(-1) == target)
