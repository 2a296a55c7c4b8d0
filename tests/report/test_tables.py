import io

import pytest
from rich.console import Console

from linkcontext.report.tables import (
    Grid,
    comparison_grid,
    comparison_table,
    format_difference,
    format_interval,
    format_share,
    lift_constants,
    markdown,
    metrics_grid,
    metrics_table,
    pictures_note,
    power_note,
)


def a_row(**change):
    baselines = {
        "copy_first": 0.5,
        "copy_last": 0.5,
        "majority": None,
        "nearest_centroid": 0.9612,
        "nearest_support": None,
    }
    row = {
        "task": "naming",
        "names": "pseudo",
        "ways": 2,
        "shots_per_class": 4,
        "scoring": "likelihood_sum",
        "accuracy": 0.9534,
        "ci95": [0.9411, 0.9632],
        "ci95_classes": None,
        "n_queries": 2048,
        "n_episodes": 1024,
        "n_pictures": 1800,
        "answered": 1.0,
        "chance": 0.5,
        "truth": None,
        "shorter": None,
        "baselines": baselines,
    }
    return row | change


def a_comparison(**change):
    row = {k: a_row()[k] for k in ("task", "names", "ways", "shots_per_class", "scoring", "chance")}
    row |= {
        "n_queries": 80,
        "n_episodes": 40,
        "n_pictures": 60,
        "unpaired_a": 0,
        "unpaired_b": 6,
        "accuracy_a": 0.9,
        "accuracy_b": 0.8,
    }
    return row | {"difference": -0.1, "ci95": [-0.2, 0.0001], "p": 0.00004, "p_holm": 0.002} | change


def printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "text"), [(0.9534, ".953"), (1.0, "1.000"), (0.0, ".000"), (0.99951, "1.000"), (None, "–")]
)
def test_shares_by_hand(value, text):
    assert format_share(value) == text


def test_bounds_and_signs_by_hand():
    assert format_interval([0.9411, 1.0]) == "[.941, 1.000]"
    assert format_interval(None) == "–"
    assert [format_difference(v) for v in (0.0123, -0.0123, -0.0001, 0.0, -1.0)] == [
        "+.012",
        "−.012",
        ".000",
        ".000",
        "−1.000",
    ]


def test_markdown_by_hand():
    assert markdown(metrics_grid([a_row()])) == (
        "| episodes | shots per class | scoring | accuracy [95 %] | new classes [95 %] "
        "| queries / episodes / pictures | chance | copy first | copy last | nearest centroid | nearest support |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| naming, pseudo names, 2-way | 4 | likelihood sum | .953 [.941, .963] | – | 2,048 / 1,024 / 1,800 "
        "| .500 | .500 | .500 | .961 | – |\n"
    )


def test_a_name_cannot_break_a_markdown_table():
    table = markdown(Grid(("a", "b"), (("x|y\nz", "1"),)))
    assert table.splitlines()[2] == "| x\\|y z | 1 |"


def test_columns_that_say_something_are_there():
    assert "answered" not in metrics_grid([a_row()]).headings
    grid = metrics_grid([a_row(), a_row(scoring="generate", answered=0.91, truth=0.25)])
    assert grid.headings[-2:] == ("answered", "true name")
    assert [line[-2:] for line in grid.lines] == [("1.000", "–"), (".910", ".250")]


def test_what_is_the_same_everywhere_is_said_once():
    said, grid = lift_constants(metrics_grid([a_row(), a_row(shots_per_class=16, chance=0.25)]))
    assert said == "naming, pseudo names, 2-way; queries / episodes / pictures 2,048 / 1,024 / 1,800"
    assert grid.headings[0] == "shots per class"
    assert "chance" in grid.headings
    said, grid = lift_constants(metrics_grid([a_row(), a_row(names="real")]))
    assert grid.headings[0] == "episodes"


def test_a_terminal_of_80_columns_cuts_no_figure():
    sweep = [
        a_row(
            shots_per_class=k,
            scoring=s,
            answered=a,
            accuracy=1.0,
            ci95=[0.9981, 1.0],
            ci95_classes=[0.9, 1.0],
        )
        for k in (0, 1, 16)
        for s, a in (("likelihood_sum", 1.0), ("generate", 0.875))
    ]
    text = printed(metrics_table(sweep))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("1.000 [.998, 1.000]") == 6
    text = " ".join(text.split())  # the line above the table may break
    for figure in ("2,048 / 1,024", "chance .500", ".961", ".875", "[.900,", "generate"):
        assert figure in text


def test_a_comparison_by_hand():
    line = comparison_grid([a_comparison()]).lines[0]
    assert line[3:] == (".900", ".800", "−.100 [−.200, .000]", "<.001", "80 / 40 / 60", "0 / 6", ".500")
    assert "−.100 [−.200, .000]" in printed(comparison_table([a_comparison()]))


def test_several_comparisons_have_an_adjusted_p():
    grid = comparison_grid([a_comparison(), a_comparison(shots_per_class=16, p_holm=0.5)])
    assert grid.headings[-1] == "p (Holm)"
    assert [line[-1] for line in grid.lines] == [".002", ".500"]
    assert "p (Holm)" not in comparison_grid([a_comparison()]).headings
    text = printed(comparison_table([a_comparison(), a_comparison(scoring="generate", shots_per_class=16)]))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_can_be_shown_by_hand():
    # 1.962 errors to either side with 1,023 degrees of freedom, and .842 more for four runs of five.
    assert power_note([a_row(ci95=[0.9, 0.96])]) == (
        "Smallest detectable difference: .043 (2,048 queries in 1,024 episodes, "
        "80 % power, two-sided .05, clustered by episode and by query picture)."
    )
    note = power_note([a_row(ci95=[0.9, 0.96]), a_row(ci95=[0.88, 0.96], n_queries=8)])
    assert note.startswith("Smallest detectable difference: .043 to .057, by row (")
    assert "No difference is detectable" in power_note([a_row(n_episodes=1)])
    assert "detectable difference: .043" in " ".join(printed(metrics_table([a_row(ci95=[0.9, 0.96])])).split())


def test_few_pictures_are_a_warning():
    assert pictures_note([a_row(n_pictures=2048)]) == ""
    assert pictures_note([a_row()]) == "The 2,048 queries show 1,800 distinct pictures; intervals count pictures."
    text = " ".join(printed(metrics_table([a_row(), a_row(n_queries=600, n_pictures=17)])).split())
    assert "Warning: the 600 queries show 17 distinct pictures. Intervals count pictures" in text


def test_markup_in_a_name_is_text():
    rows = [a_row(names="[red]x[/red]"), a_row(names="[b]y[/b]")]
    assert "[red]x[/red] names" in printed(metrics_table(rows[:1]))  # above the lines
    assert "[b]y[/b] names" in printed(metrics_table(rows), width=160)  # in a column of its own
