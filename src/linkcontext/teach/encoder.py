"""Another encoder of pictures, whose vectors heads and similarities can use beside or instead of the model's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from linkcontext.errors import InputError, first_few
from linkcontext.evaluation.picture_vectors import unit_rows
from linkcontext.models import bundled
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.hub import is_local_only
from linkcontext.models.loading import device_named

BATCH = 32  # pictures that are encoded together


@dataclass(frozen=True)
class PictureEncoder:
    """A vision model with its image processor. `identity` is a digest of everything its vectors depend on."""

    name: str
    network: Any = field(repr=False)
    processor: Any = field(repr=False)
    identity: str = field(repr=False)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of RGB images, float32[images, width], on the CPU.

        Of a model with a text tower, such as CLIP or SigLIP, they are its image features; of others the pooled output,
        or where there is none, the mean of the last hidden states.
        """
        rows = []
        for start in range(0, len(images), BATCH):
            batch = self.processor(images=list(images[start : start + BATCH]), return_tensors="pt")
            pixels = batch["pixel_values"].to(self.network.device)
            if "vision_config" in self.network.config.to_dict():
                output = self.network.get_image_features(pixel_values=pixels)
            else:
                output = self.network(pixel_values=pixels)
            pooled = output.get("pooler_output")
            vectors = output.last_hidden_state.flatten(2).mean(-1) if pooled is None else pooled.flatten(1)
            rows.append(vectors.float().cpu())
        return unit_rows(torch.cat(rows))


def load_picture_encoder(name: str, device: str | None = None, download: bool = True) -> PictureEncoder:
    """Load a vision encoder in float32: `mini-clip`, a folder or a Hub id.

    Raises `InputError` for one that cannot be loaded, lacks weights, or makes no vectors of a picture.
    """
    source = str(bundled.folder(name)) if name == "mini-clip" else name
    try:
        where = {"local_files_only": is_local_only(source, download)}
        config = AutoConfig.from_pretrained(source, **where)
        processor = AutoImageProcessor.from_pretrained(source, **where)
        network, info = AutoModel.from_pretrained(
            source, config=config, dtype="float32", output_loading_info=True, **where
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"--encoder {name}: neither mini-clip nor a folder or hub id that can be loaded ({why}). Check the name, "
            "the network, and that the folder has config, weights and image processor."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"--encoder {name}: weights are missing: {first_few(missing)}.")
    identity = fingerprint(network.state_dict(), json.dumps([processor.to_json_string(), config.to_json_string()]))
    encoder = PictureEncoder(name, network.to(device_named(device)).eval(), processor, identity)
    try:
        rows = encoder.encode([Image.new("RGB", (64, 48), "grey")])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--encoder {name}: a {config.model_type} model, which makes no vector of a picture ({error}). Choose a "
            "vision encoder such as a CLIP, SigLIP or DINOv2."
        ) from error
    if rows.shape[0] != 1 or not bool(torch.isfinite(rows).all()):
        raise InputError(f"--encoder {name}: its vector of a grey picture is not of finite numbers.")
    return encoder
