"""Means over subjects: subjects that are asked about the same few pictures are no sample of their own."""

from linkcontext.evaluation.aggregate import mean_rows
from linkcontext.evaluation.metrics import grouped, metric_rows
from linkcontext.records import Candidate, Episode, Prediction, Turn

CANDIDATES = (Candidate("a", "red", "red"), Candidate("b", "blue", "blue"))


def asked(subjects: int, pictures: int):
    """`subjects` tasks of six questions each about `pictures` pictures; the last picture of all is answered wrongly."""
    episodes = {
        f"e{s}-{q}": Episode(
            f"e{s}-{q}",
            f"attribute/kind{s} open",
            "real",
            1,
            (0,),
            CANDIDATES,
            (),
            (Turn(f"{(s * 6 + q) % pictures}.png", "a", "red"),),
        )
        for s in range(subjects)
        for q in range(6)
    }
    predictions = [
        Prediction(
            e.id,
            e.query_id(0),
            0,
            (),
            "a",
            "blue" if e.queries[0].item == f"{pictures - 1}.png" else "red",
            {},
            "0" * 64,
            (),
        )
        for e in episodes.values()
    ]
    return episodes, predictions


def test_few_pictures_make_a_wide_interval_of_the_mean():
    narrow, wide = (
        next(
            line
            for line in mean_rows(metric_rows(*asked(20, n)), groups=grouped(*asked(20, n)))
            if line["tasks"] == "attribute"
        )
        for n in (120, 3)
    )
    assert (narrow["n_pictures"], wide["n_pictures"]) == (120, 3)
    assert wide["ci95"][1] - wide["ci95"][0] > 0.6
    assert narrow["ci95"][1] - narrow["ci95"][0] < 0.1
    without = next(line for line in mean_rows(metric_rows(*asked(20, 3))) if line["tasks"] == "attribute")
    assert without["ci95"] == [without["accuracy"]] * 2  # each subject has two of six wrong: no spread between them
