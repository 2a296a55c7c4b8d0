"""Each head of the start does what its name says, on pictures that are nothing but points in space."""

import circuits
import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen3Config

PLACES, NUMBERS, UNITS = 5, 64, 50  # tokens of a picture, and numbers of a token: its place, then what is there
IMAGE, USER, ASSISTANT, END = 1, 2, 3, 4
WIDTH = 384


@pytest.fixture(scope="module")
def model():
    text = Qwen3Config(
        vocab_size=200,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=192,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": circuits.THETA},
        attention_bias=False,
        tie_word_embeddings=True,
    )
    vision = CLIPVisionConfig(
        hidden_size=NUMBERS,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=32,
        patch_size=16,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=IMAGE,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )
    reading = circuits.Reading(
        mean=torch.zeros(PLACES, NUMBERS).fill_diagonal_(1.0),
        whitening=torch.eye(NUMBERS),
        place=torch.zeros(PLACES, NUMBERS).fill_diagonal_(1.0),
        place_bias=torch.zeros(PLACES),
        directions=torch.eye(NUMBERS)[PLACES : PLACES + UNITS].repeat(PLACES, 1),
        places=torch.arange(PLACES).repeat_interleave(UNITS),
        mixture=circuits.orthonormal(circuits.CONTENT, PLACES * UNITS, torch.Generator().manual_seed(3)),
        spread=torch.ones(circuits.CONTENT),
    )
    circuits.prepare(model, reading, USER, ASSISTANT, circuits.Strength(), torch.Generator().manual_seed(1))
    return model.eval()


def picture(seed: int, noise: float = 0.0, other: int = 0) -> torch.Tensor:
    """float32[PLACES, NUMBERS]: a thing, seen with some noise."""
    thing = torch.randn(PLACES, NUMBERS, generator=torch.Generator().manual_seed(seed))
    thing = thing + noise * torch.randn(PLACES, NUMBERS, generator=torch.Generator().manual_seed(1000 + other))
    thing[:, :PLACES] = torch.eye(PLACES)
    return thing


class Reader:
    """A conversation as the model reads it."""

    def __init__(self, model) -> None:
        self.model, self.ids, self.pictures = model, [], []

    def turn(self, shown: torch.Tensor | None, question: list[int], answer: list[int] | None) -> "Reader":
        """A user's turn and its answer; without an answer the conversation ends where it is to begin."""
        self.ids.append(USER)
        if shown is not None:
            self.ids += [IMAGE] * PLACES
            self.pictures.append(shown)
        self.ids += [*question, ASSISTANT]
        if answer is not None:
            self.ids += [*answer, END]
        return self

    @torch.no_grad()
    def read(self):
        """Attention of every layer [heads, tokens, tokens] and logits [tokens, vocabulary]."""
        ids = torch.tensor([self.ids])
        embedded = self.model.get_input_embeddings()(ids).clone()
        if self.pictures:
            embedded[ids == IMAGE] = self.model.model.multi_modal_projector(torch.cat(self.pictures))
        out = self.model(inputs_embeds=embedded, output_attentions=True)
        return [layer[0] for layer in out.attentions], out.logits[0]


def test_layer_0_looks_one_and_two_tokens_back(model):
    attention, _ = Reader(model).turn(None, [10, 11, 12, 13], [14, 15]).read()
    rows = np.arange(3, 9)
    assert (attention[0][0, rows, rows - 1] > 0.95).all()
    assert (attention[0][1, rows, rows - 2] > 0.95).all()


def test_layer_0_adds_up_one_picture_at_the_token_behind_it(model):
    reader = Reader(model).turn(picture(1), [], [10]).turn(picture(2), [50] * 30, None)
    attention, _ = reader.read()
    behind = max(i for i, t in enumerate(reader.ids) if t == IMAGE) + 1
    here = attention[0][2, behind, behind - PLACES : behind]
    assert here.sum() > 0.98
    assert here.min() > 0.4 * here.max()  # about evenly
    far = attention[0][2, len(reader.ids) - 1]
    assert far[[i for i, t in enumerate(reader.ids) if t == IMAGE]].sum() < 0.02


