"""Does the answer come from the pictures? Policies of which that is known, and the bundled models."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from linkcontext import cli
from linkcontext.config import eval_config
from linkcontext.episodes.render import Tokens
from linkcontext.episodes.scaffold import image_ids, load_scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.evaluator import Evaluator
from linkcontext.evaluation.grounding.conditions import draw_conditions, plan_conditions, predict_conditions
from linkcontext.evaluation.grounding.effects import Effect
from linkcontext.evaluation.grounding.findings import judge
from linkcontext.evaluation.grounding.probe import Comparison
from linkcontext.evaluation.grounding.probes import PROBES
from linkcontext.evaluation.run_metrics import write_findings
from linkcontext.evaluation.runner import check_probe_config, probe_grounding, probe_of_run
from linkcontext.jsonl import write_jsonl
from linkcontext.models.synthetic_images import BLANK
from linkcontext.processes import Processes
from linkcontext.source import open_data
from linkcontext.worlds.folder import write_seed


def said(messages):
    return [part.get("text", "") for message in messages for part in message["content"]]


def classed(item):
    return item.partition("/")[0]


def copies_last(messages, names):
    """The name that was said last."""
    told = "\n".join(said(messages))
    last = max(names, key=told.rfind)
    return {name: float(name == last and name in told) for name in names}


def links(messages, names):
    """The name that most pictures of the query's class have in front of them; it sees no other wording than `turns`."""
    *shown, query = (m for m in messages if m["role"] == "user")
    replies = [said([m])[0] for m in messages if m["role"] == "assistant"]
    seen = Counter(
        reply
        for m, reply in zip(shown, replies, strict=True)
        if [classed(i) for i in image_ids([m])] == [query_of(query)]
    )
    return {name: float(seen[name]) for name in names}


def links_in_turns(messages, names):
    """In any other wording it knows nothing."""
    return links(messages, names) if len(messages) % 2 and len(messages) > 1 else dict.fromkeys(names, 0.0)


def query_of(message):
    return classed(image_ids([message])[-1])


