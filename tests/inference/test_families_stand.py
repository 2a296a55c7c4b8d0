"""The stand-ins of the families can be relied upon: padding changes nothing, pictures change much."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image
from torch import nn

from linkcontext.models.calls import cache_argument

SIZES = ((64, 64), (96, 64), (64, 96))


def picture(seed):
    """Four by four coloured fields; square, wide or tall."""
    fields = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(fields).resize(SIZES[seed % 3], Image.Resampling.NEAREST)


def messages(shown, question="What is in the image?"):
    """Support pictures with their answers, then a question about the last picture."""
    found = []
    for i in range(shown):
        content = [{"type": "image", "image": str(i)}, {"type": "text", "text": question}]
        found.append({"role": "user", "content": content})
        if i < shown - 1:
            answer = f"there is a {('red', 'blue')[i]} dog"
            found.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return found or [{"role": "user", "content": [{"type": "text", "text": question}]}]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, *FAMILIES[request.param]()


def last(network, inputs):
    """Logits after each prompt's last token."""
    with torch.inference_mode():
        logits = network(**inputs).logits
    mask = inputs["attention_mask"]
    return logits[torch.arange(len(mask)), mask.shape[1] - 1 - mask.flip(1).argmax(1)]


def prompts(stand, counts):
    return [stand.apply_chat_template(messages(n), add_generation_prompt=True) for n in counts]


def test_a_padded_batch_gives_what_each_prompt_gives_alone(family):
    _, network, stand = family
    texts, images = prompts(stand, (2, 3)), [[picture(0), picture(1)], [picture(4), picture(5), picture(3)]]
    batch = last(network, stand(text=texts, images=images, padding=True, padding_side="right"))
    alone = [last(network, stand(text=[t], images=[row]))[0] for t, row in zip(texts, images, strict=True)]
    assert batch.isfinite().all()
    torch.testing.assert_close(batch, torch.stack(alone), atol=1e-4, rtol=0)


def test_every_picture_changes_the_answer(family):
    name, network, stand = family
    (text,) = prompts(stand, (3,))
    first = [picture(0), picture(1), picture(2)]
    before = last(network, stand(text=[text], images=[first]))
    for i in range(3):
        other = [picture(i + 6) if j == i else p for j, p in enumerate(first)]  # of the same shape
        change = (last(network, stand(text=[text], images=[other])) - before).abs().max()
        # Through a window in every layer, what is far away is not seen at all.
        assert (change == 0) if (name, i) == ("mistral3_window", 0) else (change > 1e-2), (i, float(change))


def test_the_text_of_the_context_changes_the_answer(family):
    _, network, stand = family
    (text,) = prompts(stand, (3,))
    shown = [picture(0), picture(1), picture(2)]
    one, two = (last(network, stand(text=[t], images=[shown])) for t in (text, text.replace("blue", "tree")))
    assert (one - two).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["gemma3", "mistral3_window"])
def test_the_window_cuts(name):
    network, stand = FAMILIES[name]()
    inputs = stand(text=prompts(stand, (2,)), images=[[picture(0), picture(1)]])
    before = last(network, inputs)
    network.config.get_text_config().sliding_window = 4096
    assert (last(network, inputs) - before).abs().max() > 1e-2


def test_paligemma_scores_an_answer_causally_only_if_its_tokens_have_type_1():
    network, stand = FAMILIES["paligemma"]()
    inputs = stand(text=prompts(stand, (2,)), images=[[picture(0), picture(1)]])
    del inputs["labels"]
    answer = stand.tokenizer("red dog<|end|>", return_tensors="pt")["input_ids"]
    ids = torch.cat([inputs["input_ids"], answer], 1)
    types = torch.cat([inputs["token_type_ids"], torch.ones_like(answer)], 1)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": inputs["pixel_values"]}
    with torch.inference_mode():
        cached = network(**inputs, use_cache=True)
        one_by_one, name = [cached.logits[:, -1]], cache_argument(type(network))
        for token in answer[0, :-1]:
            out = network(input_ids=token[None, None], use_cache=True, **{name: cached.past_key_values})
            one_by_one.append(out.logits[:, -1])
        right, wrong = (
            network(**whole, token_type_ids=t).logits[0, -answer.shape[1] - 1 : -1] for t in (types, 0 * types)
        )
    torch.testing.assert_close(right, torch.cat(one_by_one), atol=1e-4, rtol=0)
    assert (wrong - right).abs().max() > 1e-2


def test_the_cache_goes_by_the_name_that_the_installed_transformers_has():
    class Older(nn.Module):
        def forward(self, inputs_embeds, past_key_values=None, **kwargs):
            pass

    class Newer(nn.Module):
        def forward(self, inputs_embeds, cache=None, **kwargs):
            pass

    assert (cache_argument(Older), cache_argument(Newer)) == ("past_key_values", "cache")


def test_pictures_of_other_shapes_take_another_room(family):
    name, _, stand = family
    (text,) = prompts(stand, (1,))
    lengths = {stand(text=[text], images=[[picture(i)]])["input_ids"].shape[1] for i in range(3)}
    assert (len(lengths) == 1) == (name in {"llava", "idefics2", "gemma3", "paligemma", "idefics"})


def test_a_text_without_pictures_is_answered(family):
    _, network, stand = family
    texts = [stand.apply_chat_template(messages(0, q), add_generation_prompt=True) for q in ("What?", "Is it so?")]
    inputs = stand(text=texts, images=None, padding=True, padding_side="left")
    assert last(network, inputs).isfinite().all()
    inputs.pop("labels", None)
    ids = network.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert ids.shape[1] == inputs["input_ids"].shape[1] + 3
    assert all(isinstance(stand.tokenizer.decode(row, skip_special_tokens=True), str) for row in ids)


def test_a_prompt_with_pictures_is_answered_whatever_the_side_of_the_padding(family):
    _, network, stand = family
    texts, images = prompts(stand, (2, 3)), [[picture(0), picture(1)], [picture(4), picture(5), picture(3)]]
    inputs = stand(text=texts, images=images, padding_side="left")
    alone = stand(text=texts[:1], images=images[:1])
    found = []
    for given in (inputs, alone):
        given.pop("labels", None)
        length = given["input_ids"].shape[1]
        out = network.generate(**given, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        found.append(out[0, length:].tolist())
    assert found[0] == found[1]


def test_all_tokens_have_a_row(family):
    _, network, stand = family
    assert len(stand.tokenizer) <= network.config.get_text_config().vocab_size
    assert network.dtype == torch.float32
    assert not network.training
