"""Draw prefix trees as text, for `linkcontext episodes --show --tree`."""

from collections.abc import Callable, Sequence

import numpy as np

from linkcontext.episodes.render import ChatTokenizer, encode
from linkcontext.episodes.scaffold import Scaffold, query_messages
from linkcontext.inference.prefix_tree import ImageTokens, PrefixTree, expand_images, merge
from linkcontext.records import Episode


def draw_tree(tree: PrefixTree, words: Sequence[str]) -> str:
    """The tree with one segment in a line, after the number of its first token.

    `words` has a text for each token. Tokens that count for a score are in brackets.
    """
    children: dict[int, list[int]] = {}
    for number, segment in enumerate(tree.segments):
        children.setdefault(segment.parent, []).append(number)
    lines: list[str] = []

    def draw(number: int, indent: str, last: bool, root: bool) -> None:
        segment = tree.segments[number]
        tokens = range(segment.start, segment.end)
        text = "".join(f"[{words[i]}]" if tree.weight[i] else words[i] for i in tokens)
        lines.append(f"{segment.start:>5}  {indent}{'' if root else '└ ' if last else '├ '}{text}")
        below = children.get(number, [])
        for child in below:
            draw(child, indent + ("" if root else "  " if last else "│ "), child == below[-1], False)

    for number in children.get(-1, []):
        draw(number, "", True, True)
    return "\n".join(lines)


def draw_episode_tree(
    episode: Episode, scaffold: Scaffold, tokenizer: ChatTokenizer, image_token: int, decode: Callable[[list[int]], str]
) -> str:
    """The tree of all shot counts, queries and candidates of an episode; an image is one token, written as its id.

    `image_token` is what the chat template of `tokenizer` writes for an image. `decode` gives the text of tokens.
    """
    numbers: dict[str, int] = {}  # of images, by item id
    sequences = []
    one_token = ImageTokens(np.array([image_token]), np.zeros(1, np.int64), np.zeros((1, 1), np.int64))
    for shots_per_class in episode.shots_per_class:
        for query in range(len(episode.queries)):
            for candidate in episode.candidates:
                tokens = encode(query_messages(episode, query, shots_per_class, scaffold, candidate.name), tokenizer)
                own = [numbers.setdefault(item, len(numbers)) for item in tokens.pictures]
                sequences.append(expand_images(tokens.ids, tokens.labels, image_token, own, [one_token] * len(own)))
    tree, items = merge(sequences), list(numbers)
    tokens_and_images = zip(tree.ids.tolist(), tree.image.tolist(), strict=True)
    return draw_tree(tree, [f"<{items[n]}>" if n >= 0 else decode([token]) for token, n in tokens_and_images])