@dataclass
class Planted:
    """A policy at the place of a `LocalModel`."""

    policy: object
    engine: str = "reference"
    sources: dict = field(default_factory=dict)
    asks: int = 0

    def score(self, asks):
        self.asks += len(asks)
        return [[(value - 9, 1) for value in self.named(ask).values()] for ask in asks]

    def named(self, ask):
        names = [said(answer[-1:])[0] for answer in ask.answers]
        return self.policy(ask.messages, names)

    def lacks(self, capability):
        return "" if capability == "log-probabilities" else "it is a policy"

    def clone(self):
        return replace(self)

    def prompt(self, messages):
        return Tokens((), (), tuple(image_ids(messages)))

    def check(self, messages):
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten classes of eight pictures."""
    root = tmp_path_factory.mktemp("evidence") / "w"
    write_seed(root, 10, 8, 5, 32)
    return root


@pytest.fixture
def config(world):
    return eval_config(data=str(world), shots=(4,), episodes=16)


def probed(policy, config, out):
    dataset = open_data(config.episodes.data, False)
    asked, left_out = plan_conditions(
        Evaluator(Planted(policy), dataset, load_scaffold(config.scaffold), True, False, False),
        config.episodes,
        config.scaffold,
    )
    write_jsonl([episode for _, episodes in asked for episode in episodes], out / "episodes.jsonl")
    predict_conditions(asked, out / "predictions.jsonl", Processes(None, 0, 1))
    return write_findings(out, "planted", config.episodes.data, left_out, {})


def by_name(probe):
    return {finding["probe"]: finding for finding in probe["findings"]}


def test_a_policy_that_copies_the_last_answer_does_not_link(config, tmp_path):
    probe = probed(copies_last, config, tmp_path)
    found = by_name(probe)
    assert len(found) == 13
    assert not any(finding["passes"] for finding in found.values())
    assert probe["conclusion"] in ("does not link", "not shown")
    assert "links:" not in probe["sentence"]
    # It says one name to all queries of an episode, so that it is right exactly as often as by chance, always.
    same = ("label swap", "false labels", "shuffled pictures", "blank pictures", "no pictures", "order", "ways")
    for name in (*same, "noise", "contradiction"):
        assert (found[name]["effect"], found[name]["p"]) == (0.0, 1.0)
    assert found["place"]["effect"] == -1 / 8  # never the first of eight
    assert [figure["accuracy"] for figure in found["place"]["figures"]] == [0.0] * 7 + [1.0]
    # As drawn; with the relevant example first, so that another class is last; and with it last.
    assert [figure["accuracy"] for figure in found["relevant last"]["figures"]] == [0.5, 0.0, 1.0]
    assert "; the last place helps it, by +1.000 [" in found["relevant last"]["verdict"]


def test_with_episodes_enough_it_is_said_not_to_link(config, tmp_path):
    probe = probed(copies_last, replace(config, episodes=replace(config.episodes, episodes=40)), tmp_path)
    assert probe["conclusion"] == "does not link"


def test_a_policy_that_links_is_said_to_link(config, tmp_path):
    probe = probed(links_in_turns, replace(config, episodes=replace(config.episodes, episodes=40)), tmp_path)
    found = by_name(probe)
    assert probe["conclusion"] == "links"
    assert {name for name, finding in found.items() if not finding["passes"]} == {"wording"}
    assert "Not shown: that it does so in every wording tried" in probe["sentence"]
    accuracy = {name: [f["accuracy"] for f in finding["figures"]] for name, finding in found.items()}
    assert accuracy["label swap"] == [1.0]
    assert (accuracy["false labels"][0], accuracy["false labels"][-1]) == (1.0, 0.0)
    assert accuracy["blank pictures"] == accuracy["no pictures"] == [1.0, 0.5]
    assert accuracy["order"] == [1.0] * 4
    assert accuracy["place"] == [1.0] * 8
    assert accuracy["new names"] == [1.0, 1.0, 0.5]
    assert accuracy["wording"] == [1.0, 0.5, 0.5]
    assert accuracy["ways"] == accuracy["noise"] == accuracy["relevant last"] == [1.0] * 3
    assert accuracy["contradiction"] == [1.0] * 4
    assert "costs it anything, .000" in found["noise"]["verdict"]
    assert "first or last matters to it, .000" in found["relevant last"]["verdict"]
    assert "two orders get the same answer in 1.000" in found["order"]["verdict"]


def test_places_are_measured_in_the_wording_asked_for(tmp_path):
    """Of three classes with one shot: every condition then has single pictures, and none has more ways."""
    write_seed(tmp_path / "w", 3, 8, 5, 32)
    probe = probed(links_in_turns, eval_config(data=str(tmp_path / "w"), shots=(1,), episodes=8), tmp_path)
    found = by_name(probe)
    assert [figure["accuracy"] for figure in found["place"]["figures"]] == [1.0, 1.0]
    assert [figure["accuracy"] for figure in found["wording"]["figures"]] == [1.0, 0.5, 0.5]


def test_a_policy_that_knows_the_names_does_not_link(config, tmp_path):
    truths = {item.class_id: item.name for item in open_data(config.episodes.data, False).items}

    def knows(messages, names):
        return {name: float(name == truths[query_of(messages[-1])]) for name in names}

    probe = probed(knows, config, tmp_path)
    found = by_name(probe)
    assert not any(finding["passes"] for finding in found.values())
    assert found["label swap"]["verdict"].startswith("it gives the names it knew instead")
    assert found["label swap"]["verdict"].endswith("the true name in 1.000")
    assert found["new names"]["verdict"].endswith("it knows real names without being shown")


def test_a_trace_is_no_linking_however_sure_it_is():
    """Chance is .5: a model that always follows is .5 above it, and a tenth of that is asked for."""
    for value, p, passes, said in (
        (0.06, 0.001, True, "yes"),
        (0.04, 0.001, False, "no but in a trace, .040 of .500"),
        (0.05, 0.06, False, "no (an effect above .057 would show)"),  # .04 x (1.984 + .845) / 1.984
        (
            0.06,
            0.2,
            False,
            "no (the effect could be chance: adjusted for all probes, p is .200; ask for more --episodes)",
        ),
    ):
        effect = Effect(value, (value - 0.04, value + 0.04), p, 0.5, 200, 100, 150)
        finding = judge("x", Comparison("", (), "", effect, "yes", "no"), p)
        assert (finding.passes, finding.verdict) == (passes, said)


def distracted(messages, names):
    """It links, but what it is shown last decides if that is none of the candidates' names."""
    last = said([m for m in messages if m["role"] == "assistant"][-1:])
    return links_in_turns(messages, names) if not last or last[0] in names else dict.fromkeys(names, 0.0)


