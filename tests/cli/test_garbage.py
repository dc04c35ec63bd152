"""The garbage collector does not search what imports leave behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from lightning_sd.cli import main as cli_main
from lightning_sd.cli.run import run


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_the_collector_rests_while_classes_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled, frozen = [], []

    def load() -> None:
        enabled.append(gc.isenabled())

    def start(*args: object) -> None:
        enabled.append(gc.isenabled())
        frozen.append(gc.get_freeze_count())

    monkeypatch.setattr(cli_main, "load_public_classes", load)
    monkeypatch.setattr(cli_main, "main", start)
    run(["fit"])
    assert enabled == [False, True]
    assert frozen[0] > 10_000


def test_the_collector_works_again_after_a_failed_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise KeyError("a broken package")

    monkeypatch.setattr(cli_main, "load_public_classes", load)
    with pytest.raises(KeyError):
        run(["fit"])
    assert gc.isenabled()
