"""The whole staged build, a few steps a stage."""

import pytest
import torch


@pytest.fixture(scope="session")
def nano_build(tmp_path_factory):
    """Standard folders by name, from a build that has hardly begun."""
    from linkcontext.mini import build  # noqa: PLC0415 - seconds to import
    from linkcontext.mini.recipe import recipe  # noqa: PLC0415

    short = recipe("nano", clip_steps=3, base_steps=4, tune_steps=9, taught=8, fresh=8, tokens=512)
    return build.build(short, tmp_path_factory.mktemp("build"), torch.device("cpu"))