@pytest.mark.parametrize("words", [0, 1, 30])
def test_layer_1_finds_the_picture_of_the_turn_behind_any_question(model, words):
    reader = Reader(model)
    for seed in range(4):
        reader.turn(picture(seed), list(range(20, 20 + words)), [10 + seed])
    reader.turn(picture(9), list(range(20, 20 + words)), None)
    attention, _ = reader.read()
    behind = max(i for i, t in enumerate(reader.ids) if t == IMAGE) + 1
    assert attention[1][0, -1, behind] > 0.9


def test_layer_1_sees_no_picture_in_a_turn_without_one(model):
    reader = Reader(model).turn(picture(1), [], [10]).turn(None, [30, 31], None)
    attention, _ = reader.read()
    pictured = [i + 1 for i, t in enumerate(reader.ids) if t == IMAGE]
    assert (
        attention[1][0, -1, pictured].sum() < 0.05
    )  # three words after the picture are the shortest distance there is


def test_layer_2_gives_the_name_of_the_similar_picture(model):
    right = 0
    for trial in range(20):
        reader = Reader(model)
        for shot in range(3):
            reader.turn(picture(100 + trial, 0.7, 10 * trial + shot), [50], [10, 11])
            reader.turn(picture(200 + trial, 0.7, 500 + 10 * trial + shot), [50], [12, 13])
        one = trial % 2
        reader.turn(picture((100, 200)[one] + trial, 0.7, 900 + trial), [50], None)
        _, logits = reader.read()
        right += int(logits[-1, (10, 12)[one]] > logits[-1, (12, 10)[one]])
        assert logits[-1].argmax() in (10, 12)
    assert right >= 19


def test_names_that_begin_alike_go_on_as_the_picture_says(model):
    for one, second in ((1, 11), (2, 12)):
        reader = Reader(model)
        for shot in range(2):
            reader.turn(picture(1, 0.5, shot), [50], [10, 11])
            reader.turn(picture(2, 0.5, 50 + shot), [50], [10, 12])
        reader.turn(picture(one, 0.5, 99), [50], [10])
        reader.ids.pop()  # the end: the name goes on
        _, logits = reader.read()
        assert logits[-1].argmax() == second


def test_small_talk_does_not_change_the_answer(model):
    def reader(talk: int) -> Reader:
        one = Reader(model)
        for shot in range(2):
            one.turn(picture(1, 0.5, shot), [50], [10, 11])
            one.turn(picture(2, 0.5, 50 + shot), [50], [12, 13])
        for number in range(talk):
            one.turn(None, [60 + number, 61 + number], [80 + number, 81 + number])
        return one.turn(picture(2, 0.5, 99), [50], None)

    quiet, talking = (reader(talk).read()[1][-1].log_softmax(0) for talk in (0, 12))
    assert quiet.argmax() == talking.argmax() == 12
    assert talking[12] > -0.2


def test_without_pictures_it_repeats_what_it_read(model):
    words = [int(w) for w in torch.randint(10, 190, (12,), generator=torch.Generator().manual_seed(5))]
    reader = Reader(model)
    reader.ids = [*words, *words]
    _, logits = reader.read()
    assert (logits[12:-1].argmax(1) == torch.tensor(words[1:])).float().mean() > 0.9


def test_the_window_is_even_inside_and_low_outside():
    class Attention:
        head_dim = 192

    head = circuits.Head(Attention, 0)
    wave, gap = circuits.window(head, 17)
    back = torch.arange(60.0)
    score = (wave[None] * torch.exp(-1j * back[:, None] * head.frequencies()[None])).sum(1).real
    assert gap > 0.3
    assert score[:17].max() - score[:17].min() < 0.1
    assert score[:17].min() - score[21:].max() > 0.3


def test_what_a_token_is_leaves_no_trace_in_what_its_picture_shows(model):
    b = circuits.blocks(WIDTH)
    contents = []
    for name in (20, 150):
        reader = Reader(model).turn(picture(1), [], [name])
        with torch.no_grad():
            ids = torch.tensor([reader.ids])
            embedded = model.get_input_embeddings()(ids).clone()
            embedded[ids == IMAGE] = model.model.multi_modal_projector(picture(1))
            out = model.model.language_model(inputs_embeds=embedded, output_hidden_states=True)
        contents.append(out.hidden_states[circuits.COMPARING][0, reader.ids.index(name), b.content])
    assert contents[0].norm() > 0.5
    torch.testing.assert_close(contents[0], contents[1], atol=1e-4, rtol=0)
