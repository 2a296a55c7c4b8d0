"""vLLM's server, with the options of `vllm serve`. Its engine is a process that imports this file again."""

import torchvision_operators  # noqa: F401 - before vLLM imports torchvision

if __name__ == "__main__":
    from vllm.entrypoints.launchers.api_server.entry import main

    main()
