"""Refuse texts that contain special tokens of the model: text from users must not control the prompt.

A tokenizer reads `<|end|>` or `<image>` as the end of a turn or as a picture wherever it occurs. Class names, questions
and clients' texts with such marks are therefore refused. They are not escaped, because many processors search for
marks in the finished text, and no escaped form is plain text to all of them.

Every prompt is checked when it is rendered (`episodes.render.render_text`, `scoring.remote.RemoteModel`). Commands that
know their texts beforehand call `refuse_marks` early, so that they can name the class, the file or the message.
"""

import re
from collections.abc import Iterable

from linkcontext.errors import UNDECODED, InputError
from linkcontext.records import Episode, Item

SHORTEST = 3  # characters of a mark that is refused; a padding token may be an ordinary "!"
# The marks of a model behind a server are unknown, so those of published models are refused.
USUAL_MARKS = re.compile(
    r"<[|｜][^<>\s]{1,60}[|｜]>|</?(?:s|pad|unk|bos|eos|mask|think|image|video|audio|img|image_soft_token|end_of_image|"
    r"start_of_image|(?:start|end)_of_turn|end_of_utterance|fake_token_around_image|im_start|im_end|im_patch)>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|IMG|IMG_BREAK|IMG_END|THINK)\]"
)


def marks_pattern(marks: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of a tokenizer's special tokens, the longest first."""
    chosen = sorted({mark for mark in marks if len(mark) >= SHORTEST}, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(map(re.escape, chosen)) or r"(?!)")


def refuse_marks(text: str, marks: re.Pattern[str], where: str) -> None:
    """Raise `InputError`, naming `where`, if a text contains a special token or is not valid UTF-8."""
    if UNDECODED.search(text):
        raise InputError(f"{where}: the text is not UTF-8. Write it in UTF-8.")
    if match := marks.search(text):
        raise marked(match[0], where)


def refuse_marked_episodes(episodes: Iterable[Episode], marks: re.Pattern[str]) -> None:
    """Apply `refuse_marks` to every name, question and answer of some episodes."""
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
    """Apply `refuse_marks` to the class names of some pictures."""
    for item in items:
        refuse_marks(item.name, marks, f"{item.path}: the class name {item.name!r}")


def refuse_marked_questions(items: Iterable[Item], marks: re.Pattern[str]) -> None:
    """Apply `refuse_marks` to the questions about some pictures and their answers."""
    for item in items:
        for question in item.questions:
            for text in (question.question, question.answer, *question.candidates):
                refuse_marks(text, marks, f"{item.path}: a question of the task {question.task}")


def marked(mark: str, where: str) -> InputError:
    """The error for a text that contains a special token."""
    return InputError(
        f"{where}: the text holds {mark!r}, a special token, which the model would not read as text. Leave it out, or "
        "write it in another way."
    )
