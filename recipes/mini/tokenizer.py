"""The bundled models' tokenizer: byte-level BPE learnt from sentences that this module makes up."""

from collections.abc import Iterable, Iterator
from itertools import chain

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from linkcontext.episodes.names import random_string
from linkcontext.seeds import rng
from linkcontext.worlds import concepts, questions
from linkcontext.worlds.pseudo_words import pseudo_words

PAD, IMAGE, USER, ASSISTANT, END, TEXT_START = (
    "<pad>",
    "<image>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|text|>",
)
SPECIAL = (PAD, IMAGE, USER, ASSISTANT, END, TEXT_START)
CONTEXT = 4096

# A question, its answer and nothing else: short turns are cheap to train on.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|user|>' if message.role == 'user' else '<|text|>' if message.role == 'system' else '<|assistant|>' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{{- '<image>' if part.type == 'image' else part.text -}}"
    "{%- endfor -%}{%- endif -%}"
    "{%- if message.role == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def sentences(count: int) -> Iterator[str]:
    """What the tokenizer learns from: questions, captions, invented names, the words around them."""
    stream = rng("tokenizer")
    names = pseudo_words(count, "tokenizer")
    things = concepts.facts(concepts.decode(concepts.draw_concepts(count, "tokenizer")))
    for name, fact in zip(names, things, strict=True):
        yield questions.caption(fact)
        yield name
        yield str(stream.choice(questions.NAMING + questions.DESCRIBING))
        yield random_string(stream)
        for question in questions.attribute_questions(fact):
            yield question.question
            yield question.answer
        yield f'[BEGIN EXAMPLE] What is in the image? there is "{name}" in the image. [END EXAMPLE]'
        yield "[FINAL QUESTION]: Based on the previous examples, what is in the image?"


def build_tokenizer(vocabulary: int, count: int = 4000, more: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of so many tokens from `count` things of the world and `more` texts; always the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(sentences(count), more), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[IMAGE, USER, ASSISTANT, TEXT_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
