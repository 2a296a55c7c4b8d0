"""Each way in which a model can fail on trees is noticed, and its sentence says which it is."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES

from linkcontext.errors import InputError
from linkcontext.inference import decoding, masks
from linkcontext.inference.engine import Engine
from linkcontext.inference.losses import tree_losses
from linkcontext.models.model import Model
from linkcontext.scoring import selfcheck
from linkcontext.scoring.engine_choice import CASCADE_SHAPES
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.reference import ReferenceEngine
from linkcontext.scoring.selfcheck import WINDOW, narrow_window


def check(model):
    """The self-check of a model that has not been checked yet."""
    return LocalModel(model).choice.selfcheck


def test_a_standard_model_passes_in_evaluation_and_in_training(nano_model):
    assert check(nano_model).failure() is None
    assert check(nano_model).failure(learns=True) is None


@pytest.mark.parametrize("ignored", ["attention_mask", "position_ids"])
def test_a_network_that_ignores_masks_or_positions_is_noticed(nano_model, monkeypatch, ignored):
    decoder = nano_model.network.get_decoder()
    forward = decoder.forward

    def ignores(**given):
        causal = {"is_causal": True} if ignored == "attention_mask" else {}
        return forward(**{**given, ignored: None}, **causal)

    monkeypatch.setattr(decoder, "forward", ignores)
    why = check(nano_model).failure()
    assert re.search(r"does not follow masks or positions \(a small tree is off by [\d.]+\)", why)


def test_replies_that_differ_on_a_tree_are_noticed(nano_model, monkeypatch):
    """Rows that attend to each other: scores have none, so that they alone would not show it."""

    def all_seen(network, sees, distance):
        return masks.layer_masks(network, torch.ones_like(sees), distance)

    monkeypatch.setattr(decoding, "layer_masks", all_seen)
    why = check(nano_model).failure()
    assert re.search(r"replies come out differently on a tree \(logits are off by [\d.]+\)", why)


def test_a_prefilled_prefix_that_changes_scores_is_noticed(nano_model, monkeypatch):
    prefill = Engine.prefill

    def forgets(engine, inputs, length):
        cache = prefill(engine, inputs, length)
        with torch.inference_mode():
            cache.layers[0].values.zero_()
        return cache

    monkeypatch.setattr(Engine, "prefill", forgets)
    why = check(nano_model).failure()
    assert re.search(r"a prefilled prefix changes scores \(a small tree is off by [\d.]+\)", why)


def test_an_ignored_window_is_noticed_where_it_is_longer_than_the_small_prompts(monkeypatch):
    network, processor = FAMILIES["mistral3_window"]()
    network.config.get_text_config().sliding_window = 4096
    model = Model("windowed", "windowed", network, processor)
    assert check(model).failure() is None
    layer_masks = masks.layer_masks
    monkeypatch.setattr(
        masks, "layer_masks", lambda net, sees, distance, *more: layer_masks(net, sees, 0 * distance, *more)
    )
    assert "does not follow masks or positions" in check(model).failure()
    assert network.config.get_text_config().sliding_window == 4096


def test_a_missing_backward_is_noticed_before_training_and_no_evaluation_minds(nano_model, monkeypatch):
    def forgets(network, rows, cascade):
        with torch.no_grad():
            return tree_losses(network, rows, cascade)

    monkeypatch.setattr(selfcheck, "tree_losses", forgets)
    assert "does not require grad" in check(nano_model).failure(learns=True)
    assert check(nano_model).failure() is None


def test_wrong_gradients_in_parts_are_noticed(nano_model, monkeypatch):
    def doubled(network, rows, cascade):
        losses = tree_losses(network, rows, cascade)
        return replace(losses, nats=2 * losses.nats) if cascade else losses

    assert check(nano_model).failure(CASCADE_SHAPES, learns=True) is None
    monkeypatch.setattr(selfcheck, "tree_losses", doubled)
    assert "gradients come out differently" in check(nano_model).failure(CASCADE_SHAPES, learns=True)


@pytest.mark.parametrize(
    "raised", [InputError, RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, ImportError]
)
def test_whatever_a_foreign_network_raises_is_a_sentence(nano_model, monkeypatch, raised):
    def fails(**_given):
        raise raised("no kernel\nfor this shape")

    monkeypatch.setattr(nano_model.network.get_decoder(), "forward", fails)
    first = "'no kernel\\nfor this shape'" if raised is KeyError else "no kernel"
    assert check(nano_model).failure() == f"a small tree could not be run ({first})"


def test_an_error_without_a_text_is_named_by_its_kind(nano_model, monkeypatch):
    def fails(**_given):
        raise NotImplementedError

    monkeypatch.setattr(nano_model.network.get_decoder(), "forward", fails)
    assert check(nano_model).failure() == "a small tree could not be run (NotImplementedError)"


def test_a_processor_that_spells_several_pictures_in_another_way_is_noticed(nano_model, monkeypatch):
    token_ids = ReferenceEngine.token_ids
    monkeypatch.setattr(ReferenceEngine, "token_ids", lambda *given: [*token_ids(*given), 1])
    assert "its processor writes a picture in other tokens" in check(nano_model).failure()


@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("part", ["whole tree", "several passes"])
def test_a_score_that_is_no_number_is_a_failure_wherever_it_stands(nano_model, monkeypatch, part, place):
    """The largest of some numbers and NaN depends on their order in Python."""
    scores = Engine.scores

    def broken(engine, inputs):
        values = scores(engine, inputs)
        if (engine.max_tokens < len(inputs.tree)) == (part == "several passes"):
            values[place] = float("nan")
        return values

    monkeypatch.setattr(Engine, "scores", broken)
    assert "masks or positions (a small tree is off by nan)" in check(nano_model).failure()


def windowed(window):
    """A network whose layers attend to `window` tokens, or to all."""
    text = SimpleNamespace(sliding_window=window, layer_types=None)
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text)), text


@pytest.mark.parametrize(("usual", "inside"), [(4096, WINDOW), (WINDOW - 4, WINDOW - 4), (None, None)])
def test_a_window_is_narrowed_never_widened_and_restored(usual, inside):
    network, text = windowed(usual)
    with narrow_window(network):
        assert text.sliding_window == inside
    assert text.sliding_window == usual
    with pytest.raises(KeyboardInterrupt), narrow_window(network):
        raise KeyboardInterrupt
    assert text.sliding_window == usual


def test_a_window_that_no_layer_uses_stays():
    network, text = windowed(4096)
    text.layer_types = ["full_attention"] * 2
    with narrow_window(network):
        assert text.sliding_window == 4096
