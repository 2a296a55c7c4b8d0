"""Binds functions to the events of the page, finds the session of the visitor, and shows errors as notices."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from linkcontext.app import html
from linkcontext.app.visitors import Visitors
from linkcontext.errors import InputError

# There is one model: events that use it run one at a time.
QUEUED: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
UNQUEUED: dict[str, Any] = {"api_visibility": "private"}
# Bring a part of the page into view if it is not, as on a phone, where the parts are below each other.
SHOW = "() => window.linkcontextShow({!r})"


@dataclass(frozen=True)
class Events:
    """The sessions of visitors, and the element that keeps the key of a browser."""

    visitors: Visitors
    key: Any  # a gradio.BrowserState

    def bind(
        self,
        event: Any,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        show: str = "",
        js: str | None = None,
        carries_data: bool = False,
        has_own_progress: bool = False,
    ) -> Any:
        """Call `function` on an event, with the visitor's session and the values of `inputs`; returns the event's end.

        Its results are put into `outputs`, as `bind` does. `show` is the id of an element to bring into view at the
        end. With `carries_data` the function gets the session and the data of a custom event of an HTML element. What
        Gradio shows of the progress is left out with `has_own_progress`.
        """

        def with_session(key: str, *values: Any) -> Any:
            return function(self.visitors.session(key), *values)

        called = _guarded(with_session, outputs)

        def with_data(key: str, data: gr.EventData) -> Iterator[Any]:
            yield from called(key, data._data)

        end = event(
            with_data if carries_data else called,
            [self.key, *inputs],
            list(outputs),
            js=js,
            show_progress="hidden" if has_own_progress else "minimal",
            **QUEUED,
        )
        if show:
            end.then(fn=None, js=SHOW.format(show))
        return end


def bind(event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Call `function`, which needs neither a session nor the model, on an event, with the values of `inputs`.

    Its results are put into `outputs`; a function that yields does so several times. An `InputError` is shown in the
    first output; file inputs among the others are cleared.
    """
    event(_guarded(function, outputs), list(inputs), list(outputs), **UNQUEUED)


def _guarded(function: Callable[..., Any], outputs: Sequence[Any]) -> Callable[..., Iterator[Any]]:
    """The function, with its errors as notices in the first of its outputs."""

    def guarded(*values: Any) -> Iterator[Any]:
        try:
            result = function(*values)
            if isinstance(result, Iterator):
                yield from result
            else:
                yield result
        except InputError as error:
            others = [None if isinstance(output, gr.File) else gr.skip() for output in outputs[1:]]
            sentence = html.notice([str(error)], True)
            yield [sentence, *others] if others else sentence

    return guarded
