"""Log-probabilities of answers from the `prompt_logprobs` of a server.

`prompt_logprobs` is an extension of vLLM's: the log-probability of every token of a prompt. The answer stands in the
prompt as the assistant's last message; `add_generation_prompt` and `continue_final_message` set how the prompt ends.
Where the answer begins and ends among the tokens depends on the server's chat template, and is found out once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from linkcontext.episodes.scaffold import SCAFFOLDS, Message, build_messages
from linkcontext.errors import InputError, excerpt
from linkcontext.models.synthetic_images import CHECKED
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.replicas import Refused

IMPOSSIBLE, ROUNDING = -9999.0, 1e-3  # nats: between them are log-probabilities of tokens
OTHER = "\ue000"  # a character that no name begins with


class NotLogprobs(InputError):
    """A server's `prompt_logprobs` have another form than vLLM's."""


class Token(NamedTuple):
    """A token of a prompt, as a server reports it."""

    id: str
    logprob: float
    text: str


TokenLogprobs = list[Token]  # of every token of a prompt but the first
ReadPrompt = Callable[..., TokenLogprobs]  # messages, and how the prompt ends


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """What the server's chat template writes around an answer; `refusal` is why answers cannot be scored, if so."""

    gap: int = 0  # characters of white space between where the model is to speak and an answer that is given
    end: str = ""  # what is written after an answer, up to the end token
    tail: int = 0  # tokens after the end token
    refusal: str = ""


def answer_format(read: ReadPrompt) -> AnswerFormat:
    """Find out how a server ends answers, from one small conversation read four times: up to its answer, with the
    answer left open, with it closed, and closed with another answer."""
    turn, query = Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "")
    prompt, answered = (build_messages([turn], SCAFFOLDS["turns"], query, answer) for answer in (None, "dax"))
    try:
        before = read(prompt)
        left_open = read(answered, add_generation_prompt=False, continue_final_message=True)
        closed = read(answered, add_generation_prompt=False)
        other = read(other_answer(ScoringRequest(prompt, (answered,))), add_generation_prompt=False)
    except (Refused, NotLogprobs) as error:
        return AnswerFormat(refusal=str(error))
    if not before or not left_open or not closed or not other:
        return AnswerFormat(refusal="it gives no prompt_logprobs")
    behind = closed[len(left_open) :]
    if _shared(closed, left_open) < len(left_open) or not _shared(before, left_open) < len(left_open):
        return AnswerFormat(refusal="its prompts do not end as add_generation_prompt and continue_final_message say")
    if not behind:
        return AnswerFormat(
            refusal="its chat template writes nothing behind an answer, so that an end cannot be scored"
        )
    # Some templates write a space before the end token, which belongs to the end then.
    end = next((i for i, token in enumerate(behind) if not token.text.isspace()), 0)
    text = "".join(token.text for token in behind[: end + 1])
    return AnswerFormat(_gap(before, closed, other), text, len(behind) - end - 1)


def _gap(before: TokenLogprobs, closed: TokenLogprobs, other: TokenLogprobs) -> int:
    """Characters of white space that the template writes before an answer and not where the model is to speak."""
    written = other[len(before) : _shared(other, closed)]
    if _shared(before, other) < len(before) or not all(token.text.isspace() for token in written):
        return 0
    text = "".join(token.text for token in other[len(before) :])
    return len(text) - len(text.lstrip())


def other_answer(request: ScoringRequest) -> list[Message]:
    """The messages of a candidate with an answer that begins like no candidate.

    What it shares with a candidate's messages is all that the chat template writes before an answer. This can be longer
    than a prompt for a reply: templates of models that reason write an empty reasoning before a given answer.
    """
    message = request.answers[0][-1]
    content: list[dict[str, Any]] = [{"type": "text", "text": OTHER}]
    return [*request.answers[0][:-1], {**message, "content": content}]


def answer_logprob(other: TokenLogprobs, closed: TokenLogprobs, format_: AnswerFormat) -> tuple[float, int]:
    """An answer's log-probability and its number of tokens, from where it differs from another answer to its end.

    White space before it belongs to it up to the format's `gap`, because the model would have to generate it.
    """
    start, gap = _shared(other, closed), format_.gap
    while start and closed[start - 1].text.isspace() and len(closed[start - 1].text) <= gap:
        start -= 1
        gap -= len(closed[start].text)
    tokens = closed[start : len(closed) - format_.tail]
    if not other or not tokens:
        raise InputError("the server gave no log-probabilities of an answer's tokens. Is another server there now?")
    return sum(token.logprob for token in tokens), len(tokens)


def checked_logprob(value: object) -> float:
    """A log-probability (nats) that a server sent. Raises `InputError` for what cannot be one.

    vLLM sends -9999 for minus infinity.
    """
    if not is_logprob(value):
        raise InputError(
            f"the server gives the log-probability {excerpt(value)}, which is not that of a token: it has to be above "
            f"{IMPOSSIBLE:g} (vLLM's minus infinity) and at most 0. Half precision may overflow: try --dtype float32 "
            "or bfloat16 when you start the server, and no masks of tokens."
        )
    return float(value)


def is_logprob(value: object) -> TypeGuard[float]:
    """Whether this can be the log-probability (nats) of a token."""
    return isinstance(value, int | float) and not isinstance(value, bool) and IMPOSSIBLE < value <= ROUNDING


def _shared(a: TokenLogprobs, b: TokenLogprobs) -> int:
    """The length of the common prefix of two prompts, in tokens."""
    differs = (i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one.id != other.id)
    return next(differs, min(len(a), len(b)))
