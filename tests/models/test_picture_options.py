"""--max-pixels and --processor-kwargs: what the model sees, what a run records, what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, GotOcr2ImageProcessorPil, Qwen2VLImageProcessorPil

from linkcontext import cli
from linkcontext.config import ModelConfig, eval_config
from linkcontext.errors import InputError
from linkcontext.evaluation.open_model import load_local
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.inference.image_preprocessor import ImagePreprocessor
from linkcontext.models.image_processors import most_pixels_before, picture_treatment, with_options
from linkcontext.models.loading import load_model, load_processor
from linkcontext.models.picture_options import PictureOptions, reduced, reduced_size


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "most", "smaller"),
    [
        ((40, 30), None, (40, 30)),
        ((40, 30), 1200, (40, 30)),
        ((40, 30), 300, (20, 15)),
        ((4000, 3000), 1_000_000, (1154, 866)),
        ((1000, 1), 100, (100, 1)),  # its short edge cannot be shorter
        ((1, 1000), 100, (1, 100)),
        ((3, 3), 1, (1, 1)),
    ],
)
def test_a_picture_is_reduced_to_its_pixels_by_hand(size, most, smaller):
    assert reduced_size(size, most) == smaller
    assert reduced(Image.new("RGB", size), most).size == smaller


def test_a_processor_with_a_limit_of_its_own_reduces_pictures_itself():
    own = Qwen2VLImageProcessorPil()
    limited = with_options(own, PictureOptions(max_pixels=28 * 28 * 12))
    # 12 merged patches of 28 x 28 pixels at most: 4 x 3 of a picture of that shape, in 2 x 2 patches each
    assert limited([noise(400, 300)], return_tensors="pt")["image_grid_thw"].tolist() == [[1, 6, 8]]
    assert own([noise(400, 300)], return_tensors="pt")["image_grid_thw"].tolist() == [[1, 22, 28]]
    assert most_pixels_before(own, PictureOptions(max_pixels=9408)) is None
    assert picture_treatment(own, PictureOptions(max_pixels=9408)) == (
        "reduced to at most 9,408 pixels by Qwen2VLImageProcessorPil"
    )
    with pytest.raises(InputError, match=r"--max-pixels 100: .* at least 3136 pixels\. Give 3136 or more"):
        with_options(own, PictureOptions(max_pixels=100))
    small = with_options(own, PictureOptions(max_pixels=1600, processor_kwargs='{"min_pixels": 784}'))
    assert small([noise(400, 300)], return_tensors="pt")["image_grid_thw"].tolist() == [[1, 2, 2]]


def test_other_processors_get_smaller_pictures():
    own = CLIPImageProcessorPil()
    options = PictureOptions(max_pixels=64)
    assert with_options(own, options) is own
    assert most_pixels_before(own, options) == 64
    assert "at most 64 pixels before CLIPImageProcessorPil gets them" in picture_treatment(own, options)


def test_settings_reach_the_image_processor_and_bad_ones_are_sentences():
    own = GotOcr2ImageProcessorPil(crop_to_patches=True, max_patches=12, size={"height": 28, "width": 28})
    count = lambda processor: len(processor([noise(300, 100)], return_tensors="pt")["pixel_values"])  # noqa: E731
    assert count(own) == 13
    assert count(with_options(own, PictureOptions(processor_kwargs='{"max_patches": 4}'))) == 4
    with pytest.raises(InputError, match=r"has no setting max_patchs\. It has .*max_patches"):
        with_options(own, PictureOptions(processor_kwargs='{"max_patchs": 4}'))
    with pytest.raises(InputError, match=r'--processor-kwargs {"max_patches": "many"}: GotOcr2ImageProcessorPil ref'):
        with_options(own, PictureOptions(processor_kwargs='{"max_patches": "many"}'))
    with pytest.raises(InputError, match=r'{"size": {"height": -3}}: CLIPImageProcessorPil refuses'):
        with_options(CLIPImageProcessorPil(), PictureOptions(processor_kwargs='{"size": {"height": -3}}'))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--max-pixels", "0"], "a picture has at least 1 pixel"),
        (["--processor-kwargs", "{"], "--processor-kwargs {: not JSON"),
        (["--processor-kwargs", "[1]"], "not a JSON object"),
        (["--processor-kwargs", '{"return_tensors": "np"}'], "return_tensors is set by linkcontext itself"),
        (["--processor-kwargs", '{"max_patches": 4}'], "has no setting max_patches"),
        (["--processor-kwargs", '{"image_mean": "grey"}'], "refuses a picture with these values"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(nano, pictures, tmp_path, capsys, flags, sentence):
    run = ["eval", "--model", str(nano), "--data", str(pictures), "--shots", "1", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*run, *flags])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_processor_without_its_model_refuses_settings_with_the_same_sentence(nano):
    with pytest.raises(InputError, match=r"^--processor-kwargs: .* has no setting max_patches"):
        load_processor(str(nano), pictures=PictureOptions(processor_kwargs='{"max_patches": 4}'))


def test_the_options_are_part_of_what_a_run_measures(nano, pictures, tmp_path, capsys):
    given = {"data": str(pictures), "shots": (1,), "episodes": 2, "model": str(nano), "explain": 0}
    run_evaluation(eval_config(**given, out=str(tmp_path / "a")))
    run_evaluation(eval_config(**given, out=str(tmp_path / "b"), max_pixels=16))
    a, b = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    assert b["config"]["model"]["max_pixels"] == 16
    assert b["model"]["pictures"].startswith("reduced to at most 16 pixels before ")
    assert "pictures" not in a["model"]
    assert [name for name in a["measured"] if a["measured"][name] != b["measured"][name]] == ["processor"]
    assert (tmp_path / "a/predictions.jsonl").read_bytes() != (tmp_path / "b/predictions.jsonl").read_bytes()
    with pytest.raises(InputError, match="max_pixels was 16 and is 20"):
        run_evaluation(eval_config(**given, out=str(tmp_path / "b"), max_pixels=20))
    flags = ["--model", str(nano), "--data", str(pictures), "--shots", "1", "--episodes", "2", "--explain", "0"]
    cli.main(["eval", *flags, "--out", str(tmp_path / "b"), "--max-pixels", "16"])
    assert "pictures: reduced to at most 16 pixels" in capsys.readouterr().out


def test_both_engines_see_the_reduced_picture(nano):
    options = PictureOptions(max_pixels=64, processor_kwargs='{"image_mean": [0.1, 0.2, 0.3]}')
    model = load_model(str(nano), device="cpu", pictures=options)
    small = noise(90, 50).resize((10, 5), Image.Resampling.BICUBIC)
    alone = ImagePreprocessor(model).preprocess(noise(90, 50)).inputs["pixel_values"]
    whole = model.processed(["<image>"], [[noise(90, 50)]], "right")["pixel_values"]
    changed = load_model(str(nano), device="cpu").processor.image_processor
    plain = changed([small], return_tensors="pt", image_mean=[0.1, 0.2, 0.3])["pixel_values"]
    assert torch.equal(alone, plain)
    assert torch.equal(whole, plain)
    identities = {load_model(str(nano), device="cpu", pictures=p).identity for p in (options, PictureOptions())}
    assert len(identities) == 2


def test_a_model_that_is_loaded_keeps_its_pictures(nano):
    assert load_local(ModelConfig(str(nano), max_pixels=64)).pictures == PictureOptions(max_pixels=64)
