"""What the families have in common: chat templates, tokenizers, small language models, random weights."""

import torch
import transformers as hf
from tokenizer import sentences
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CONTENT = (
    "{%% for part in message['content'] %%}{%% if part['type'] == 'image' %%}%s{%% else %%}{{ part['text'] }}"
    "{%% endif %%}{%% endfor %%}"
)


def chat(image, before, after, reply, bos=""):
    """A chat template: what stands before and after each message, and before a reply."""
    loop = "{% for message in messages %}" + before + CONTENT % image + after + "{% endfor %}"
    return bos + loop + "{% if add_generation_prompt %}" + reply + "{% endif %}"


def chatml(image, bos=""):
    """The template of most families."""
    before = "<|im_start|>{{ message['role'] }}\n"
    return chat(image, before, "<|im_end|>\n", "<|im_start|>assistant\n", bos)


def words(*special, end, bos="", **named):
    """A byte-level tokenizer with special tokens; `named` are those that a processor asks for by name."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    every = dict.fromkeys(["<|pad|>", end, *([bos] if bos else []), *special, *named.values()])
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in every],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(60), trainer)
    if bos:
        mark = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[mark])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token="<|pad|>",
        extra_special_tokens=named,
        **({"bos_token": bos} if bos else {}),
    )


def text(tokenizer, **changes):
    """The configuration of a language model of two layers, with its `model_type` where the family has several."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 8192}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    return {"vocab_size": len(tokenizer), **sizes, **heads, **ids, **changes}


def numbered(tokenizer, **tokens):
    """The ids of tokens, by the names that a configuration has for them."""
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def square(edge):
    """The size of pictures that are brought to one shape."""
    return {"height": edge, "width": edge}


def random_weights(kind, config, scale=1.5):
    """A network whose answers differ from one another by more than rounding."""
    torch.manual_seed(0)
    network = kind(config).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, scale * max(1, weight[0].numel()) ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(0, 0.1)
    return network.float()
