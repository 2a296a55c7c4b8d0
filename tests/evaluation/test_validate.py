"""What validate finds: nothing in good episodes, and each planted fault by its episode's name."""

import dataclasses
import json
import re
import shutil

import pytest

from linkcontext import cli
from linkcontext.config import EpisodeConfig, eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.metrics import SCORINGS
from linkcontext.evaluation.runner import evaluator_of, validate
from linkcontext.evaluation.validate import (
    check_answer_prefixes,
    check_balance,
    check_blind_policies,
    check_context_length,
    check_leaks,
    check_planted_answers,
    near_copies_in_supports,
    token_lines,
)
from linkcontext.models.loading import load_model
from linkcontext.records import Question
from linkcontext.scoring.local import LocalModel
from linkcontext.worlds.folder import write_seed

TURNS = SCAFFOLDS["turns"]
PLAN = EpisodePlan(ways=2, shots_per_class=(0, 1, 2), episodes=3)
ASKED = EpisodeConfig()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "w"
    write_seed(root, 4, 5, 3, 32)
    return open_folder(root)


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


@pytest.fixture
def episodes(world):
    return sample_episodes(world, PLAN).episodes


@pytest.fixture
def scorer(model, world):
    return evaluator_of(eval_config(), LocalModel(model), world, TURNS).scorer


def options(world, nano, **changes):
    return eval_config(**{"model": str(nano), "data": str(world.root), "shots": (0, 1, 2), "episodes": 3, **changes})


def other(episode, turn):
    """The same picture under the other class."""
    (candidate,) = (c for c in episode.candidates if c.class_id != turn.class_id)
    return dataclasses.replace(turn, class_id=candidate.class_id, answer=candidate.name)


def spoilt(episodes, **changes):
    """The second episode with something changed."""
    return (episodes[0], dataclasses.replace(episodes[1], **changes), episodes[2])


def test_the_tokens_of_pictures_are_shown_and_large_ones_advised_against(nano, world):
    config = options(world, nano)
    lines = validate(config, LocalModel(load_model(str(nano), device="cpu")))
    (line,) = [line for line in lines if line.startswith("tokens of a picture")]
    assert re.fullmatch(r"tokens of a picture: 5 to 5, median 5; the largest is \S+ with 32 x 32 pixels", line)
    episodes = sample_episodes(world, PLAN).episodes
    used = sorted({turn.item for e in episodes for turn in (*e.support, *e.queries)})
    scorer = evaluator_of(config, LocalModel(load_model(str(nano), device="cpu")), world, TURNS).scorer
    tokens = dict.fromkeys(used, 3) | {used[0]: 1025, used[1]: 1}  # of 4,096
    shown, advice = token_lines(episodes, scorer, tokens.get)
    assert shown == f"tokens of a picture: 1 to 1,025, median 3; the largest is {used[0]} with 32 x 32 pixels"
    assert "more than a quarter of the model's context of 4,096" in advice
    assert advice.endswith("--max-pixels 255")  # 32 * 32 * 4096 / (16 * 1025) gives a sixteenth of the context
    assert len(token_lines(episodes, scorer, (dict.fromkeys(used, 3) | {used[0]: 1024}).get)) == 1


def test_good_episodes_pass_with_their_counts(world, nano, model):
    lines = validate(options(world, nano), LocalModel(model))
    assert lines[0] == "3 episodes of 3 of 4 classes were drawn"
    assert lines[1:3] == [
        f"planted {kind} answers score {worth} by {', '.join(SCORINGS)}: all 18"
        for kind, worth in (("right", 1), ("wrong", 0))
    ]
    # Two queries and four support turns in each of three episodes; two beginnings each.
    assert lines[3] == "no support contains its query's picture or a copy of it: 24 pairs"
    assert lines[4] == "every prefix of a support is balanced: 6 supports"
    # Two constant answers, and two copies at each of two shots per class above 0.
    assert lines[5] == "policies blind to the query are right in exactly 1/candidates of each episode: 18 tried"
    assert lines[7] == "the prompt's tokens are a prefix of the conversation with each answer: 6 compared"


