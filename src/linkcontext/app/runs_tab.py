"""The tab of the page that shows the reports of runs and compares two of them."""

from pathlib import Path
from typing import Any

import gradio as gr

from linkcontext.app import html, runs
from linkcontext.app.events import bind


def runs_tab(root: Path, tab: Any) -> None:
    """Add the elements of the tab and bind their events."""
    with gr.Row():
        first = gr.Dropdown(label="Run", choices=[], value=None, min_width=200)
        second = gr.Dropdown(label="Compare with", choices=[], value=None, min_width=200)
    with gr.Row():
        show = gr.Button("Open the report", variant="primary")
        compare = gr.Button("Compare the two")
    notice, content = gr.HTML(), gr.HTML(elem_id="run")

    def list_runs(a: str | None, b: str | None) -> Any:
        names = runs.run_names(root)
        sentences = [] if names else ["There are no runs yet. linkcontext eval makes them; --runs names their folder."]
        defaults = [*names, None, None][:2]
        chosen = [value if value in names else default for value, default in zip((a, b), defaults, strict=True)]
        return html.notice(sentences), *(gr.Dropdown(choices=names, value=value) for value in chosen)

    def show_report(name: str | None) -> Any:
        return html.notice([]), runs.report(root, name)

    def show_comparison(a: str | None, b: str | None) -> Any:
        return html.notice([]), runs.comparison(root, a, b)

    bind(tab.select, list_runs, [first, second], [notice, first, second])
    bind(show.click, show_report, [first], [notice, content])
    bind(compare.click, show_comparison, [first, second], [notice, content])