def believes_the_latest(messages, names):
    """It links, but only the latest example of the query's class counts."""
    *shown, query = (m for m in messages if m["role"] == "user")
    replies = [said([m])[0] for m in messages if m["role"] == "assistant"]
    if len(shown) != len(replies):
        return dict.fromkeys(names, 0.0)
    alike = [r for m, r in zip(shown, replies, strict=True) if image_ids([m]) and query_of(m) == query_of(query)]
    return {name: float(name in alike[-1:]) for name in names}


@pytest.mark.parametrize(("policy", "failed"), [(distracted, "noise"), (believes_the_latest, "contradiction")])
def test_a_linker_with_one_weakness_fails_the_probe_of_it(policy, failed, config, tmp_path):
    probe = probed(policy, replace(config, episodes=replace(config.episodes, episodes=40)), tmp_path)
    disturbed = {
        f["probe"]: f["passes"] for f in probe["findings"] if f["probe"] in ("noise", "relevant last", "contradiction")
    }
    assert disturbed == {"noise": True, "relevant last": True, "contradiction": True} | {failed: False}
    assert probe["conclusion"] == "links"  # none of them is required
    assert "Not shown: that it does so" in probe["sentence"]
    if failed == "noise":
        verdict = by_name(probe)["noise"]["verdict"]
        assert "nothing shows that it is right with an irrelevant example" in verdict
        assert "the irrelevant example last costs it +.500 [" in verdict


def test_an_irrelevant_example_needs_a_third_class(tmp_path):
    write_seed(tmp_path / "w", 2, 6, 5, 32)
    probe = probed(links_in_turns, eval_config(data=str(tmp_path / "w"), shots=(1,), episodes=4), tmp_path)
    assert "noise" not in by_name(probe)
    assert len(probe["findings"]) == 12
    assert any(
        line.startswith("noise: an irrelevant example needs a class besides the 2") for line in probe["left_out"]
    )


@pytest.mark.parametrize("model", ["mini", pytest.param("mini-base", marks=pytest.mark.heavy)])
def test_the_bundled_models_are_told_apart(model, tmp_path):
    """Of three classes two ways alone can be asked, which keeps it short."""
    write_seed(tmp_path / "w", 3, 12, 7, 64)
    config = eval_config(model=model, data=str(tmp_path / "w"), shots=(1,), episodes=16, out=str(tmp_path / "probe"))
    probe = probe_grounding(config)
    assert [line.partition(":")[0] for line in probe["left_out"]] == ["8 ways", "4 ways"]
    assert (probe["conclusion"] == "links") == (model == "mini"), probe["sentence"]
    required = {probe.name for probe in PROBES if probe.required}
    assert (model == "mini") == any(finding["passes"] for finding in probe["findings"] if finding["probe"] in required)


@pytest.mark.heavy
def test_a_model_behind_a_server_gets_the_verdicts_of_the_local_one(mini_url, tmp_path):
    data = tmp_path / "w"
    write_seed(data, 3, 6, 7, 64)
    probes = []
    for name, out in (("mini", tmp_path / "here"), (f"openai:{mini_url}#mini", tmp_path / "far")):
        flags = ["--data", str(data), "--shots", "1", "--episodes", "2", "--out", str(out)]
        cli.main(["probe", "--model", name, *flags])
        probes.append(json.loads((out / "probe.json").read_text()))
    here, far = probes
    assert far["counters"]["engine"] == "openai"
    assert "log-probabilities" in far["counters"]["scored"]
    assert len({figure["accuracy"] for finding in here["findings"] for figure in finding["figures"]}) > 1
    assert Counter(f["passes"] for f in far["findings"]) == Counter(f["passes"] for f in here["findings"])
    assert far["findings"] == here["findings"]  # accuracies, intervals and verdicts, probe by probe
    assert (far["conclusion"], far["left_out"]) == (here["conclusion"], here["left_out"])


@pytest.mark.heavy
@pytest.mark.parametrize("model", ["mini", "mini-base"])
def test_the_bundled_models_are_told_apart_by_all_probes(model, tmp_path):
    probe = probe_grounding(
        eval_config(model=model, data="world:7", shots=(4,), episodes=60, out=str(tmp_path / "probe"))
    )
    assert not probe["left_out"]
    assert probe["conclusion"] == ("links" if model == "mini" else "does not link"), probe["sentence"]