def test_the_arithmetic_of_the_longest_prompt(world, nano, model):
    line = validate(options(world, nano), LocalModel(model))[6]
    # 32 pixels in patches of 16 and the pooled token: 5 tokens a picture; two a class and the query are 5.
    assert line.startswith("every prompt fits: 18 prompts, the longest e0000")
    _, _, counted = line.partition("at 2 shots per class: ")
    words = counted.split()
    assert words[:3] == ["5", "pictures", "25"]
    text, answer, total = int(words[5]), int(words[8]), int(words[10])
    assert 25 + text + answer == total
    assert words[11:] == ["of", "4096", "tokens"]


@pytest.mark.parametrize("changes", [{"order": "shuffled"}, {"ways": 3, "queries": 6}, {"names": "swapped"}])
@pytest.mark.parametrize("wording", ["turns", "single_turn", "lcl"])
def test_every_kind_of_episode_passes(world, nano, model, changes, wording):
    assert len(validate(options(world, nano, scaffold=wording, shots=(0, 2), **changes), LocalModel(model))) == 10


def test_classes_left_out_are_listed(world, nano, model, tmp_path):
    shutil.copytree(world.root, tmp_path / "w")
    small = sorted(world.names())[0]
    for path in sorted((tmp_path / "w" / small).iterdir())[2:]:
        path.unlink()
    (tmp_path / "w" / "manifest.jsonl").unlink()
    lines = validate(options(Dataset(tmp_path / "w", ()), nano), LocalModel(model))
    assert lines[:2] == ["3 episodes of 3 of 4 classes were drawn", f"{small}: left out, 2 of 3 pictures needed"]


def test_the_querys_picture_in_its_support_is_found(world, episodes):
    check_leaks(episodes, world, ASKED)
    query, support = episodes[1].queries[0], episodes[1].support
    bad = spoilt(episodes, support=(dataclasses.replace(support[0], item=query.item), *support[1:]))
    with pytest.raises(InputError, match=f"e00001: the query's picture {query.item} is in its support"):
        check_leaks(bad, world, ASKED)


def test_a_copy_of_the_querys_picture_is_found(world, episodes):
    query, shown = episodes[1].queries[1], episodes[1].support[3]
    copied = world.item(query.item).pixels  # in a file of other bytes
    items = tuple(dataclasses.replace(i, pixels=copied) if i.id == shown.item else i for i in world.items)
    with pytest.raises(InputError, match=rf"e0000\d: the query's picture .* is in its support \({shown.item}\)"):
        check_leaks(episodes, Dataset(world.root, items), ASKED)


def test_near_copies_in_supports_are_counted(world, episodes):
    query, shown = episodes[1].queries[1], episodes[1].support[3]
    assert near_copies_in_supports(episodes, world) == []
    sketch = b"x" * 200
    near = dataclasses.replace(world, sketches={query.item: sketch, shown.item: sketch})
    (line,) = near_copies_in_supports(episodes, near)
    assert re.fullmatch(r"near-copies of the query's picture in its support: in [1-9] of \d+ supports", line)


def test_a_pair_that_was_shown_is_found_in_any_order(world, episodes):
    query, turn = episodes[1].queries[0], episodes[1].support[0]
    pair = dataclasses.replace(query, others=(turn.item,))
    queries = (pair, *episodes[1].queries[1:])
    check_leaks(spoilt(episodes, queries=queries), world, ASKED)  # one of two is no leak
    turned = dataclasses.replace(turn, others=(query.item,))
    with pytest.raises(InputError, match=f"e00001: the query's picture {query.item} is in its support"):
        check_leaks(spoilt(episodes, queries=queries, support=(turned, *episodes[1].support[1:])), world, ASKED)


def test_the_split_is_that_of_the_question_that_was_asked(world, episodes):
    first, other, *_ = (item.id for item in world.items)
    asked = [Question("t", "c", f"Is it {kind}?", "yes", split=kind) for kind in ("query", "support")]
    items = tuple(dataclasses.replace(i, questions=tuple(asked)) if i.id == first else i for i in world.items)
    data = Dataset(world.root, items)
    turn = dataclasses.replace(episodes[0].support[0], item=first, question="Is it support?")
    query = dataclasses.replace(episodes[0].queries[0], item=other)
    one = dataclasses.replace(episodes[0], support=(turn,), queries=(query,))
    check_leaks([one], data, EpisodeConfig(support_split="support"))
    wrong = dataclasses.replace(one, support=(dataclasses.replace(turn, question="Is it query?"),))
    with pytest.raises(InputError, match=f"{first} is not in the split support"):
        check_leaks([wrong], data, EpisodeConfig(support_split="support"))


