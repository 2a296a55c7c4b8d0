"""ISEKAI: what its records become, what a policy that sees nothing gets, and what is said of bad ones."""

import json
import shutil
from collections import Counter

import pytest
from PIL import Image

from linkcontext.config import eval_config
from linkcontext.episodes.link import copy_first, copy_last
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import configured, run_folder
from linkcontext.evaluation.tasks.isekai import ISEKAI, open_isekai
from linkcontext.evaluation.validate import check_balance, check_blind_policies, check_planted_answers
from linkcontext.records import Candidate, Turn
from linkcontext.worlds.isekai import write_isekai


def record(query, label, **changes):
    """A record as published: icemics, which do not exist, and ice cream."""
    plain = {
        "image_name": query,
        "positive_list": ["icemic/1.png", "icemic/2.png"],
        "negative_list": ["cream/1.png", "cream/2.png"],
        "positive_promt": "icemic",
        "negative_promt": "ice cream",
        "label_name": label,
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


def benchmark(root, *records, below=""):
    """A folder with eight pictures and these records."""
    shade = 0
    for folder in ("icemic", "cream"):
        (root / below / folder).mkdir(parents=True)
        for number in range(1, 5):
            shade += 20
            Image.new("RGB", (8, 8), (shade, 0, 0)).save(root / below / folder / f"{number}.png")
    (root / "ISEKAI-10.json").write_text("".join(json.dumps(r) + "\n" for r in records))
    return root


def test_by_hand(tmp_path):
    root = benchmark(
        tmp_path / "b",
        record("icemic/3.png", "icemic"),
        record("cream/3.png", "ice cream"),
        record("cream/4.png", "Ice Cream"),
    )
    dataset, (episode,) = open_isekai(str(root), (0, 2, 1, 2), 0)
    assert (episode.id, episode.task, episode.names, episode.ways) == ("e00000", "isekai-10", "real", 2)
    assert episode.shots_per_class == (0, 1, 2)
    names = ("ice cream", "icemic")
    assert episode.candidates == tuple(Candidate(name, name, name) for name in names)
    assert episode.queries == (
        Turn("icemic/3.png", "icemic", "icemic"),
        Turn("cream/3.png", "ice cream", "ice cream"),
        Turn("cream/4.png", "ice cream", "ice cream"),
    )
    for k in (1, 2):  # the first k of each list, both classes in each round
        assert {turn.item for turn in episode.shown(k)} == {
            f"{f}/{i}.png" for f in ("icemic", "cream") for i in range(1, k + 1)
        }
        assert set(Counter(turn.answer for turn in episode.shown(k)).values()) == {k}
    assert [item.id for item in dataset.items] == [
        *("cream/1.png", "cream/2.png", "cream/3.png", "cream/4.png"),
        *("icemic/1.png", "icemic/2.png", "icemic/3.png"),
    ]
    assert dataset.problems == ()


def test_lists_of_their_own_are_an_episode_of_their_own_and_swapped_sides_are_not(tmp_path):
    turned = {
        "positive_list": ["cream/1.png", "cream/2.png"],
        "negative_list": ["icemic/1.png", "icemic/2.png"],
        "positive_promt": "ice cream",
        "negative_promt": "icemic",
    }
    root = benchmark(
        tmp_path / "b",
        record("icemic/3.png", "icemic"),
        record("cream/3.png", "ice cream", **turned),
        record("icemic/4.png", "icemic", positive_list=["icemic/2.png", "icemic/1.png"]),
    )
    _, episodes = open_isekai(str(root), (1,), 0)
    assert [len(episode.queries) for episode in episodes] == [2, 1]
    assert "icemic/2.png" in {turn.item for turn in episodes[1].support}


def test_pictures_may_lie_deeper_and_a_copy_of_a_query_is_no_support(tmp_path):
    root = benchmark(tmp_path / "b", record("icemic/3.png", "icemic"), record("icemic/4.png", "icemic"), below="images")
    (root / "images/icemic/2.png").write_bytes((root / "images/icemic/3.png").read_bytes())
    dataset, (episode,) = open_isekai(str(root), (2,), 0)
    assert [turn.item for turn in episode.queries] == ["images/icemic/4.png"]
    assert "1 (icemic/3.png)" in dataset.problems[0]
    assert (dataset.root / dataset.item("images/icemic/4.png").path).is_file()
    assert open_isekai(str(root), (1,), 0)[0].problems == ()  # at one shot per class the copy is not shown


def test_nobody_gains_by_not_looking(tmp_path):
    for kind in ("10", "pair"):
        write_isekai(tmp_path / kind, kind, 1, groups=3, images=8, size=16)
        _, episodes = open_isekai(str(tmp_path / kind), (0, 1, 2, 4), 0)
        assert {episode.task for episode in episodes} == {f"isekai-{kind}"}
        assert len(episodes) == 3
        assert sum(len(episode.queries) for episode in episodes) == 3 * 8
        asked = eval_config(data=str(tmp_path / kind), names="real").episodes
        assert check_balance(episodes, asked).endswith(f"{3 * 4:,} supports")
        assert "exactly 1/candidates" in check_blind_policies(episodes)
        for right in (True, False):
            assert check_planted_answers(episodes, SCAFFOLDS["turns"], right=right)
        for policy in (copy_first, copy_last):
            for k in (1, 2, 4):
                hits = [q.class_id == policy(e.shown(k)) for e in episodes for q in e.queries]
                assert sum(hits) * 2 == len(hits)
        for place in range(2):  # always the same of the two names
            hits = [q.class_id == e.candidates[place].class_id for e in episodes for q in e.queries]
            assert sum(hits) * 2 == len(hits)


def test_the_order_of_a_support_hangs_on_the_seed_and_the_lists_alone(tmp_path):
    write_isekai(tmp_path / "w", "pair", 1, groups=3, images=8, size=16)
    supports = [e.support for e in open_isekai(str(tmp_path / "w"), (4,), 0)[1]]
    assert supports == [e.support for e in open_isekai(str(tmp_path / "w" / "ISEKAI-pair.json"), (4, 1), 0)[1]]
    assert supports != [e.support for e in open_isekai(str(tmp_path / "w"), (4,), 1)[1]]
    file = tmp_path / "w" / "ISEKAI-pair.json"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert supports[::-1] == [e.support for e in open_isekai(str(tmp_path / "w"), (4,), 0)[1]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"positive_promt": None, "positive_prompt": "icemic"}, "missing positive_promt; unknown positive_prompt"),
        ({"label_name": "bus"}, "label_name 'bus' must be one of two different names"),
        ({"negative_promt": "Icemic"}, "two different names"),
        ({"image_name": 3}, "image_name must be a text, and is 3"),
        ({"positive_promt": ["icemic"]}, "positive_promt must be a text"),
        ({"positive_list": "icemic/1.png"}, "positive_list must be a list"),
        ({"negative_list": ["cream/1.png"]}, "2 shots per class need more pictures than the 1 of its lists"),
        ({"image_name": "cream/1.png"}, "cream/1.png is called both 'icemic' and 'ice cream'"),
    ],
)
def test_bad_records_are_a_sentence(tmp_path, changes, sentence):
    root = benchmark(tmp_path / "b", record("icemic/4.png", "icemic"), record("icemic/3.png", "icemic", **changes))
    with pytest.raises(InputError) as caught:
        open_isekai(str(root), (2,), 0)
    assert sentence in str(caught.value)
    assert "ISEKAI-10.json" in str(caught.value)


