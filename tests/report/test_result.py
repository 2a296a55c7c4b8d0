"""What an evaluation returns, as a table, a plot and a page."""

import matplotlib.pyplot as plt
import pytest

import linkcontext
from linkcontext.errors import InputError
from linkcontext.report.result import EvaluationResult


@pytest.fixture(scope="module")
def result(nano, pictures, tmp_path_factory):
    learner = linkcontext.load(nano, device="cpu")
    return linkcontext.evaluate(
        learner, data=pictures, shots=1, episodes=2, out=tmp_path_factory.mktemp("runs") / "<one>"
    )


def test_one_number_of_shots_is_enough(result):
    assert {row["shots_per_class"] for row in result.rows} == {1}
    assert result.report.is_file()


def test_it_is_short_in_a_terminal_and_a_table_in_a_notebook(result):
    assert repr(result).startswith("EvaluationResult(1 shots .")
    assert len(repr(result)) < 250
    html = result._repr_html_()
    assert "<svg" in html
    assert html.count("<tr>") == len(result.rows) + 1
    assert "&lt;one&gt;" in html
    assert "<one>" not in html


def test_it_is_drawn_on_its_own_axes_or_on_given_ones(result):
    axes = result.plot()
    assert axes.get_xlabel() == "shots per class"
    assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "chance" or axes.lines
    other = plt.subplots()[1]
    assert result.plot(other) is other
    plt.close("all")
    with pytest.raises(InputError, match="name one of the tasks of this run: link"):
        result.plot(task="count")


def test_runs_of_several_tasks_name_one(result, tmp_path):
    rows = [{**row, "task": task} for task in ("count", "attribute") for row in result.rows]
    several = EvaluationResult({"rows": rows, "counters": {}}, tmp_path)
    with pytest.raises(InputError, match="count, attribute"):
        several.plot()
    assert several.plot(task="count").get_ylabel() == "accuracy"
    assert "<svg" not in several._repr_html_()
    plt.close("all")
    questions = EvaluationResult({"rows": rows, "counters": {"questions": 3}}, tmp_path)
    with pytest.raises(InputError, match="nothing to plot by shots"):
        questions.plot()
    assert "more rows" in questions._repr_html_()


def test_pandas_is_asked_for_where_it_is_missing(result, monkeypatch):
    pytest.importorskip("pandas")
    assert list(result.to_pandas()["shots_per_class"]) == [row["shots_per_class"] for row in result.rows]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        result.to_pandas()
