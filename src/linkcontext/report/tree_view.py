"""A prompt as the model reads it: the pieces of its tree, token by token, and who sees whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from linkcontext.evaluation.attribution_file import TreeSegment, TreeToken, TreeView

BLANKS = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class Box:
    """A token as it is drawn: blanks can be seen, and a picture is one box."""

    text: str
    times: int  # tokens
    item: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """A piece of the tree, `first` its first token's number, with what follows it after a fork."""

    title: str
    first: int
    boxes: tuple[Box, ...]
    below: tuple["Branch", ...]


def branches(reading: TreeView) -> tuple[Branch, ...]:
    """The tree, from its roots. Tokens are numbered as the model counts them, a picture's placeholders each."""
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
    """What a piece is: shared by all, shared by some, or an answer."""
    if first and goes_on:
        return "trunk"
    return "answer" if all(token.asked for token in tokens) else "branch"


def _box(token: TreeToken) -> Box:
    text = "picture" if token.item else token.text.translate(BLANKS) or "∅"
    return Box(text, token.times, token.item, token.asked)


def mask(reading: TreeView) -> Markup:
    """Who sees whom as one `<svg>`: a row is a token, its columns are what it sees. A picture counts as one."""
    pieces, count = reading.pieces, len(reading.tokens)
    shapes = []
    for piece in pieces:
        above = piece.parent
        while above >= 0:
            shapes.append(_seen(pieces[above], piece))
            above = pieces[above].parent
        steps = "".join(f"H{i + 1}V{i + 1}" for i in range(piece.start, piece.end))
        shapes.append(f'<path class="own" d="M{piece.start} {piece.start}{steps}H{piece.start}Z"/>')
    asked = [i for i, token in enumerate(reading.tokens) if token.asked]
    shapes += [f'<rect class="asked" x="-2" y="{i}" width="1.2" height="1"/>' for i in asked]
    label = escape(f"The mask of {reading.episode_id}: {count} rows, what each token sees")
    return Markup(
        f'<svg class="mask" role="img" aria-label="{label}" viewBox="-2.2 -.2 {count + 2.4} {count + 0.4}">'
        f'<rect class="all" width="{count}" height="{count}"/>{"".join(shapes)}</svg>'
    )


def _seen(columns: TreeSegment, rows: TreeSegment) -> str:
    """Every token of a piece sees all of a piece before it."""
    width, height = columns.end - columns.start, rows.end - rows.start
    return f'<rect class="sees" x="{columns.start}" y="{rows.start}" width="{width}" height="{height}"/>'