def test_splits_and_groups_are_checked_when_asked_for(world, episodes):
    with pytest.raises(InputError, match="is not in the split test"):
        check_leaks(episodes, world, EpisodeConfig(query_split="test"))
    one_group = tuple(dataclasses.replace(item, group="g") for item in world.items)
    with pytest.raises(InputError, match=r"e00000: .* are from the same group"):
        check_leaks(episodes, Dataset(world.root, one_group), EpisodeConfig(groups_apart=True))


def test_an_unbalanced_beginning_is_found(episodes):
    check_balance(episodes, ASKED)
    a, b, *_ = episodes[1].support
    (second_of_a,) = (t for t in episodes[1].support[2:] if t.class_id == a.class_id)
    (second_of_b,) = (t for t in episodes[1].support[2:] if t.class_id == b.class_id)
    bad = spoilt(episodes, support=(a, second_of_a, b, second_of_b))
    with pytest.raises(InputError, match="e00001: its first 1 shots per class"):
        check_balance(bad, ASKED)
    # As a whole it is balanced, which is all that a shuffled support promises.
    check_balance(bad, EpisodeConfig(order="shuffled"))
    with pytest.raises(InputError, match="e00001: its first 2 shots per class"):
        check_balance(spoilt(episodes, support=(a, b, second_of_a, other(episodes[1], second_of_b))), ASKED)


def test_a_class_queried_more_often_is_found(episodes):
    check_blind_policies(episodes)
    first, second = episodes[1].queries
    with pytest.raises(InputError, match=r"e00001: 'always .*' is right [02] of 2 times"):
        check_blind_policies(spoilt(episodes, queries=(first, other(episodes[1], second))))


def test_a_name_that_stands_in_the_words_around_the_answer_is_found(episodes):
    a, b = episodes[1].candidates
    named = {a.class_id: "image", b.class_id: "dog"}
    bad = spoilt(
        episodes,
        candidates=tuple(dataclasses.replace(c, name=named[c.class_id]) for c in (a, b)),
        queries=tuple(dataclasses.replace(q, answer=named[q.class_id]) for q in episodes[1].queries),
    )
    check_planted_answers(bad, TURNS, right=True)
    with pytest.raises(InputError, match=r"e00001/q\d: the right answer 'dog' does not score 1 by generate"):
        check_planted_answers(bad, SCAFFOLDS["lcl"], right=True)


def test_a_prompt_that_does_not_fit_is_found(episodes, scorer):
    text = scorer.loaded.network.config.text_config
    before = text.max_position_embeddings
    try:
        text.max_position_embeddings = 50
        with pytest.raises(InputError, match=r"e0000\d/q\d at 2 shots per class: the prompt needs \d+ tokens"):
            check_context_length(episodes, scorer, TURNS)
        # Room for the prompt alone is not enough.
        text.max_position_embeddings = before
        words = check_context_length(episodes, scorer, TURNS).split()
        text.max_position_embeddings = int(words[-4]) - 1
        with pytest.raises(InputError, match=r"and its longest answer \d+, and the model's context is"):
            check_context_length(episodes, scorer, TURNS)
    finally:
        text.max_position_embeddings = before


def test_a_template_that_rewrites_what_came_before_is_found(episodes, model, world):
    processor = load_model(model.source, device="cpu").processor
    processor.chat_template = "{{ messages | length }}" + processor.chat_template
    rewriting = dataclasses.replace(model, processor=processor)
    scorer = evaluator_of(eval_config(), LocalModel(rewriting), world, TURNS).scorer
    with pytest.raises(
        InputError, match=r"e00000/q0 at 0 shots per class: the tokens before the answer .* differ from"
    ):
        check_answer_prefixes(episodes, scorer, TURNS)


def test_the_command(world, nano, tmp_path, capsys):
    flags = ["--model", str(nano), "--episodes", "2", "--shots", "1"]
    cli.main(["validate", "--data", str(world.root), *flags])
    assert "every prompt fits: 4 prompts" in " ".join(capsys.readouterr().out.split())
    short = tmp_path / "short"
    shutil.copytree(nano, short)
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 20
    (short / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["validate", "--data", str(world.root), *flags, "--model", str(short)])
    assert stopped.value.code == 2
    assert "at 1 shots per class: the prompt needs" in capsys.readouterr().err
