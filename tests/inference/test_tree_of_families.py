"""Every family on a tiny random network of its real class: which engine serves it, and that trees are exact."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image

from linkcontext.data.images import open_image
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.inference.forward import TreeForward
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.families import unsupported_reason
from linkcontext.models.model import Model
from linkcontext.records import Turn
from linkcontext.scoring import engine_choice
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest

REFERENCE = {"paligemma": "both directions"}  # and what is said of it
DENSE = ("gemma3", "idefics2", "mistral3_window")  # some layer has a window, or pictures see themselves: one dense mask


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Pictures of three shapes, so that families which keep the shape spell them differently."""
    folder, found = tmp_path_factory.mktemp("pictures"), {}
    for i, edge in enumerate([(64, 64), (96, 48), (48, 96), (64, 64), (96, 48)]):
        noise = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(noise).resize(edge, Image.Resampling.BICUBIC).save(path)
        found[str(i)] = (f"{i}" * 64, path)
    return found


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    network, processor = FAMILIES[request.param]()
    return request.param, Model(request.param, request.param, network, processor)


def asks():
    """Two shot counts, two queries, two candidates, one of which begins with the other."""
    turns = [Turn("0", "", "lum"), Turn("1", "", "dax"), Turn("2", "", "dax")]
    found = []
    for k in (0, 1, 3):
        for query in (Turn("3", "", ""), Turn("4", "", "")):
            answers = tuple(build_messages(turns[:k], SCAFFOLDS["turns"], query, name) for name in ("dax", "dax lum"))
            found.append(ScoringRequest(build_messages(turns[:k], SCAFFOLDS["turns"], query), answers))
    return found


def flat(scores):
    return torch.tensor([value for row in scores for value, _ in row])


def test_trees_equal_whole_prompts(family, sources, monkeypatch):
    name, model = family
    oracle = flat(LocalModel(model, VisionEncoder(model, open_image), sources, 3, "reference").score(asks()))
    assert oracle.std() > 0.1
    evaluator = LocalModel(model, VisionEncoder(model, open_image), sources, 3)
    engine, why = evaluator.choice.name_and_reason
    if name in REFERENCE:
        assert engine == "reference"
        assert REFERENCE[name] in why
        return
    assert engine == "prefix-cache", why
    assert (evaluator.choice.max_branch is None) == (name in DENSE)
    for room, width in ((16, 8), (48, 16), (512, 48)):
        for constant, value in (("CPU_MAX_TOKENS", room), ("CASCADE_MAX_TOKENS", room), ("MAX_BRANCH", width)):
            monkeypatch.setattr(engine_choice, constant, value)
        evaluator.choice.__dict__.pop("max_branch")
        torch.testing.assert_close(flat(evaluator.score(asks())), oracle, atol=1e-4, rtol=0)
    packed = LocalModel(model, evaluator.eyes, sources, 3, "tree")
    torch.testing.assert_close(flat(packed.score(asks())), oracle, atol=1e-4, rtol=0)
    # Five pictures in forty-two prompts; LLaVA-OneVision sees a picture that is alone otherwise.
    assert evaluator.eyes.calls == (7 if name == "llava_onevision" else 5)


def test_what_is_held_is_not_run_again_and_changes_nothing(family, sources, monkeypatch):
    name, model = family
    scorer = LocalModel(model, VisionEncoder(model, open_image), sources, 3)
    turns = [Turn("0", "", "lum"), Turn("1", "", "dax"), Turn("2", "", "dax")]
    queries = [Turn("3", "", ""), Turn("4", "", "")]
    prompts = [build_messages(turns, SCAFFOLDS["turns"], query) for query in queries]
    early = scorer.prefill([build_messages(turns[:2], SCAFFOLDS["turns"], query) for query in queries])
    held = scorer.prefill(prompts, early)
    if name in REFERENCE:
        assert held is None
        return
    assert len(early) < len(held)
    new = [ask for ask in asks() if len(ask.messages) == len(prompts[0])]
    ran = []
    run = TreeForward.decode
    monkeypatch.setattr(TreeForward, "decode", lambda self, x, *rest: ran.append(x.shape[1]) or run(self, x, *rest))
    assert flat(scorer.score(new, held)) == pytest.approx(flat(scorer.score(new)), rel=0, abs=1e-4)
    assert flat(scorer.score(new[:1], held)) == pytest.approx(flat(scorer.score(new[:1])), rel=0, abs=1e-4)
    assert scorer.generate(prompts, 4, held) == scorer.generate(prompts, 4)
    del ran[:]
    scorer.score(new, held)
    saved, ran[:] = sum(ran), []
    scorer.score(new)
    assert sum(ran) - saved >= len(held)
    del ran[:]  # another support: what is held is of no use, and does no harm
    other = [ask for ask in asks() if len(ask.messages) == 3]
    assert flat(scorer.score(other, held)) == pytest.approx(flat(scorer.score(other)), rel=0, abs=1e-4)
    assert flat(scorer.score(new, held)) == pytest.approx(flat(scorer.score(new)), rel=0, abs=1e-4)


def test_replies_equal_those_of_generate(family, sources):
    name, model = family
    model.network.generation_config.eos_token_id = 383  # no token: random networks like to end at once
    evaluator = LocalModel(model, VisionEncoder(model, open_image), sources, 3)
    prompts = [ask.messages for ask in asks()]
    oracle = LocalModel(model, VisionEncoder(model, open_image), sources, 1, "reference").generate(prompts, 8)
    assert any(oracle) or name == "gemma3"  # which says marks only
    assert evaluator.generate(prompts, 8) == oracle, name


def test_pictures_that_touch_are_spelled_by_the_processor(sources, caplog):
    """Idefics2 writes one mark between two pictures: a tree of pictures spelled one by one would not be that prompt."""
    network, processor = FAMILIES["idefics2"]()
    model = Model("idefics2", "idefics2", network, processor)
    evaluator = LocalModel(model, VisionEncoder(model, open_image), sources, 3)
    both = [{"type": "image", "image": "0"}, {"type": "image", "image": "1"}, {"type": "text", "text": "?"}]
    said = [
        {"role": "user", "content": both},
        {"role": "assistant", "content": [{"type": "text", "text": "dax"}]},
    ]
    assert evaluator.engine == "prefix-cache"
    evaluator.check(said)
    assert evaluator.engine == "reference"
    assert "in another way" in caplog.text


def test_a_network_built_in_another_way_gets_the_reference_engine(sources):
    """Some of those that Transformers loads, like BLIP-2, have no inner model that gives a picture's features."""
    network, processor = FAMILIES["llava"]()
    network.model = torch.nn.Module()
    model = Model("llava", "llava", network, processor)
    assert "has no get_image_features" in unsupported_reason(network)
    assert LocalModel(model, VisionEncoder(model, open_image), sources).engine == "reference"
    del network.model
    assert "has no get_image_features" in unsupported_reason(network)
