"""A saved model has the names of published checkpoints, and transformers loads it to the same weights."""

import pytest
import torch
import transformers as hf
from safetensors import safe_open

from linkcontext.models.saving import published_names, save_model

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
TEXT = {**TOWER, "vocab_size": 99, "num_key_value_heads": 1}
LLAMA = hf.LlamaConfig(**TEXT)
CLIP, SIGLIP = hf.CLIPVisionConfig(**TOWER), hf.SiglipVisionConfig(**TOWER)
FAMILIES = [
    hf.LlavaConfig(vision_config=CLIP, text_config=LLAMA, image_token_index=5),
    hf.LlavaConfig(vision_config=SIGLIP, text_config=LLAMA, image_token_index=5),
    hf.LlavaNextConfig(vision_config=CLIP, text_config=LLAMA, image_token_index=5),
    hf.LlavaOnevisionConfig(vision_config=SIGLIP, text_config=LLAMA, image_token_index=5),
    hf.Gemma3Config(vision_config=SIGLIP, text_config=hf.Gemma3TextConfig(**TEXT, head_dim=16), image_token_index=5),
]


class NoProcessor:
    """Writes nothing."""

    def save_pretrained(self, folder):
        """Nothing."""


@pytest.mark.parametrize("config", FAMILIES, ids=lambda c: f"{c.model_type}-{c.vision_config.model_type}")
def test_a_tower_is_saved_as_published_checkpoints_have_it(config, tmp_path):
    torch.manual_seed(0)
    network = hf.AutoModelForImageTextToText.from_config(config)
    for source in ("made here", "loaded"):  # transformers writes the names that it has read
        folder = tmp_path / source
        save_model(network, NoProcessor(), folder)
        with safe_open(folder / "model.safetensors", "pt") as file:
            tower = [key for key in file.keys() if "vision_tower." in key]  # noqa: SIM118 - not a dictionary
        assert tower
        assert all("vision_tower.vision_model." in key for key in tower)
        assert not any("vision_model.vision_model." in key for key in tower)
        again = hf.AutoModelForImageTextToText.from_pretrained(folder)
        expected = network.state_dict()
        assert {*again.state_dict()} == {*expected}
        assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
        network = again


def test_other_weights_keep_their_names():
    text = hf.LlamaForCausalLM(LLAMA)
    state = text.state_dict()
    assert published_names(text, state).keys() == state.keys()
