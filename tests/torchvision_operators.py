"""Import torchvision, also beside a torch of another build, where its compiled operators are missing.

Image processors use none of these operators, but torchvision is imported only where they are defined.
"""

import sys

import torch

try:
    import torchvision
except (ImportError, RuntimeError):
    LIBRARY = torch.library.Library("torchvision", "DEF")
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torchvision  # noqa: F401
