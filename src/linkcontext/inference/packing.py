"""Several groups of sequences in one prefix tree, so that the trees of a batch are of like size."""

from collections.abc import Sequence

from linkcontext.inference.prefix_tree import PrefixTree, TokenSequence, merge


def pack(groups: Sequence[Sequence[TokenSequence]], max_tokens: int) -> list[PrefixTree]:
    """Groups of sequences, several to a tree, so that a tree has at most `max_tokens` tokens.

    A tree has more only if one group alone has more. Training runs one tree in each row of a batch: with trees of like
    size little is computed for padding. Groups are placed by size, largest first, into the first tree with room.
    """
    rows: list[tuple[int, list[TokenSequence]]] = []
    sizes = [len(merge(sequences)) for sequences in groups]
    for number in sorted(range(len(groups)), key=lambda i: -sizes[i]):
        row = next((i for i, (taken, _) in enumerate(rows) if taken + sizes[number] <= max_tokens), None)
        if row is None:
            rows.append((sizes[number], list(groups[number])))
        else:
            rows[row] = rows[row][0] + sizes[number], [*rows[row][1], *groups[number]]
    return [merge(sequences) for _, sequences in rows]
