"""Greedy replies that grow token by token, whichever engine computes the logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linkcontext.inference.prefix_tree import PrefixTree

# Called with every new token: the sequence's number, the token, and the logits float[vocabulary] of which it is the
# largest. The sequence ends if it returns False.
OnToken = Callable[[int, int, Tensor], bool]
# Called with a sequence's number, its tokens and reply so far, and logits float[vocabulary]; returns the logits to use.
AdjustLogits = Callable[[int, list[int], Tensor], Tensor]


@dataclass
class GreedyReplies:
    """The replies to the sequences of a tree.

    A reply has at most `new_tokens` tokens. It ends before one of the tokens `ends`, or where `on_token` returns False.
    `adjust_logits` changes the logits before the largest is taken.
    """

    tree: PrefixTree
    new_tokens: int
    ends: set[int]
    on_token: OnToken | None = None
    adjust_logits: AdjustLogits | None = None
    replies: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.replies = [[] for _ in self.tree.leaves]

    def extend(self, sequences: Sequence[int], logits: Tensor) -> tuple[list[int], Tensor]:
        """Add the most likely token to the reply of each sequence. `logits` are float[sequences, vocabulary].

        Returns the rows of the sequences that go on, none if their replies are full, and the tokens int64[rows].
        """
        if self.adjust_logits is not None:
            logits = torch.stack([self._adjusted(n, row) for n, row in zip(sequences, logits, strict=True)])
        tokens = logits.argmax(-1)
        going = [row for row, token in enumerate(tokens.tolist()) if token not in self.ends]
        for row in going:
            self.replies[sequences[row]].append(int(tokens[row]))
        if self.on_token is not None:
            going = [row for row in going if self.on_token(sequences[row], int(tokens[row]), logits[row])]
        if going and len(self.replies[sequences[going[0]]]) == self.new_tokens:
            going = []
        return going, tokens

    def _adjusted(self, sequence: int, logits: Tensor) -> Tensor:
        assert self.adjust_logits is not None
        ids = [*self.tree.ids[self.tree.path(sequence)].tolist(), *self.replies[sequence]]
        return self.adjust_logits(sequence, ids, logits)
