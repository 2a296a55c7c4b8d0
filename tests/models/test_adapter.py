"""LoRA adapters: on the model they were made for, and on another."""

import json

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny_models import save_llava, tiny_clip, tiny_llava
from tokenizer import build_tokenizer

from linkcontext.errors import InputError
from linkcontext.models.loading import load_model

# PEFT asks transformers for an attribute that has a newer name.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
TARGETS = r".*language_model\..*\.(q|v)_proj$"


@pytest.fixture(scope="module")
def deeper(tmp_path_factory):
    """The folder of a nano model with one more layer."""
    folder = tmp_path_factory.mktemp("models") / "deeper"
    words = build_tokenizer(768, 200)
    torch.manual_seed(0)
    seen = tiny_clip(words)
    model = tiny_llava(seen, words)
    config = model.config
    config.text_config.num_hidden_layers += 1
    config.text_config.layer_types = None
    save_llava(type(model)(config), words, folder)
    return folder


def adapter(model, folder, base=None):
    """An adapter with weights that change the answers; `base` is the model that it records."""
    network = load_model(str(model), device="cpu").network
    tuned = get_peft_model(network, LoraConfig(r=2, target_modules=TARGETS))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    tuned.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base or model)}))
    return str(folder)


def test_an_adapter_changes_the_model_that_it_was_made_for(nano, tmp_path, caplog):
    plain, tuned = (load_model(str(nano), device="cpu", adapter=a) for a in (None, adapter(nano, tmp_path / "a")))
    changed = [
        name
        for name, value in plain.network.state_dict().items()
        if not torch.equal(value, tuned.network.state_dict()[name])
    ]
    assert len(changed) == 4  # two layers, queries and values
    assert caplog.messages == []


def test_an_adapter_for_another_base_is_refused_by_its_layers(nano, deeper, tmp_path):
    with pytest.raises(InputError, match=r"was made for another model than .*nano: it has weights for layers that the"):
        load_model(str(nano), device="cpu", adapter=adapter(deeper, tmp_path / "a"))
    with pytest.raises(InputError, match="it lacks weights for layers of the model"):
        load_model(str(deeper), device="cpu", adapter=adapter(nano, tmp_path / "b"))


def test_an_adapter_for_another_base_with_the_same_layers_is_a_warning(nano, tmp_path, caplog):
    load_model(str(nano), device="cpu", adapter=adapter(nano, tmp_path / "a", base="some/other-model"))
    assert "was made for some/other-model by its adapter_config.json" in caplog.text


def test_a_folder_that_is_no_adapter_is_refused(nano, tmp_path):
    with pytest.raises(InputError, match="does not fit the model"):
        load_model(str(nano), device="cpu", adapter=str(tmp_path))


@pytest.mark.parametrize("text", ["{}", "[]", '{"peft_type": "OTHER"}', '{"peft_type": "LORA", "target_modules": 5}'])
def test_a_damaged_configuration_is_a_sentence(nano, tmp_path, text):
    folder = adapter(nano, tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"its adapter_config.json cannot be used \(\w+Error: .*Save the adapter"):
        load_model(str(nano), device="cpu", adapter=folder)


def test_embeddings_before_a_prompt_are_refused(nano, tmp_path):
    network = load_model(str(nano), device="cpu").network
    text = network.config.get_text_config()
    sizes = {"token_dim": text.hidden_size, "num_layers": text.num_hidden_layers, "num_attention_heads": 1}
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, num_transformer_submodules=1, **sizes)
    get_peft_model(network, config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="type PROMPT_TUNING, which puts embeddings before a prompt"):
        load_model(str(nano), device="cpu", adapter=str(tmp_path))
