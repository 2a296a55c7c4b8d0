"""The gate for text that somebody else wrote: it may not hold the model's own marks.

A tokenizer reads `<|end|>` or `<image>` as the end of a turn or as a picture wherever it stands. A class name, a
question or a client's text that holds such a mark is therefore refused. It is not escaped: the processors of many
families look for their marks in the finished text, and no escaped form is plain text to all of them.

Every prompt passes the gate when it is rendered (`episodes.prompt.render`, `scoring.remote.RemoteModel`). Commands that
know their texts beforehand call `refuse_marks` early, where they can name the class, the file or the message.
"""

import re
from collections.abc import Iterable

from linkcontext.errors import UNDECODED, InputError
from linkcontext.records import Episode, Item

SHORTEST = 3  # characters of a mark; a padding token can be an ordinary "!"
# The marks of a model behind a server are not known. These are the shapes of the marks of published models.
USUAL_MARKS = re.compile(
    r"<[|｜][^<>\s]{1,60}[|｜]>|</?(?:s|pad|unk|bos|eos|mask|think|image|video|audio|img|image_soft_token|end_of_image|"
    r"start_of_image|(?:start|end)_of_turn|end_of_utterance|fake_token_around_image|im_start|im_end|im_patch)>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|IMG|IMG_BREAK|IMG_END|THINK)\]"
)


def marks_pattern(marks: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of a tokenizer's marks, the longest first."""
    chosen = sorted({mark for mark in marks if len(mark) >= SHORTEST}, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(map(re.escape, chosen)) or r"(?!)")


def refuse_marks(text: str, marks: re.Pattern[str], where: str) -> None:
    """Raise an `InputError` if a text holds one of the model's marks, or is no text. `where` says whose it is."""
    if UNDECODED.search(text):
        raise InputError(f"{where}: the text is not UTF-8. Write it in UTF-8.")
    if match := marks.search(text):
        raise marked(match[0], where)


def refuse_marked_episodes(episodes: Iterable[Episode], marks: re.Pattern[str]) -> None:
    """Pass every name, question and answer of some episodes through the gate."""
    checked: set[str] = set()
    for episode in episodes:
        texts = {c.name: f"{episode.id}: the name of class {c.class_id}" for c in episode.candidates}
        for turn in (*episode.support, *episode.queries):
            texts |= {turn.question: f"{episode.id}: a question about {turn.item or 'no picture'}"}
            texts.setdefault(turn.answer, f"{episode.id}: an answer about {turn.item or 'no picture'}")
        for text in texts.keys() - checked:
            refuse_marks(text, marks, texts[text])
        checked |= texts.keys()


def refuse_marked_names(items: Iterable[Item], marks: re.Pattern[str]) -> None:
    """Pass the class names of some pictures through the gate."""
    for item in items:
        refuse_marks(item.name, marks, f"{item.path}: the class name {item.name!r}")


def refuse_marked_questions(items: Iterable[Item], marks: re.Pattern[str]) -> None:
    """Pass what is asked about some pictures through the gate."""
    for item in items:
        for question in item.questions:
            for text in (question.question, question.answer, *question.candidates):
                refuse_marks(text, marks, f"{item.path}: a question of the task {question.task}")


def marked(mark: str, where: str) -> InputError:
    """The error for a text that holds a mark."""
    return InputError(
        f"{where}: the text holds {mark!r}, one of the model's own marks, which the model would not read as text. "
        "Leave the mark out, or write it in another way."
    )
