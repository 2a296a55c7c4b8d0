"""`linkcontext mini build`: from nothing to mini-clip, mini-base and mini, a stage at a time, resumable."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    CLIPModel,
    CLIPProcessor,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from linkcontext.errors import InputError
from linkcontext.mini import clip, language, pool, tokenizer
from linkcontext.mini.recipe import Recipe
from linkcontext.models import bundled
from linkcontext.models.tensor_file import read_weights
from linkcontext.records import read_json
from linkcontext.storage import held, replacing, write_text

STAGES = ("mini-clip", "mini-base", "mini")
# Files that a whole folder of a stage has, among others.
FILES = ("config.json", "model.safetensors", "tokenizer.json", "processor_config.json")


def build(
    recipe: Recipe, out: Path, device: torch.device, until: str = "mini", begin_from: Path | None = None
) -> dict[str, Path]:
    """Run the stages up to `until` in `out`; what is done is kept. Gives the standard folders by name.

    `begin_from` is a folder with a finished stage before (`mini-clip` or `mini-base`), for example the bundle's.
    Raises `InputError` where another process builds in `out`, and for files of an earlier build that are damaged.
    """
    with held(out):
        return _build(recipe, out, device, until, begin_from)


def _build(recipe: Recipe, out: Path, device: torch.device, until: str, begin_from: Path | None) -> dict[str, Path]:
    _same_recipe(recipe, out)
    folders = {}
    for name in STAGES[: STAGES.index(until) + 1]:
        folders[name] = out / name
        given = begin_from / name if begin_from is not None else None
        if _is_whole(out / name):
            continue
        if given is not None and _is_whole(given):
            folders[name] = given
            continue
        if name == "mini-clip":
            model = clip.train(recipe, _tokenizer(recipe, out, begin_from), out, device)
            _save_clip(model, _tokenizer(recipe, out, begin_from), recipe, out / name)
        else:
            llava = _train_language(name, recipe, _tokenizer(recipe, out, begin_from), folders, out, device)
            save_llava(llava, _tokenizer(recipe, out, begin_from), recipe, out / name)
    return folders


def _is_whole(folder: Path) -> bool:
    """Whether a stage's folder has all its files. A folder that an earlier version left when killed may not."""
    return all((folder / file).is_file() for file in FILES)


def _loaded(kind: Any, folder: Path, **options: Any) -> Any:
    """`kind.from_pretrained`. Raises `InputError` for a folder whose files are damaged."""
    try:
        return kind.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{folder}: cannot be loaded ({why}). Remove it, and start the command that made it again."
        ) from error


def _same_recipe(recipe: Recipe, out: Path) -> None:
    """The size must be the one the folder was begun with; lengths of training may change."""
    path = out / "recipe.json"
    if path.is_file():
        begun = read_json(path)
        size = begun.get("size") if isinstance(begun, dict) else begun
        if size != recipe.size:
            raise InputError(f"{out}: holds a build of size {size}, not {recipe.size}. Choose another --out.")
    write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n", path)


def _tokenizer(recipe: Recipe, out: Path, begin_from: Path | None) -> PreTrainedTokenizerFast:
    """The tokenizer, read from its file again, because one that was used would save the settings of its last use."""
    given = begin_from / "mini-clip" if begin_from is not None else out
    if (given / "tokenizer.json").is_file() and not (out / "mini-clip").exists():
        return _loaded(AutoTokenizer, given)
    if not (out / "tokenizer" / "tokenizer.json").is_file():
        with replacing(out / "tokenizer") as new:
            tokenizer.build(recipe.vocabulary).save_pretrained(new)
    return _loaded(AutoTokenizer, out / "tokenizer")


def _save_clip(model: CLIPModel, words: PreTrainedTokenizerFast, recipe: Recipe, folder: Path) -> None:
    with replacing(folder) as new:
        model.to(torch.float32).save_pretrained(new)
        CLIPProcessor(clip.image_processor(recipe), words).save_pretrained(new)


def save_llava(
    model: LlavaForConditionalGeneration, words: PreTrainedTokenizerFast, recipe: Recipe, folder: Path
) -> None:
    """Write a standard Llava folder: config, weights, tokenizer, chat template and image processor."""
    with replacing(folder) as new:
        model.save_pretrained(new)
        language.processor(recipe, words).save_pretrained(new)


def _train_language(
    name: str,
    recipe: Recipe,
    words: PreTrainedTokenizerFast,
    folders: dict[str, Path],
    out: Path,
    device: torch.device,
) -> LlavaForConditionalGeneration:
    seen = _loaded(CLIPModel, folders["mini-clip"])
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
        model = _loaded(LlavaForConditionalGeneration, folders["mini-base"], dtype=torch.float32).to(device)
        model.model.vision_tower.requires_grad_(False)
        language.train_link(model, writer, out, device)
    return model.cpu()


def pack(folders: dict[str, Path], out: Path, recipe: Recipe) -> None:
    """Put the finished folders into the package's own form."""
    told = {"size": recipe.size, "recipe": dataclasses.asdict(recipe)}
    bundled.pack(folders, out, told)


def parameters(folder: Path) -> int:
    """How many numbers a folder's model has."""
    return sum(v.numel() for v in read_weights(folder / "model.safetensors").values())
