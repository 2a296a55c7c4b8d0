"""The paper's figures, and how they lie beside a run's."""

import pytest

from linkcontext.evaluation.published_results import PUBLISHED, THIS_RUN, benchmark, published_beside


def row(shots_per_class, accuracy, scoring="likelihood_sum", ways=2):
    return {
        "task": "isekai-10",
        "names": "real",
        "ways": ways,
        "shots_per_class": shots_per_class,
        "scoring": scoring,
        "accuracy": accuracy,
        "ci95": [0.0, 1.0],
        "n_queries": 320,
    }


@pytest.mark.parametrize(
    ("name", "model", "first", "last", "columns"),
    [
        ("isekai-10", "LCL [mix]", 0.68, 0.62, 8),
        ("isekai-10", "OpenFlamingo", 0.46, 0.46, 8),
        ("isekai-pair", "LCL [2-way-random]", 0.43, 0.49, 8),
        ("isekai-pair", "Otter", 0.01, 0.01, 8),
        ("imagenet-100", "LCL [2-way-weight]", 0.0, 0.79, 9),
        ("imagenet-100", "Vanilla-Shikra", 0.05, 0.0, 9),
    ],
)
def test_figures_of_the_paper(name, model, first, last, columns):
    table = published_beside([], name)
    (line,) = [line for line in table.lines if line.model == model]
    values = list(line.accuracy.values())
    assert (values[0], values[-1], len(values)) == (first, last, columns)
    assert line.origin == PUBLISHED
    assert table.label == f"{name}: published, other images, total shots"
    assert line.rows == {}
    assert table.total_shots == ((0,) if columns == 9 else ()) + (2, 4, 6, 8, 10, 12, 14, 16)
    assert "arXiv 2308.07891" in table.source


def test_shots_are_aligned_by_their_total():
    rows = [row(0, 0.5), row(1, 0.7), row(16, 0.9), row(2, 0.6), row(1, 0.4, "lcl_legacy")]
    table = published_beside(rows, "isekai-10")
    assert table.total_shots == (0, 2, 4, 6, 8, 10, 12, 14, 16, 32)
    mine = [line for line in table.lines if line.origin == THIS_RUN]
    assert [line.model for line in mine] == ["real names, 2-way, likelihood sum", "real names, 2-way, lcl legacy"]
    assert mine[0].accuracy == {0: 0.5, 2: 0.7, 4: 0.6, 32: 0.9}
    assert mine[0].rows[2] is rows[1]
    assert mine[1].accuracy == {2: 0.4}
    assert len(table.lines) == 5 + 2
    assert published_beside([row(1, 0.3, ways=4)], "isekai-10").lines[-1].accuracy == {4: 0.3}


def test_which_table_belongs_to_a_run():
    assert benchmark("some/folder", "isekai-pair") == "isekai-pair"
    assert benchmark("imagenet-100:/data/imagenet", "link-neighbours") == "imagenet-100"
    assert benchmark("imagenet-100:/data/imagenet", "link") is None  # random pairs are not the paper's
    assert benchmark("world:0", "link") is None
    assert benchmark("imagenet-900:/data/imagenet", "link") is None
