"""`linkcontext mini build`: from nothing to mini-clip, mini-base and mini, a stage at a time, resumable."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from linkcontext.errors import InputError
from linkcontext.mini import clip, language, pool, tokenizer
from linkcontext.mini.recipe import Recipe
from linkcontext.models import bundle
from linkcontext.records import write_text

STAGES = ("mini-clip", "mini-base", "mini")


def build(
    recipe: Recipe, out: Path, device: torch.device, until: str = "mini", begin_from: Path | None = None
) -> dict[str, Path]:
    """Run the stages up to `until` in `out`; what is done is kept. Gives the standard folders by name.

    `begin_from` is a folder with a finished stage before (`mini-clip` or `mini-base`), for example the bundle's.
    """
    out.mkdir(parents=True, exist_ok=True)
    _same_recipe(recipe, out)
    words = _tokenizer(recipe, out, begin_from)
    folders = {}
    for name in STAGES[: STAGES.index(until) + 1]:
        folders[name] = out / name
        given = begin_from / name if begin_from is not None else None
        if (out / name / "model.safetensors").is_file():
            continue
        if given is not None and (given / "model.safetensors").is_file():
            folders[name] = given
            continue
        if name == "mini-clip":
            _save_clip(clip.train(recipe, words, out, device), words, recipe, out / name)
        else:
            _train_language(name, recipe, words, folders, out, device)
    return folders


def _same_recipe(recipe: Recipe, out: Path) -> None:
    """The size must be the one the folder was begun with; lengths of training may change."""
    path = out / "recipe.json"
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))["size"]
        if begun != recipe.size:
            raise InputError(f"{out}: holds a build of size {begun}, not {recipe.size}. Choose another --out.")
    write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n", path)


def _tokenizer(recipe: Recipe, out: Path, begin_from: Path | None) -> PreTrainedTokenizerFast:
    for folder in (out, *([begin_from] if begin_from else [])):
        if (folder / "mini-clip" / "tokenizer.json").is_file():
            return AutoTokenizer.from_pretrained(folder / "mini-clip")
    if not (out / "tokenizer" / "tokenizer.json").is_file():
        tokenizer.build(recipe.vocabulary).save_pretrained(out / "tokenizer")
    return AutoTokenizer.from_pretrained(out / "tokenizer")


def image_processor(recipe: Recipe) -> CLIPImageProcessorPil:
    """Pictures as the vision tower was trained on them: the whole picture, squared."""
    edge = {"height": recipe.image, "width": recipe.image}
    return CLIPImageProcessorPil(
        size=edge,
        crop_size=edge,
        do_center_crop=False,
        resample=3,
        image_mean=list(clip.MEAN),
        image_std=list(clip.STD),
    )


def _save_clip(model: CLIPModel, words: PreTrainedTokenizerFast, recipe: Recipe, folder: Path) -> None:
    model.to(torch.float32).save_pretrained(folder)
    CLIPProcessor(image_processor(recipe), words).save_pretrained(folder)


def save_llava(
    model: LlavaForConditionalGeneration, words: PreTrainedTokenizerFast, recipe: Recipe, folder: Path
) -> None:
    """Write a standard Llava folder: config, weights, tokenizer, chat template and image processor."""
    model.save_pretrained(folder)
    LlavaProcessor(
        image_processor(recipe),
        words,
        patch_size=recipe.patch,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.CHAT_TEMPLATE,
        image_token=tokenizer.IMAGE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def _train_language(
    name: str,
    recipe: Recipe,
    words: PreTrainedTokenizerFast,
    folders: dict[str, Path],
    out: Path,
    device: torch.device,
) -> None:
    seen = CLIPModel.from_pretrained(folders["mini-clip"])
    pools = {
        "taught": pool.build(
            seen, pool.taught(recipe.taught), recipe, out / "pool.taught.safetensors", device, "taught"
        ),
        "fresh": pool.build(seen, pool.fresh(recipe.fresh), recipe, out / "pool.fresh.safetensors", device, "fresh"),
    }
    writer = language.Writer(words, pools, recipe)
    if name == "mini-base":
        model = language.start(recipe, seen, words, pools["fresh"].features).to(device)
        language.train_base(model, writer, out, device)
    else:
        model = LlavaForConditionalGeneration.from_pretrained(folders["mini-base"], dtype=torch.float32).to(device)
        model.model.vision_tower.requires_grad_(False)
        language.train_link(model, writer, out, device)
    save_llava(model.cpu(), words, recipe, out / name)


def pack(folders: dict[str, Path], out: Path, recipe: Recipe) -> None:
    """Put the finished folders into the package's own form."""
    told = {"size": recipe.size, "recipe": dataclasses.asdict(recipe)}
    bundle.pack(folders, out, told)


def parameters(folder: Path) -> int:
    """How many numbers a folder's model has."""
    return sum(v.numel() for v in load_file(folder / "model.safetensors").values())
