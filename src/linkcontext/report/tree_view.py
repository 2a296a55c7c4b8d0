"""Views of a prefix tree for a report: its segments token by token, and its attention mask."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from linkcontext.evaluation.attribution_file import TreeSegment, TreeToken, TreeView

BLANKS = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class Box:
    """A drawn token, with visible white space; a picture is one box."""

    text: str
    times: int  # number of tokens
    item: str
    scored: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """A segment of the tree with the branches after it. `first` is the number of its first token."""

    title: str
    first: int
    boxes: tuple[Box, ...]
    below: tuple["Branch", ...]


def branches(reading: TreeView) -> tuple[Branch, ...]:
    """The tree from its roots. Token numbers count every placeholder of a picture."""
    below: dict[int, list[int]] = {}
    for number, piece in enumerate(reading.pieces):
        below.setdefault(piece.parent, []).append(number)
    firsts = [0]
    for token in reading.tokens:
        firsts.append(firsts[-1] + token.times)

    def branch(number: int) -> Branch:
        piece = reading.pieces[number]
        tokens, under = reading.tokens[piece.start : piece.end], below.get(number, [])
        title = _title(tokens, piece.parent < 0, bool(under))
        return Branch(title, firsts[piece.start], tuple(map(_box, tokens)), tuple(map(branch, under)))

    return tuple(map(branch, below.get(-1, [])))


def _title(tokens: Sequence[TreeToken], first: bool, goes_on: bool) -> str:
    """The title of a segment: "trunk" if all prompts share it, "answer" if it is an answer, else "branch"."""
    if first and goes_on:
        return "trunk"
    return "answer" if all(token.scored for token in tokens) else "branch"


def _box(token: TreeToken) -> Box:
    text = "picture" if token.item else token.text.translate(BLANKS) or "∅"
    return Box(text, token.times, token.item, token.scored)


def mask(reading: TreeView) -> Markup:
    """The attention mask as an `<svg>`: a row is a token, and its columns are what it attends to.

    A picture counts as one token.
    """
    pieces, count = reading.pieces, len(reading.tokens)
    shapes = []
    for piece in pieces:
        above = piece.parent
        while above >= 0:
            shapes.append(_seen(pieces[above], piece))
            above = pieces[above].parent
        steps = "".join(f"H{i + 1}V{i + 1}" for i in range(piece.start, piece.end))
        shapes.append(f'<path class="own" d="M{piece.start} {piece.start}{steps}H{piece.start}Z"/>')
    scored = [i for i, token in enumerate(reading.tokens) if token.scored]
    shapes += [f'<rect class="asked" x="-2" y="{i}" width="1.2" height="1"/>' for i in scored]
    label = escape(f"The attention mask of {reading.episode_id} with {count} rows")
    return Markup(
        f'<svg class="mask" role="img" aria-label="{label}" viewBox="-2.2 -.2 {count + 2.4} {count + 0.4}">'
        f'<rect class="all" width="{count}" height="{count}"/>{"".join(shapes)}</svg>'
    )


def _seen(columns: TreeSegment, rows: TreeSegment) -> str:
    """The rectangle for tokens `rows` that attend to all tokens of an earlier segment `columns`."""
    width, height = columns.end - columns.start, rows.end - rows.start
    return f'<rect class="sees" x="{columns.start}" y="{rows.start}" width="{width}" height="{height}"/>'
