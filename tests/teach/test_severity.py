"""How far a thing may change: the changes by hand, and their curve on taught things of the world."""

import numpy as np
import pytest
from PIL import Image

from linkcontext.cli import main
from linkcontext.errors import InputError
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.severity import CHANGES, SEVERITIES, SeverityRow, describe_severity, severity_curve


@pytest.fixture(scope="module")
def named():
    dataset = open_data("world:3")
    classes = list(dataset.by_class().values())
    return {f"thing {n}": [dataset.path(item.id) for item in classes[n][:5]] for n in range(4)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_grows_with_its_severity_and_keeps_the_size(change):
    stream = np.random.default_rng(0)
    pixels = stream.integers(0, 255, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    image = Image.fromarray(pixels)
    distances = []
    for severity in SEVERITIES:
        changed = CHANGES[change](image, severity)
        assert changed.size == image.size
        assert changed.mode == "RGB"
        distances.append(float(np.abs(np.asarray(changed, float) - pixels).mean()))
    assert distances[0] == 0
    assert all(more > 0 for more in distances[1:])
    assert distances[5] > distances[1]


def test_unchanged_pictures_are_what_the_threshold_was_made_for(mini, named):
    learner = Learner(LocalModel(mini))
    learner.teach(named)
    rows = severity_curve(learner)
    threshold = learner.estimate_rejection_threshold()
    assert [row.change for row in rows] == list(CHANGES)
    for row in rows:
        assert row.pictures == 20
        assert row.accepted[0] == pytest.approx(threshold.recall, abs=0.051)
    covered = rows[-1]
    assert covered.right[5] < covered.right[0]


def test_few_pictures_have_no_acceptance_and_a_table_says_what_there_is(mini, named):
    learner = Learner(LocalModel(mini))
    learner.teach({name: paths[:2] for name, paths in named.items()})
    rows = severity_curve(learner)
    assert all(row.accepted == () for row in rows)
    assert len(describe_severity(rows)) == 2 + len(CHANGES)
    lines = describe_severity([SeverityRow("turned", (1.0,) * 6, (0.5,) * 6, 7)])
    assert lines[0].startswith("7 taught pictures")
    assert lines[2].split() == ["turned", "accepted", *["100%"] * 6]


def test_pictures_that_are_gone_or_single_are_a_sentence(mini, named, tmp_path):
    learner = Learner(LocalModel(mini))
    learner.teach({name: paths[:1] for name, paths in named.items()})
    with pytest.raises(InputError, match="every name has a single picture"):
        severity_curve(learner)
    copies = {}
    for name, paths in named.items():
        copies[name] = [tmp_path / f"{name}{n}.png" for n in range(2)]
        for path, copy in zip(paths, copies[name], strict=False):
            copy.write_bytes(path.read_bytes())
    learner = Learner(LocalModel(mini))
    learner.teach(copies)
    copies["thing 0"][0].unlink()
    with pytest.raises(InputError, match=r"thing 00\.png: .* this file no longer exists"):
        severity_curve(learner)


def test_the_command_line_draws_it(mini, named, tmp_path, capsys):
    learner = Learner(LocalModel(mini))
    learner.teach({name: paths[:2] for name, paths in list(named.items())[:2]})
    learner.save(tmp_path / "two.pack")
    main(["pack", str(tmp_path / "two.pack"), "--severity", str(tmp_path / "curve.png")])
    assert "blurred" in capsys.readouterr().out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        main(["pack", str(tmp_path / "two.pack"), "--severity", str(tmp_path / "curve")])
    assert "PNG or SVG" in capsys.readouterr().err
