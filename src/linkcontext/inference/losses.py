"""The training loss of prefix trees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.engine import MAX_BRANCH
from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.prefix_tree import PrefixTree
from linkcontext.inference.schedule import EMPTY, ForwardPass, schedule

# Cascade attention runs rows of branches that are padded to one length. With more padding than this, for each token of
# the tree, a mask over the whole tree is cheaper.
MAX_PADDING = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class TokenLosses:
    """The loss of each supervised token of some trees. The sum of nats x weight is the sum over all sequences."""

    nats: Tensor  # float32[n]: cross-entropy
    weight: Tensor  # float32[n]: how many sequences ask for the token
    right: Tensor  # bool[n]: whether the token is the most likely one


def tree_losses(network: PreTrainedModel, rows: Sequence[TreeInputs], cascade: bool = False) -> TokenLosses:
    """The cross-entropy of every supervised token, in the order of the trees and of their tokens, with gradients.

    A token of several sequences is computed once, and its loss is weighted by their number, so that the gradient is the
    sum of the single sequences' gradients. Trees are the rows of one forward pass under a mask. With `cascade`, for
    networks with full causal attention on a CPU, a tree has a pass of its own and cascade attention, where its branches
    can stand in rows of like length.
    """
    forward = TreeForward(network, cascade)
    alone = [_one_pass(row.tree) if cascade else None for row in rows]
    together = [number for number, run in enumerate(alone) if run is None]
    groups = [[number] for number, run in enumerate(alone) if run is not None] + ([together] if together else [])
    losses: dict[int, TokenLosses] = {}
    for group in groups:
        runs = [(rows[n], alone[n] or ForwardPass(EMPTY, np.arange(len(rows[n].tree)))) for n in group]
        dense = TreeForward(network) if len(group) > 1 or alone[group[0]] is None else forward
        hidden = dense.hidden(runs, None, [inputs.tree.predictors for inputs, _ in runs])
        for n, states, (inputs, run) in zip(group, hidden, runs, strict=True):
            losses[n] = pass_losses(forward, inputs.tree, run, states)
    parts = [losses[n] for n in range(len(rows))]
    nats, weight, right = zip(*((part.nats, part.weight, part.right) for part in parts), strict=True)
    return TokenLosses(torch.cat(nats), torch.cat(weight), torch.cat(right))


def pass_losses(forward: TreeForward, tree: PrefixTree, run: ForwardPass, states: Tensor) -> TokenLosses:
    """The losses of the supervised tokens that the states float[n, width] of a pass predict, in the tree's order."""
    tokens = run.tokens
    place = np.full(len(tree) + 1, -1)
    place[tokens] = np.arange(len(tokens))
    place[-1] = -1  # padding
    supervised = np.flatnonzero(tree.weight)
    parents = tree.parent[supervised]
    assert (parents >= 0).all(), "no state predicts the first token of a sequence"
    mine = supervised[place[parents] >= 0]
    places, which = np.unique(place[tree.parent[mine]], return_inverse=True)
    of_state, target, weight = (
        torch.from_numpy(each).to(forward.device) for each in (which, tree.ids[mine], tree.weight[mine])
    )
    # Answers that begin alike have a state in common, for which logits are computed once.
    logits = forward.logits(states[torch.from_numpy(places).to(forward.device)]).float()
    nats = logits.logsumexp(-1)[of_state] - logits[of_state, target]
    return TokenLosses(nats, weight, logits.argmax(-1)[of_state] == target)


def _one_pass(tree: PrefixTree) -> ForwardPass | None:
    """The tree as one pass of a trunk and rows of branches, or None if it has several trunks or too much padding."""
    room = 2 * len(tree)
    passes = schedule(tree, room, MAX_BRANCH, compute=tree.inner)
    (first, *others) = passes
    return first if not others and len(first.tokens) <= (1 + MAX_PADDING) * len(tree) else None
