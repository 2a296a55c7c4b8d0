"""Binds functions to the events of the page, and shows their errors as notices."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from linkcontext.app import html
from linkcontext.app.session import Session
from linkcontext.errors import InputError

# There is one model: events that use it run one at a time.
QUEUED: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
UNQUEUED: dict[str, Any] = {"api_visibility": "private"}


def bind(
    event: Any,
    function: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    js: str | None = None,
    queued: bool = True,
    selection: bool = False,
) -> None:
    """Call `function` on an event, with the values of `inputs`, and put its results into `outputs`.

    An `InputError` is shown in the first output; file inputs among the others are cleared. With `selection` the
    function gets the session and the selection of a gallery.
    """

    def guarded(*values: Any) -> Any:
        try:
            return function(*values)
        except InputError as error:
            others = [None if isinstance(output, gr.File) else gr.skip() for output in outputs[1:]]
            sentence = html.notice([str(error)], True)
            return [sentence, *others] if others else sentence

    def guarded_selection(session: Session, selected: gr.SelectData) -> Any:
        return guarded(session, selected)

    options = QUEUED if queued else UNQUEUED
    event(guarded_selection if selection else guarded, list(inputs), list(outputs), js=js, **options)
