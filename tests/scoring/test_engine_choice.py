"""Which engine runs, why, and how many tokens a pass of it has, by hand: networks are stand-ins."""

from types import SimpleNamespace

import numpy as np
import pytest

from linkcontext.errors import InputError
from linkcontext.inference.engine import CASCADE_MAX_TOKENS, CPU_MAX_TOKENS, GPU_MAX_TOKENS, MAX_BRANCH, MIN_TOKENS
from linkcontext.scoring import engine_choice
from linkcontext.scoring.engine_choice import OWN_CACHE, PASSED, EngineChoice

FAILS = "its forward does not follow masks"


class Check:
    """A self-check with this result, and another one on the model's own cache, which notes how it is asked."""

    def __init__(self, result=None, own_cache=FAILS):
        self.result, self.own_cache, self.calls = result, own_cache, []

    def failure(self, *shapes, **more):
        self.calls.append((*shapes, *more.items()))
        return self.own_cache if more.get("own_cache") else self.result


class Language:
    """A language model of which only the attention is looked at."""

    def __init__(self, attention="sdpa", flex=True):
        self.config, self._supports_flex_attn = SimpleNamespace(_attn_implementation=attention), flex

    def set_attn_implementation(self, name):
        self.config._attn_implementation = name

    def get_output_embeddings(self):
        return None


@pytest.fixture
def choice(monkeypatch):
    """A choice for a network on a device; `facts` are what is known of the network before it runs."""

    def make(check=None, requested="auto", device="cpu", text=None, memory_gb=None, **facts):
        facts = {"unsupported_reason": None, "maskless_kinds": None, "is_causal": True, "free_memory": 7e9, **facts}
        for name, value in facts.items():
            monkeypatch.setattr(engine_choice, name, lambda _, value=value: value)
        text = Language() if text is None else text
        network = SimpleNamespace(get_decoder=lambda: text, config=SimpleNamespace(get_text_config=lambda: text.config))
        loaded = SimpleNamespace(network=network, device=SimpleNamespace(type=device))
        return EngineChoice(loaded, Check() if check is None else check, requested, memory_gb)

    return make


def inputs(tokens, longest):
    """A tree of so many tokens, whose longest sequence has `longest`."""
    tree = np.zeros(tokens)
    found = type("Tree", (), {"depth": np.arange(longest), "__len__": lambda _: len(tree)})()
    return SimpleNamespace(tree=found, cache=None)


@pytest.mark.parametrize(
    ("requested", "name"), [("auto", "prefix-cache"), ("prefix-cache", "prefix-cache"), ("tree", "tree")]
)
def test_a_model_that_passes_gets_what_is_requested_and_the_fastest_otherwise(choice, requested, name):
    check = Check()
    made = choice(check, requested)
    assert made.name_and_reason == (name, PASSED)
    assert not made.whole_prompts
    assert made.name_and_reason == (name, PASSED)
    assert check.calls == [()]  # once, whatever it is asked for


def test_the_reference_engine_is_not_checked(choice):
    check = Check(FAILS)
    made = choice(check, "reference", unsupported_reason="recurrent layers")
    assert made.name_and_reason == ("reference", "asked for")
    assert made.whole_prompts
    assert check.calls == []


@pytest.mark.parametrize(("facts", "why"), [({}, FAILS), ({"unsupported_reason": "recurrent layers"}, "recurrent")])
def test_a_model_that_cannot_run_on_trees_gets_the_reference_engine_or_an_error(choice, caplog, facts, why):
    made = choice(Check(FAILS), **facts)
    name, reason = made.name_and_reason
    assert (name, made.whole_prompts) == ("reference", True)
    assert why in reason
    assert reason in caplog.text
    for requested in ("tree", "prefix-cache"):
        with pytest.raises(InputError, match=f"--engine {requested}: .*{why}.*--engine auto or reference"):
            _ = choice(Check(FAILS), requested, **facts).name_and_reason
    assert choice(Check(FAILS), "reference", **facts).whole_prompts


@pytest.mark.parametrize("facts", [{}, {"maskless_kinds": "running state"}], ids=["by the check", "by its layers"])
def test_a_model_whose_layers_follow_no_mask_runs_on_copies_of_its_own_cache(choice, facts):
    why = facts.get("maskless_kinds", FAILS)
    for requested in ("auto", "prefix-cache"):
        check = Check(FAILS, own_cache=None)
        made = choice(check, requested, **facts)
        assert made.name_and_reason == ("prefix-cache", f"{PASSED}, {OWN_CACHE}: {why}")
        assert (made.own_cache, made.whole_prompts) == (True, False)
        assert made.against_trees == why  # training says so
        assert check.calls == [*([] if facts else [()]), (("own_cache", True),)]
    with pytest.raises(InputError, match=f"--engine tree: {why}.*--engine auto or reference"):
        _ = choice(Check(FAILS, own_cache=None), "tree", **facts).name_and_reason
    assert not choice().own_cache
    assert choice().against_trees is None
    assert not choice(Check(FAILS), **facts).own_cache


