import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoProcessor,
    CLIPModel,
    CLIPVisionModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from linkcontext.data.manifest import Dataset
from linkcontext.data.neighbours import provenance_file, read_neighbours
from linkcontext.errors import InputError
from linkcontext.mining import embed
from linkcontext.mining.embed import Block, blocks, choose_images, load_encoder, mean, mine, write_block
from linkcontext.models import bundled

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clip():
    return load_encoder("mini-clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """The folder of a tiny SigLIP with random weights."""
    folder = tmp_path_factory.mktemp("models") / "siglip"
    words = AutoProcessor.from_pretrained(bundled.folder("mini-clip")).tokenizer
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = small | {"vocab_size": len(words), "max_position_embeddings": 12, "projection_size": 32}
    seen = small | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=text, vision_config=seen)).save_pretrained(folder)
    eyes = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    SiglipProcessor(image_processor=eyes, tokenizer=words).save_pretrained(folder)
    return folder


def features(out):
    return sorted(out.with_suffix(".features").iterdir())


def written(out):
    return (
        out.read_bytes(),
        provenance_file(out).read_bytes(),
        [(path.name, path.read_bytes()) for path in features(out)],
    )


def test_the_mean_by_hand(tmp_path):
    # (.6, .8) + (0, 1) + (1, 0) = (1.6, 1.8), of length sqrt(5.8)
    write_block(tmp_path / "a", torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    write_block(tmp_path / "b", torch.tensor([[5.0, 0.0]]))
    found = mean([Block(tmp_path / "a"), Block(tmp_path / "b")])
    assert found == pytest.approx(np.array([1.6, 1.8]) / np.sqrt(5.8), abs=1e-15)


def test_features_are_those_of_the_model(clip, things):
    paths = [things.root / item.path for item in things.items[:3]]
    model = CLIPModel.from_pretrained(bundled.folder("mini-clip"))
    processor = AutoProcessor.from_pretrained(bundled.folder("mini-clip"))
    images = processor.image_processor(images=[embed.open_image(path) for path in paths], return_tensors="pt")
    # mini-clip was trained on texts between these marks, and reads a text at the second.
    texts = processor.tokenizer(
        ["<|text|>a red cat<|end|>", "<|text|>cat<|end|>"], padding=True, return_tensors="pt", add_special_tokens=False
    )
    with torch.inference_mode():
        seen = model.get_image_features(**images).pooler_output
        read = model.get_text_features(input_ids=texts["input_ids"]).pooler_output
    assert torch.allclose(clip.encode_images(clip.pixels(paths)), seen, atol=1e-5)
    assert torch.allclose(clip.encode_texts(["a red cat", "cat"]), read, atol=1e-5)
    long = clip.encode_texts(["cat " * 60, "dog " * 60])  # cut, and the mark still there
    assert (long[0] - long[1]).abs().max() > 0.01


def test_siglip_mines_as_well(siglip, things, tmp_path):
    encoder = load_encoder(str(siglip))
    ids = encoder.processor.tokenizer(["cat"], padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        read = encoder.network.get_text_features(input_ids=ids).pooler_output
    assert torch.allclose(encoder.encode_texts(["cat"]), read, atol=1e-6)
    assert mine(things, tmp_path / "n.jsonl", str(siglip))
    assert {len(near) for near in read_neighbours(tmp_path / "n.jsonl", things).values()} == {5}


def test_names_and_pictures_of_the_world_find_their_twins(things, tmp_path):
    """Every second class of the world is the hard neighbour of the one before it."""
    mine(things, tmp_path / "n.jsonl", weights=(0, 0, 1), rule="topk", picture=tmp_path / "sheet.png")
    near, names = (
        read_neighbours(tmp_path / "n.jsonl", things),
        {i.class_id: i.facts["neighbours"] for i in things.items},
    )
    assert sum(near[class_id][0] in twins for class_id, twins in names.items()) >= 4
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_pictures_are_different_and_do_not_depend_on_the_order(things):
    one = choose_images(things, 4, None, 0)
    assert {len(items) for items in one.values()} == {4}
    assert one == choose_images(Dataset(things.root, things.items[::-1]), 4, None, 0)
    assert one != choose_images(things, 4, None, 1)
    copies = [dataclasses.replace(i, id=f"z/{i.id}", path=f"z/{i.path}") for i in things.items]
    assert one == choose_images(Dataset(things.root, (*copies, *things.items)), 4, None, 0)
    again = [dataclasses.replace(i, sha256="0" * 64) for i in copies]  # the same pixels in other bytes
    assert one == choose_images(Dataset(things.root, (*again, *things.items)), 4, None, 0)
    first, other = min(one), max(one)
    wrong = dataclasses.replace(one[first][0], id="z", path="z", class_id=other, name=things.names()[other])
    found = choose_images(Dataset(things.root, (*things.items, wrong)), 40, None, 0)
    assert wrong.content not in {item.content for items in found.values() for item in items}


def test_the_order_of_the_data_set_changes_no_byte(things, tmp_path):
    mine(things, tmp_path / "a.jsonl", images_per_class=5)
    mine(Dataset(things.root, things.items[::-1]), tmp_path / "b.jsonl", images_per_class=5)
    assert written(tmp_path / "a.jsonl") == written(tmp_path / "b.jsonl")


def test_killed_and_started_again_it_goes_on_to_the_same_bytes(things, tmp_path, monkeypatch):
    looked, look = [], embed.Encoder.encode_images

    def counted(encoder, pixels):
        if len(looked) == limit:
            raise KeyboardInterrupt
        looked.append(len(pixels))
        return look(encoder, pixels)

    monkeypatch.setattr(embed.Encoder, "encode_images", counted)
    monkeypatch.setattr(embed, "BATCH", 2)  # five batches of each class of nine
    out, limit = tmp_path / "a.jsonl", 17
    with pytest.raises(KeyboardInterrupt):
        mine(things, out)
    done = len(features(out))
    assert 2 <= done < 6
    assert not out.exists()
    looked, limit = [], 100
    mine(things, out)
    assert sum(looked) == 9 * (6 - done)
    looked = []
    mine(things, out, weights=(1, 0, 0))  # other weights need no picture
    assert looked == []
    mine(things, out)
    mine(things, tmp_path / "b.jsonl")
    assert written(out) == written(tmp_path / "b.jsonl")


def test_large_classes_are_several_blocks(things, clip, tmp_path, monkeypatch):
    mine(things, tmp_path / "a.jsonl")
    monkeypatch.setattr(embed, "BLOCK", 4)
    assert [len(b.pictures) for b in blocks(tmp_path, "f", things.items[:9])] == [4, 4, 1]
    mine(things, tmp_path / "b.jsonl")
    assert len(features(tmp_path / "b.jsonl")) == 3 * 6 + 1
    whole, cut = (json.loads((tmp_path / f"{n}.jsonl").read_text().splitlines()[0]) for n in "ab")
    assert [n["class"] for n in whole["neighbours"]] == [n["class"] for n in cut["neighbours"]]


def test_bad_input_is_a_sentence(things, tmp_path):
    out = tmp_path / "n.jsonl"
    with pytest.raises(InputError, match=r"--weights 0\.5 0\.8: give three numbers"):
        mine(things, out, weights=(0.5, 0.8))
    with pytest.raises(InputError, match="--images-per-class 0: at least 1"):
        mine(things, out, images_per_class=0)
    bare = min(i.class_id for i in things.items)
    few = Dataset(
        things.root, tuple(dataclasses.replace(i, split="train" * (i.class_id != bare)) for i in things.items)
    )
    with pytest.raises(InputError, match=f"classes without a picture of the split 'train': {bare}"):
        mine(few, out, split="train")
    with pytest.raises(InputError, match="--encoder no/such: neither mini-clip nor a folder or hub id"):
        mine(things, out, "no/such")
    with pytest.raises(InputError, match="a llava model, but a CLIP or SigLIP"):
        mine(things, out, str(bundled.folder("mini")))
    assert not list(tmp_path.iterdir())


def test_an_encoder_without_text_or_without_weights_is_a_sentence(siglip, clip, tmp_path):
    CLIPVisionModel(clip.network.config.vision_config).save_pretrained(tmp_path / "eyes")
    with pytest.raises(InputError, match=r"a clip_vision_model model, .* with a text and a vision tower"):
        load_encoder(str(tmp_path / "eyes"))
    some = {k: v for k, v in clip.network.state_dict().items() if not k.startswith("text_model")}
    clip.network.save_pretrained(tmp_path / "half", state_dict=some)
    clip.processor.save_pretrained(tmp_path / "half")
    with pytest.raises(InputError, match=r"weights are missing: text_model\."):
        load_encoder(str(tmp_path / "half"))


def test_a_damaged_block_is_a_sentence(things, tmp_path):
    out = tmp_path / "n.jsonl"
    mine(things, out)
    features(out)[0].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot be read .* Delete it and start again"):
        mine(things, out)
    write_block(features(out)[0], torch.full((9, 192), torch.nan))
    with pytest.raises(InputError, match="features are not finite"):
        mine(things, out)


def test_the_fingerprint_follows_weights_and_preprocessing(clip, tmp_path):
    def saved(name, **changed):
        clip.network.save_pretrained(tmp_path / name, state_dict=clip.network.state_dict() | changed)
        clip.processor.save_pretrained(tmp_path / name)
        return load_encoder(str(tmp_path / name)).fingerprint

    same = saved("a")
    assert saved("b") == same
    assert saved("c", logit_scale=torch.tensor(1.0)) != same
    told = json.loads((tmp_path / "b" / "processor_config.json").read_text())
    told["image_processor"]["image_mean"] = [0, 0, 0]
    (tmp_path / "b" / "processor_config.json").write_text(json.dumps(told))
    assert load_encoder(str(tmp_path / "b")).fingerprint != same


SHARE = """
import sys
from pathlib import Path
from linkcontext.data.class_folders import open_folder
from linkcontext.mining.embed import mine
print("wrote" if mine(open_folder(Path(sys.argv[1])), Path(sys.argv[2])) else "helped")
"""


@pytest.mark.heavy
def test_two_processes_write_what_one_does(things, tmp_path):
    mine(things, tmp_path / "one.jsonl")
    (tmp_path / "share.py").write_text(SHARE)
    launch = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={28000 + os.getpid() % 900}")
    command = [sys.executable, *launch, tmp_path / "share.py", things.root, tmp_path / "two.jsonl"]
    paths = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["helped", "wrote"]
    assert written(tmp_path / "one.jsonl") == written(tmp_path / "two.jsonl")
