"""The staged build's own rules."""

import pytest
import torch

from linkcontext.errors import InputError
from linkcontext.mini import build
from linkcontext.mini.recipe import recipe


def test_a_folder_of_another_size_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text('{"size": "small"}')
    with pytest.raises(InputError, match="holds a build of size small, not nano"):
        build.build(recipe("nano"), tmp_path, torch.device("cpu"))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "recipe.json"}
