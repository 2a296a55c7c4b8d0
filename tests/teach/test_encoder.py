"""Another encoder of pictures: a CLIP, a vision model without a text tower, and what cannot be one."""

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, ConvNextConfig, ConvNextModel, Dinov2Config, Dinov2Model
from transformers import BitImageProcessorPil as Processor

from linkcontext.cli import main
from linkcontext.errors import InputError
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.encoder import load_picture_encoder
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack


def saved(network, folder):
    network.save_pretrained(folder)
    Processor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    return saved(Dinov2Model(Dinov2Config(**sizes)), tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def lesson():
    dataset = open_data("world:3")
    classes = list(dataset.by_class().values())
    paths = {name: [dataset.path(i.id) for i in classes[at]] for name, at in (("lum", 0), ("dax", 5))}
    return {name: own[:4] for name, own in paths.items()}, paths["lum"][8]


def test_vectors_are_unit_rows_of_the_pooled_output(dino):
    encoder = load_picture_encoder(dino)
    images = [Image.new("RGB", (40, 32), colour) for colour in ("red", "blue", "white")]
    rows = encoder.encode(images)
    assert rows.shape == (3, 24)
    assert rows.norm(dim=1).tolist() == pytest.approx([1] * 3)
    network = Dinov2Model.from_pretrained(dino).eval()
    with torch.inference_mode():
        pooled = network(**encoder.processor(images=images[:1], return_tensors="pt")).pooler_output[0]
    assert rows[0].tolist() == pytest.approx((pooled / pooled.norm()).tolist(), abs=1e-5)


def test_a_clip_and_a_convolutional_network_are_encoders_too(tmp_path):
    assert load_picture_encoder("mini-clip").encode([Image.new("RGB", (9, 9))]).ndim == 2
    network = ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]))
    assert load_picture_encoder(saved(network, tmp_path)).encode([Image.new("RGB", (9, 9))]).shape == (1, 8)


def test_what_is_no_encoder_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="neither mini-clip nor a folder or hub id that can be loaded"):
        load_picture_encoder(str(tmp_path / "nowhere"))
    text = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    with pytest.raises(InputError, match="makes no vector of a picture"):
        load_picture_encoder(saved(text, tmp_path))


def test_a_pack_keeps_the_vectors_of_its_encoder(mini, dino, lesson, tmp_path):
    taught, new = lesson
    learner = Learner(LocalModel(mini), head="knn", encoder=load_picture_encoder(dino), augment=("flip", "crop"))
    learner.teach(taught)
    assert learner.pictures.kinds == ("tokens", "pooled", "encoder", "tokens+encoder")
    assert {kind: learner.pictures.rows(kind).shape[1] for kind in learner.pictures.kinds} == dict.fromkeys(
        learner.pictures.kinds, 7
    )
    before = learner.ask(new)
    pack = write_pack(learner, tmp_path / "two.pack")
    again = read_pack(pack.path).learner(LocalModel(mini))
    assert again.encoder.identity == learner.encoder.identity
    assert again.augment == ("flip", "crop")
    assert again.ask(new).probabilities == pytest.approx(before.probabilities, abs=1e-6)


def test_another_encoder_reads_the_pictures_again(mini, dino, lesson, tmp_path):
    taught, new = lesson
    learner = Learner(LocalModel(mini), encoder=load_picture_encoder("mini-clip"))
    learner.teach(taught)
    pack = write_pack(learner, tmp_path / "two.pack")
    again = pack.learner(LocalModel(mini), load_picture_encoder(dino))
    assert again.pictures.rows("encoder").shape == (8, 1, 24)
    fresh = Learner(LocalModel(mini), encoder=load_picture_encoder(dino))
    fresh.teach(taught)
    assert again.ask(new).probabilities == pytest.approx(fresh.ask(new).probabilities, abs=1e-5)


def test_a_pack_from_elsewhere_does_not_choose_what_is_loaded(mini, dino, lesson, tmp_path, monkeypatch):
    learner = Learner(LocalModel(mini), encoder=load_picture_encoder(dino))
    learner.teach(lesson[0])
    write_pack(learner, tmp_path / "two.pack")
    monkeypatch.setattr("linkcontext.teach.pack.is_sealed", lambda *_: False)
    with pytest.raises(InputError, match="name it with --encoder"):
        read_pack(tmp_path / "two.pack").learner(LocalModel(mini))
    assert read_pack(tmp_path / "two.pack", trust=True).learner(LocalModel(mini)).encoder is not None


def test_the_command_line_takes_an_encoder_and_an_operating_point(lesson, dino, tmp_path, capsys):
    taught, new = lesson
    for name, paths in taught.items():
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for path in paths:
            (tmp_path / "zoo" / name / path.name).write_bytes(path.read_bytes())
    pack = str(tmp_path / "zoo.pack")
    options = ["--encoder", dino, "--augment", "flip", "--reject", "0.9", "--head", "centroid"]
    main(["teach", "--data", str(tmp_path / "zoo"), "--out", pack, *options])
    assert "(centroid)" in capsys.readouterr().out
    assert read_pack(tmp_path / "zoo.pack").header.goal.reject == 0.9
    main(["ask", pack, str(new), "--accept", "0.8"])
    assert "lum" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["ask", pack, str(new), "--accept", "0.8", "--reject", "0.8"])
    assert stop.value.code == 2
    assert "choose one of them" in capsys.readouterr().err
