"""Options and settings of all tests: no network, one thread, a fixed seed, and ``--slow``."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Processes that tests start run one thread each, as the tests do.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# One that is aborted, as a two-rank test was twice, prints where.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

import pytest
import torch

# The tests' tensors are tiny: a second thread mostly waits, 8 times slower on a busy machine.
torch.set_num_threads(1)

SEEDS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""What ``seed_everything`` leaves in the environment. Processes started later seed with it."""


def forget_seed() -> None:
    """Remove the seed that ``seed_everything``, or the user's shell, has left."""
    for name in SEEDS:
        os.environ.pop(name, None)


forget_seed()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: needs --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Seed torch, so that tests give the same result alone and in any order."""
    torch.manual_seed(0)
    yield
    forget_seed()
