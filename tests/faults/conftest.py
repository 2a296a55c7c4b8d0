"""What the fault tests share. They attack the product: kills, disks, forged files, requests that mean harm.

`make test-all` tries a tenth of each count, `make faults` all of it. docs/security.md holds the figures.
"""

import os

import pytest

FULL = os.environ.get("LINKCONTEXT_FAULTS") == "full"


@pytest.fixture(scope="session")
def count():
    """How many of `full` attempts this run makes: all with LINKCONTEXT_FAULTS=full, else a tenth, at least one."""

    def attempts(full: int) -> int:
        return full if FULL else max(1, full // 10)

    return attempts