def test_copies_of_a_cache_get_the_memory_that_a_pass_leaves(choice, monkeypatch):
    limits = []
    monkeypatch.setattr(engine_choice, "max_tokens_per_pass", lambda *given: limits.append(given[1:]) or 64)
    monkeypatch.setattr(engine_choice, "pass_bytes", lambda _network, longest, tokens: 1e6 * longest * tokens)
    monkeypatch.setattr(engine_choice, "caches_at_once", lambda _tree: 3)
    made = choice(Check(own_cache=None), maskless_kinds="running state", memory_gb=10)
    engine = made.engine(inputs(10_000, 40), "prefix-cache")
    assert (engine.max_tokens, engine.max_bytes) == (64, 10e9 - 1e6 * 3 * 40 * 64)
    assert limits == [(3 * 40, 10e9, CPU_MAX_TOKENS)]


def test_prompts_may_turn_out_to_need_the_reference_engine(choice, caplog):
    made = choice()
    assert not made.whole_prompts
    made.fall_back("other tokens")
    assert made.whole_prompts
    assert made.name_and_reason == ("reference", "other tokens")
    assert "other tokens" in caplog.text
    insisted = choice(requested="tree")
    with pytest.raises(InputError, match="--engine tree: other tokens"):
        insisted.fall_back("other tokens")


@pytest.mark.parametrize(
    "without",
    [{"device": "cpu"}, {"is_causal": False}, {"text": Language("eager")}, {"text": Language(flex=False)}],
    ids=["no GPU", "windows", "other attention", "no support"],
)
def test_flex_attention_is_tried_only_where_it_can_help(choice, without):
    made = choice(**{"device": "cuda", **without})
    before = made.loaded.network.get_decoder().config._attn_implementation
    assert not made.use_flex_attention()
    assert made.selfcheck.calls == []
    assert made.loaded.network.get_decoder().config._attn_implementation == before


@pytest.mark.parametrize("learns", [False, True])
def test_flex_attention_stays_only_if_the_check_passes_with_it(choice, caplog, learns):
    made = choice(device="cuda")
    assert made.use_flex_attention(learns)
    assert made.loaded.network.get_decoder().config._attn_implementation == "flex_attention"
    assert made.selfcheck.calls == [(("learns", learns),)]
    failed = choice(Check("no kernel"), device="cuda")
    assert not failed.use_flex_attention(learns)
    assert failed.loaded.network.get_decoder().config._attn_implementation == "sdpa"
    assert "FlexAttention is not used: no kernel" in caplog.text


def test_whole_trees_use_flex_attention_on_a_gpu_and_pieces_do_not(choice):
    assert choice(device="cuda", requested="tree").name_and_reason == ("tree", f"{PASSED}, with FlexAttention")
    pieces = choice(device="cuda")
    assert pieces.name_and_reason == ("prefix-cache", PASSED)
    assert pieces.loaded.network.get_decoder().config._attn_implementation == "sdpa"


def test_cascade_attention_needs_a_cpu_full_causal_attention_and_a_check_of_its_own(choice, caplog):
    made = choice()
    assert made.max_branch == MAX_BRANCH
    assert made.selfcheck.calls == [(((2 * MIN_TOKENS, MIN_TOKENS),),)]
    for without in ({"device": "cuda"}, {"is_causal": False}, {"text": Language("eager")}):
        made = choice(**without)
        assert made.max_branch is None
        assert made.selfcheck.calls == []
    assert choice(Check(FAILS)).max_branch is None
    assert FAILS in caplog.text


@pytest.mark.parametrize(
    ("name", "device", "causal", "tokens", "expected"),
    [
        ("prefix-cache", "cpu", True, 10_000, (CASCADE_MAX_TOKENS, MAX_BRANCH)),
        ("prefix-cache", "cpu", False, 10_000, (CPU_MAX_TOKENS, None)),
        ("prefix-cache", "cuda", True, 100_000, (GPU_MAX_TOKENS, None)),
        ("prefix-cache", "cpu", True, 50, (50, MAX_BRANCH)),  # no more than there are
        ("tree", "cpu", True, 10_000, (10_000, None)),  # in one pass
    ],
)
def test_a_pass_has_as_many_tokens_as_its_engine_and_device_can_use(
    choice, monkeypatch, name, device, causal, tokens, expected
):
    limits = []
    monkeypatch.setattr(engine_choice, "max_tokens_per_pass", lambda *given: limits.append(given[1:]) or given[-1])
    made = choice(device=device, is_causal=causal)
    engine = made.engine(inputs(tokens, 40), name)
    assert (engine.max_tokens, engine.max_branch) == expected
    assert engine.network is made.loaded.network
    assert limits == [(40, 7e9, expected[0])]  # the longest sequence, the free memory, the most tokens


def test_a_tree_that_does_not_fit_one_pass_is_computed_in_several_with_a_warning(choice, monkeypatch, caplog):
    monkeypatch.setattr(engine_choice, "max_tokens_per_pass", lambda *_given: 64)
    assert choice().engine(inputs(65, 40), "tree").max_tokens == 64
    assert "65 tokens do not fit into one forward pass" in caplog.text
    caplog.clear()
    choice().engine(inputs(64, 40), "tree")
    choice().engine(inputs(65, 40), "prefix-cache")
    assert caplog.text == ""


def test_the_memory_of_a_pass_is_the_option_or_what_is_free(choice, monkeypatch):
    monkeypatch.setattr(engine_choice, "max_tokens_per_pass", lambda _network, _longest, memory, _most: memory)
    assert choice().room(1, 1) == 7e9
    assert choice(memory_gb=2.5).room(1, 1) == 2.5e9
    assert choice(memory_gb=0.0).room(1, 1) == 0
