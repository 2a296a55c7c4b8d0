"""One record for a family, asked by all others, which name none; and what a version of transformers lacks."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES

import linkcontext
from linkcontext.models import families
from linkcontext.models.families import family_of, missing_helper, unsupported_reason, wrap_processor

SRC = Path(linkcontext.__file__).parent
NAMES = re.compile(
    r"llava|qwen|idefics|gemma|smolvlm|internvl|pixtral|mistral|flamingo|paligemma|\bglm|llama|ovis|minicpm-?v|lfm\d|"
    r"deepseek|kimi|\baya|cohere\d|molmo|florence|ernie|\bstep\d|phi4|perception_?lm",
    re.IGNORECASE,
)
# Files that may name a family, and why.
ALLOWED = {
    "models/families.py": "the records",
    "models/idefics.py": "the functions of a record",
    "mini": "how the bundled models are built",
    "models/bundled.py": "what the bundled models are",
    "data/readers": "a file format is called like a model",
    "data/writers.py": "the same",
    "source.py": "the same",
    "evaluation/tasks": "the same",
    "evaluation/task.py": "help: the file format",
    "evaluation/published_results.py": "rows of a published table",
    "train/mixture.py": "the file format",
    "train/config.py": "the file format",
    "cli": "help: the file format, and the name of a preset as an example",
    "_old_modules.py": "old names of modules",
}


def config(model_type, vision_type=None):
    vision = None if vision_type is None else SimpleNamespace(model_type=vision_type)
    return SimpleNamespace(model_type=model_type, vision_config=vision)


def test_the_record_of_a_configuration():
    clip, siglip, pixtral = (family_of(config("llava", f"{v}_vision_model")) for v in ("clip", "siglip", "pixtral"))
    pixtral = family_of(config("llava", "pixtral"))
    assert [f.fixed_resolution for f in (clip, siglip, pixtral)] == [True, False, False]
    assert [f.projector for f in (clip, siglip, pixtral)] == ["multi_modal_projector", "multi_modal_projector", None]
    assert family_of(config("llava_onevision", "siglip_vision_model")).resolution_depends_on_count
    assert family_of(config("paligemma", "siglip_vision_model")).prefix_lm
    assert family_of(config("gemma3", "siglip_vision_model")).bidirectional_images
    assert family_of(config("idefics", "idefics_vision")).cross_attention is not None
    assert family_of(config("idefics3", "idefics3_vision")) is families.OTHER
    assert family_of(config("of tomorrow")) is families.OTHER


def test_a_processor_that_needs_it_is_wrapped():
    class IdeficsProcessor:
        tokenizer = image_processor = None

    usual = object()
    assert wrap_processor(usual) is usual
    assert wrap_processor(IdeficsProcessor()).processor.__class__ is IdeficsProcessor


@pytest.mark.parametrize("number", range(len(families.TREE_HELPERS)))
def test_a_transformers_without_a_helper_gives_the_reason(monkeypatch, number):
    network, _ = FAMILIES["llava"]()
    assert missing_helper() is None
    assert unsupported_reason(network) is None
    module, name = families.TREE_HELPERS[number]
    gone = list(families.TREE_HELPERS)
    gone[number] = (module, f"{name}OfTomorrow")
    monkeypatch.setattr(families, "TREE_HELPERS", tuple(gone))
    assert re.fullmatch(rf"transformers [\d.]+\S* has no {module}\.{name}OfTomorrow", unsupported_reason(network))


def test_no_other_file_names_a_family():
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        file = path.relative_to(SRC).as_posix()
        if not any(file == allowed or file.startswith(f"{allowed}/") for allowed in ALLOWED):
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if NAMES.search(line)]
            found |= {file: lines} if lines else {}
    assert found == {}


def imported(path):
    """The modules that a module imports when it is imported, each "module.name"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}


def test_no_helper_of_transformers_is_needed_to_import_the_engines():
    """What only trees use comes with them (`preallocated_layer` alone, which nothing imports before a tree is run)."""
    paths = [path for package in ("inference", "scoring", "models") for path in SRC.joinpath(package).rglob("*.py")]
    helpers = {
        path.name: names
        for path in paths
        if (names := sorted(name for name in imported(path) if re.match(r"transformers\.[a-z]\w*\.", name)))
    }
    layers = ["transformers.cache_utils.DynamicLayer"]
    assert helpers == {"depth_first.py": layers, "preallocated_layer.py": layers}
    assert not any("preallocated_layer" in name for path in paths for name in imported(path))


def test_a_picture_of_a_single_token_is_refused_where_transformers_fails_on_it():
    mistral = SimpleNamespace(
        model_type="mistral3", vision_config=SimpleNamespace(model_type="pixtral", patch_size=14), spatial_merge_size=2
    )
    unusable = family_of(mistral).unusable
    assert "edge of 56 pixels" in unusable(mistral, {"image_sizes": torch.tensor([[112, 84], [42, 28]])})
    assert unusable(mistral, {"image_sizes": torch.tensor([[112, 84], [56, 28]])}) == ""
    assert unusable(mistral, {"input_ids": torch.tensor([[1]])}) == ""  # no picture
    assert family_of(config("llava", "pixtral")).unusable(mistral, {"image_sizes": torch.tensor([[28, 28]])}) == ""