def test_one_thing_is_changed_and_the_queries_stay(config):
    told = {}
    for episode in draw_conditions(config.episodes, open_data(config.episodes.data, False))[1]:
        told.setdefault(episode.task, {})[episode.id.partition("/")[2]] = episode
    for place in ("first", "last"):  # an episode for each query
        assert len(told.pop(f"relevant-{place}")) == 32
    assert {len(episodes) for episodes in told.values()} == {16}
    for key, shown in told["shown"].items():
        assert shown.shots_per_class == (1, 4)
        asked = [(query.item, query.class_id) for query in shown.queries]
        for task, episodes in told.items():
            assert [(q.item, q.class_id) for q in episodes[key].queries] == asked, task
            names = [turn.answer for turn in episodes[key].support]
            items = [turn.item for turn in episodes[key].support]
            if task in ("shuffled", "blank", "none"):
                assert names == [turn.answer for turn in shown.support]
            if task == "shuffled" or task.startswith(("order", "false")):
                assert sorted(items) == sorted(turn.item for turn in shown.support)
            if task.startswith("order"):
                assert sorted(episodes[key].support, key=str) == sorted(shown.support, key=str)
        assert {turn.item for turn in told["blank"][key].support} == {BLANK}
        assert {turn.item for turn in told["none"][key].support} == {""}
        false = told["false-1"][key].support
        assert all(turn.class_id != own.class_id for turn, own in zip(false, shown.support, strict=True))


def test_a_probe_that_was_killed_goes_on_and_ends_the_same(config, tmp_path):
    few = replace(config, episodes=replace(config.episodes, episodes=4))
    whole = probed(copies_last, few, tmp_path)
    text = (tmp_path / "predictions.jsonl").read_text()
    (tmp_path / "predictions.jsonl").write_text(text[: len(text) // 2])  # in the middle of a line
    assert probed(copies_last, few, tmp_path) == whole
    planted = Planted(copies_last)
    asked, _ = plan_conditions(
        Evaluator(planted, open_data(config.episodes.data, False), load_scaffold("turns"), True, False, False),
        few.episodes,
        few.scaffold,
    )
    predict_conditions(asked, tmp_path / "predictions.jsonl", Processes(None, 0, 1))
    assert planted.asks == 0


def test_a_model_is_probed_into_a_folder(nano, pictures, tmp_path):
    config = eval_config(model=str(nano), data=str(pictures), shots=(1,), episodes=2, out=str(tmp_path / "probe"))
    probe = probe_grounding(config)
    files = {path.name for path in (tmp_path / "probe").glob("[!.]*")}
    assert files == {"config.json", "episodes.jsonl", "predictions.jsonl", "probe.json"}
    assert json.loads((tmp_path / "probe" / "probe.json").read_text()) == probe
    assert {"shown", "shuffled", "blank", "none", "real", "swapped", "ways-4", "wording-lcl"} <= {
        row["task"] for row in probe["rows"]
    }
    assert probe_grounding(config) | {"counters": {}} == probe | {"counters": {}}
    with pytest.raises(InputError, match="another configuration"):
        probe_grounding(replace(config, episodes=replace(config.episodes, seed=1)))


def test_what_a_probe_sets_itself_is_refused():
    with pytest.raises(InputError, match=r"--names, --scoring, --explain: a probe sets this itself"):
        check_probe_config(eval_config(shots=(4,), names="real", scoring="both", explain=0))
    for shots in ((0,), (1, 4)):
        with pytest.raises(InputError, match="one number per class"):
            check_probe_config(eval_config(shots=shots))


def test_the_probe_of_a_run_asks_what_the_run_asked(tmp_path):
    unlike = {"names": "random", "scoring": "both", "explain": 2}  # a probe's own
    run = eval_config(data="digits", shots=(0, 1, 4, 16), ways=3, seed=5, episodes=7, **unlike)
    asked = probe_of_run(run, tmp_path)
    e = asked.episodes
    assert (e.data, e.shots, e.names, e.ways, e.seed, e.episodes) == ("digits", (4,), "pseudo", 3, 5, 7)
    assert asked.out == str(tmp_path / "probe")
    check_probe_config(asked)
    assert probe_of_run(eval_config(shots=(8, 16)), tmp_path).episodes.shots == (8,)
    with pytest.raises(InputError, match="give --shots-per-class"):
        probe_of_run(eval_config(shots=(0,)), tmp_path)
