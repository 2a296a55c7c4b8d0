import xml.etree.ElementTree as ET

import pytest

from linkcontext.report.plots import COLOURS, accuracy_by_shots


def a_row(shots, accuracy=0.75, scoring="likelihood_sum", centroid=0.9, ways=2):
    return {
        "task": "naming",
        "names": "pseudo",
        "ways": ways,
        "shots_per_class": shots,
        "scoring": scoring,
        "accuracy": accuracy,
        "ci95": [accuracy - 0.05, accuracy + 0.04],
        "chance": 1 / ways,
        "baselines": {"nearest_centroid": centroid if shots else None},
    }


def sweep(**change):
    return [a_row(k, 0.5 + 0.02 * k, **change) for k in (0, 1, 4, 16)]


def texts(svg):
    return [e.text for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_an_element_for_a_page_in_the_colours_of_the_page():
    svg = accuracy_by_shots({"mini": sweep()})
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Accuracy by shots per class: mini"
    assert (root.get("width"), root.get("height")) == (None, None)
    assert root.get("viewBox")
    assert "currentColor" in svg
    assert f"var(--series-0, {COLOURS[0]})" in svg
    assert "#ffffff" not in svg  # a ground of its own would be a white box on a dark page


def test_every_line_is_named():
    rows = sweep() + sweep(scoring="generate")
    assert texts(accuracy_by_shots({"mini": rows}))[-4:] == [
        "likelihood sum",
        "generate",
        "nearest centroid",
        "chance",
    ]
    both = texts(accuracy_by_shots({"mini": sweep(), "mini-base": sweep()}))
    assert both[-5:] == [
        "mini: likelihood sum",
        "mini-base: likelihood sum",
        "mini: nearest centroid",
        "mini-base: nearest centroid",
        "chance",
    ]


def test_shot_counts_stand_in_order_and_evenly():
    svg = ET.fromstring(accuracy_by_shots({"mini": sweep()[::-1]}))
    ticks = [g for g in svg.iter("{http://www.w3.org/2000/svg}g") if g.get("id", "").startswith("xtick_")]
    labels = [next(g.iter("{http://www.w3.org/2000/svg}text")) for g in ticks]
    assert [label.text for label in labels] == ["0", "1", "4", "16"]


def test_no_centroid_no_line():
    assert "nearest centroid" not in texts(accuracy_by_shots({"mini": [a_row(0)]}))


@pytest.mark.parametrize("label", ["$x", "a_$b$", "_hidden", "模型", '<script>"&'])
def test_any_name_of_a_run_is_text(label):
    svg = accuracy_by_shots({label: sweep(), "other": sweep()})
    assert texts(svg)[-5].lstrip("\u2060") == f"{label}: likelihood sum"
    assert ET.fromstring(svg).get("aria-label").endswith(f"{label}, other")


def test_the_same_plot_is_the_same_text_and_ids_of_two_plots_differ():
    one, again, other = (accuracy_by_shots({"mini": sweep(centroid=c)}) for c in (0.9, 0.9, 0.8))
    assert one == again

    def clips(svg):
        return {e.get("id") for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}clipPath")}

    assert clips(one)
    assert clips(one).isdisjoint(clips(other))


def test_many_lines_differ_in_more_than_colour():
    svg = accuracy_by_shots({str(i): sweep() for i in range(7)})
    assert svg.count(f"var(--series-0, {COLOURS[0]})") > svg.count(f"var(--series-1, {COLOURS[1]})")


def test_one_plot_has_one_chance_level():
    with pytest.raises(ValueError, match="one \\(task, names, ways\\)"):
        accuracy_by_shots({"mini": [*sweep(), a_row(1, ways=3)]})
    with pytest.raises(ValueError, match=r"got \[\]"):
        accuracy_by_shots({})
