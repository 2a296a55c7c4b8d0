"""The training loss of prefix trees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.schedule import EMPTY, ForwardPass


@dataclass(frozen=True, slots=True, eq=False)
class TokenLosses:
    """The loss of each supervised token of some trees. The sum of nats x weight is the sum over all sequences."""

    nats: Tensor  # float32[n]: cross-entropy
    weight: Tensor  # float32[n]: how many sequences ask for the token
    right: Tensor  # bool[n]: whether the token is the most likely one


def tree_losses(network: PreTrainedModel, rows: Sequence[TreeInputs]) -> TokenLosses:
    """The cross-entropy of every supervised token. Each tree is a row of one forward pass, with gradients.

    A token of several sequences is computed once, and its loss is weighted by their number, so that the gradient is the
    sum of the single sequences' gradients.
    """
    forward = TreeForward(network)
    hidden = forward.hidden([(row, ForwardPass(EMPTY, np.arange(len(row.tree)))) for row in rows], None)
    trees = [row.tree for row in rows]
    supervised = [np.flatnonzero(tree.weight) for tree in trees]
    states = torch.cat(
        [
            hidden[i, torch.from_numpy(tree.parent[tokens])]
            for i, (tree, tokens) in enumerate(zip(trees, supervised, strict=True))
        ]
    )
    ids = np.concatenate([tree.ids[tokens] for tree, tokens in zip(trees, supervised, strict=True)])
    weight = np.concatenate([tree.weight[tokens] for tree, tokens in zip(trees, supervised, strict=True)])
    logits, target = forward.logits(states), torch.from_numpy(ids).to(forward.device)
    nats = F.cross_entropy(logits.float(), target, reduction="none")
    return TokenLosses(nats, torch.from_numpy(weight).to(forward.device), logits.argmax(-1) == target)
