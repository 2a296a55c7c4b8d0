from pathlib import Path

import pytest

from linkcontext.config import EpisodeConfig
from linkcontext.data.manifest import Dataset
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_configured, with_fitting_shots
from linkcontext.records import Item


def classes(*counts):
    """A data set with so many different pictures in each of its classes."""
    ids = [
        (f"class{letter}", f"class{letter}/{n}.png")
        for letter, count in zip("abcdef", counts, strict=False)
        for n in range(count)
    ]
    return Dataset(
        Path("pictures"), tuple(Item(path, path, class_id, class_id, f"of {path}") for class_id, path in ids)
    )


@pytest.mark.parametrize(
    ("counts", "shots"),
    [
        ((17, 17), (0, 1, 2, 4, 8, 16)),
        ((8, 8, 8), (0, 1, 2, 4)),
        ((9, 9, 2), (0, 1, 2, 4, 8)),  # two classes are enough for an episode; the third is left out, as before
        ((2, 2), (0, 1)),
    ],
)
def test_default_shots_are_those_that_the_classes_have_pictures_for(counts, shots):
    dataset, options = classes(*counts), EpisodeConfig(episodes=3)
    fitting, sentences = with_fitting_shots(options, dataset)
    assert fitting.shots == shots
    assert {episode.shots_per_class for episode in draw_configured(fitting, dataset).episodes} == {shots}
    listed = " ".join(map(str, shots))
    assert sentences == (
        []
        if shots == options.shots
        else [
            f"Shots per class: {listed}, because the classes have too few pictures for all of the default "
            "(0 1 2 4 8 16)."
        ]
    )


def test_shots_that_were_chosen_and_other_options_stay():
    dataset = classes(8, 8)
    for options in (EpisodeConfig(shots=(8,)), EpisodeConfig(tasks=("all",)), EpisodeConfig(choose_from=16)):
        assert with_fitting_shots(options, dataset) == (options, [])


def test_single_pictures_are_refused_for_the_smallest_shots():
    fitting, _ = with_fitting_shots(EpisodeConfig(), classes(1, 1))
    with pytest.raises(InputError, match=r"classa \(1 of 2 pictures needed\)"):
        draw_configured(fitting, classes(1, 1))