def test_all_missing_pictures_are_named_at_once(tmp_path):
    root = benchmark(tmp_path / "b", record("icemic/3.png", "icemic"), record("icemic/9.png", "icemic"))
    for number in range(1, 3):
        (root / "cream" / f"{number}.png").unlink()
    (root / "icemic" / "2.png").write_text("no picture")
    (root / "cream" / "3.png").write_text("nobody asks for this one")
    with pytest.raises(InputError) as caught:
        open_isekai(str(root), (0,), 0)
    assert "missing: 4 of 6 (cream/1.png, cream/2.png, icemic/2.png, icemic/9.png)" in str(caught.value)
    assert "icemic/2.png: not a picture" in str(caught.value)
    assert "cream/3.png" not in str(caught.value)


def test_where_nothing_is_unpacked_a_few_names_will_do(tmp_path):
    root = benchmark(tmp_path / "b", *(record(f"icemic/{number}.png", "icemic") for number in range(5, 30)))
    shutil.rmtree(root / "icemic")
    shutil.rmtree(root / "cream")
    with pytest.raises(InputError, match=r"missing: 29 of 29 \(cream/1.png, .* and 24 more\)"):
        open_isekai(str(root), (0,), 0)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"no such folder.*hf:ISEKAI-Portal/ISEKAI-10.*linkcontext world --isekai"):
        open_isekai(str(tmp_path / "nowhere"), (1,), 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no JSON file"):
        open_isekai(str(tmp_path / "empty"), (1,), 0)
    root = benchmark(tmp_path / "b", record("icemic/3.png", "icemic"))
    (root / "ISEKAI-pair.json").write_text("")
    with pytest.raises(InputError, match="has 2 JSON files"):
        open_isekai(str(root), (1,), 0)
    with pytest.raises(InputError, match="no records"):
        open_isekai(str(root / "ISEKAI-pair.json"), (1,), 0)
    assert len(open_isekai(str(root / "ISEKAI-10.json"), (1,), 0)[1]) == 1
    with pytest.raises(InputError, match="none below 0"):
        open_isekai(str(root / "ISEKAI-10.json"), (-1, 1), 0)


def test_without_a_network_the_hub_is_a_sentence(monkeypatch, tmp_path):
    import huggingface_hub  # noqa: PLC0415

    def fails(*_, **__):
        raise OSError("no route\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(InputError, match=r"^hf:ISEKAI-Portal/ISEKAI-10: cannot be fetched \(no route\)"):
        open_isekai("hf:ISEKAI-Portal/ISEKAI-10", (1,), 0)
    root = benchmark(tmp_path / "b", record("icemic/3.png", "icemic"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(root))
    assert len(open_isekai("hf:ISEKAI-Portal/ISEKAI-10", (1,), 0)[1]) == 1


def test_the_benchmark_sets_what_is_its_own():
    asked = eval_config(data="somewhere", shots=(0, 1), seed=3)
    config = configured(asked, ISEKAI)
    e = config.episodes
    assert (e.data, e.shots, e.seed, e.names) == ("somewhere", (0, 1), 3, "real")
    assert run_folder(asked, "isekai").as_posix() == "runs/mini-isekai-somewhere-likelihood-seed3"
    assert run_folder(eval_config(data="somewhere", out="here"), "isekai").as_posix() == "here"
    assert configured(config, ISEKAI) == config
    with pytest.raises(InputError, match="--ways, --queries: --benchmark isekai brings its own"):
        configured(eval_config(data="somewhere", ways=3, queries=6), ISEKAI)
    with pytest.raises(InputError, match="needs --data"):
        configured(eval_config(), ISEKAI)


def test_one_picture_under_two_names_is_named(tmp_path):
    root = benchmark(tmp_path / "b", record("icemic/3.png", "icemic"), record("cream/3.png", "ice cream"))
    Image.open(root / "icemic" / "1.png").save(root / "cream" / "2.png", compress_level=1)
    dataset, _ = open_isekai(str(root), (1,), 0)
    assert "have two names: 1 (cream/2.png and icemic/1.png)" in dataset.problems[0]
