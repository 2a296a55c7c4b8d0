"""`linkcontext ARGUMENTS` with torchvision, which the real processors of some families need."""

import runpy

import torchvision_operators  # noqa: F401 - before transformers looks for it

if __name__ == "__main__":
    runpy.run_module("linkcontext", run_name="__main__", alter_sys=True)
