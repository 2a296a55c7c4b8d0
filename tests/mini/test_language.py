"""The language model's stages: labels, features, and a start that can already look things up."""

import dataclasses

import pytest
import torch
from transformers import CLIPModel

from linkcontext.episodes.render import IGNORE
from linkcontext.mini import clip, language, tokenizer
from linkcontext.mini import conversations as talk
from linkcontext.mini.pool import Pool
from linkcontext.mini.recipe import recipe
from linkcontext.worlds import concepts

CPU = torch.device("cpu")
RECIPE = dataclasses.replace(recipe("nano"), width=192, layers=4, mlp=256, vocabulary=768, tokens=2048)


@pytest.fixture(scope="module")
def words():
    return tokenizer.build(RECIPE.vocabulary, 300)


@pytest.fixture(scope="module")
def writer(words):
    torch.manual_seed(1)

    def pool(count):
        centres = torch.randn(count, 1, RECIPE.tokens_per_image, RECIPE.vision_width)
        features = centres + 0.3 * torch.randn(count, RECIPE.pictures, *centres.shape[2:])
        return Pool(features.half(), concepts.draw(count, "pool"))

    return language.Writer(words, {"fresh": pool(24), "taught": pool(RECIPE.taught)}, RECIPE)


@pytest.fixture
def model(words, writer):
    seen = CLIPModel(clip.configuration(RECIPE, words))
    return language.start(RECIPE, seen, words, writer.pools["fresh"].features)


def test_labels_are_the_names_asked_for_again_and_their_end(writer, words):
    shape = talk.LinkShape(ways=2, turns=5, repeats=0.0, hard=0.0)
    said = talk.link(shape, "fresh", 24, 8, writer.vocabulary, talk.stream("l", 0, 0))
    tokens = writer.tokens(said)
    asked = [turn.answer for turn, known in zip(said.turns, said.supervised, strict=True) if known]
    labelled = words.decode([i for i in tokens.labels if i != IGNORE])
    assert labelled == "".join(f"{answer}<|end|>" for answer in asked)
    assert sum(i == writer.image for i in tokens.ids) == 5


def test_a_batch_has_every_conversation_with_its_own_pictures(writer):
    shape = talk.LinkShape(ways=2, turns=3, repeats=0.0, hard=0.0)
    rows = [
        writer.tokens(talk.link(shape, "fresh", 24, 8, writer.vocabulary, talk.stream("b", 0, i))) for i in range(4)
    ]
    batch = writer.batch(rows, CPU)
    assert len(batch.features) == 12
    asked = sorted(words for row in rows for words in row.labels if words != IGNORE)
    assert sorted(int(i) for tree in batch.trees for i in tree.ids[tree.weight > 0]) == asked
    shown = {int(number) for tree in batch.trees for number in tree.image if number >= 0}
    assert shown == set(range(12))
    pool, concept, number = rows[1].pictures[0].split("/")
    torch.testing.assert_close(batch.features[3], writer.pools[pool].features[int(concept), int(number)].float())


def test_the_batch_does_not_change_the_loss(model, writer):
    shape = talk.LinkShape(ways=2, turns=4, repeats=0.0, hard=0.0)
    rows = [
        writer.tokens(talk.link(shape, "fresh", 24, 8, writer.vocabulary, talk.stream("c", 0, i))) for i in range(3)
    ]
    with torch.no_grad():
        together, _ = language.loss(model, writer.batch(rows, CPU))
        alone = [language.loss(model, writer.batch([row], CPU))[0] for row in rows]
    counts = [sum(i != IGNORE for i in row.labels) for row in rows]
    mean = sum(float(a) * n for a, n in zip(alone, counts, strict=True)) / sum(counts)
    assert float(together) == pytest.approx(mean, abs=1e-4)


def test_attention_begins_by_looking_up(model, writer):
    """Before any training a random text is likelier the second time; with random weights it is not."""
    batch = language.induction_batch(RECIPE, "t", 0, CPU)
    with torch.no_grad():
        begun = float(language.loss(model, batch)[0])
        for layer in model.model.language_model.layers[:2]:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                torch.nn.init.normal_(projection.weight, std=RECIPE.width**-0.5)
                torch.nn.init.zeros_(projection.bias)
        random = float(language.loss(model, batch)[0])
    assert begun < random - 0.1


def test_it_overfits_a_handful_of_episodes(model, writer):
    shape = talk.LinkShape(ways=2, turns=4, repeats=0.0, hard=0.0)
    rows = [
        writer.tokens(talk.link(shape, "fresh", 24, 8, writer.vocabulary, talk.stream("o", 0, i))) for i in range(4)
    ]
    batch = writer.batch(rows, CPU)
    optim = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(60):
        value, _ = language.loss(model, batch)
        value.backward()
        optim.step()
        optim.zero_grad()
    with torch.no_grad():
        value, right = language.loss(model, batch)
    assert float(value) < 0.1
    assert right == 1.0
