from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from lightning_sd.modules.global_mean import GlobalMean

LENGTHS = [1, 9, 2, 5, 1, 1, 7, 3]
RATE = 0.1


def sequences(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    """``[tokens, 4]`` each: three inputs and a target a token."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 4, generator=generator, dtype=torch.float64) for length in lengths]


def token_losses(weight: Tensor, sequence: Tensor) -> Tensor:
    return (sequence[:, :3] @ weight - sequence[:, 3]) ** 2


class Sums(GlobalMean):
    """Returns sums over tokens, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        losses = torch.cat([token_losses(self.weight, sequence) for sequence in batch])
        self.log_mean("loss", losses.sum(), len(losses))
        self.log_mean("length", sum(map(len, batch)), len(batch))
        return losses.sum()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        assert self.weight.grad is not None
        self.seen.append(self.weight.grad.clone())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=RATE)


class PlainMeans(Sums):
    """What a module does that leaves accumulation to Lightning: a mean a micro-batch."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return torch.cat([token_losses(self.weight, sequence) for sequence in batch]).mean()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        pass


class Uneven(Sums):
    """Ranks that count different things, as a rare event on one of them makes them do."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.global_rank == 1:
            self.log_mean("rare", 6.0, 2)
        return super().training_step(batch, batch_idx)


def batched(sizes: Sequence[int], data: list[Tensor]) -> list[list[int]]:
    assert sum(sizes) == len(data)
    indices = iter(range(len(data)))
    return [[next(indices) for _ in range(size)] for size in sizes]


def as_list(batch: list[Tensor]) -> list[Tensor]:
    return batch


def fit(
    module: Sums,
    sizes: Sequence[int] | int,
    data: list[Tensor] | None = None,
    *,
    sampler: Sampler[int] | None = None,
    **settings: Any,
) -> pl.Trainer:
    """One epoch by default; ``sizes`` are the micro-batches' sizes, or one for all."""
    data = sequences() if data is None else data
    if isinstance(sizes, int):
        loader = DataLoader(
            data,  # type: ignore[arg-type]
            batch_size=sizes,
            sampler=sampler,
            collate_fn=as_list,
        )
    else:
        loader = DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=batched(sizes, data),
            collate_fn=as_list,
        )
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": 1,
    }
    trainer = pl.Trainer(**{**quiet, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader)
    return trainer


def updates(windows: Sequence[Sequence[Tensor]], clip: float | None = None) -> list[Tensor]:
    """Gradients of the token mean over each window, one SGD step after another."""
    weight = torch.ones(3, dtype=torch.float64)
    gradients = []
    for window in windows:
        leaf = weight.clone().requires_grad_()
        losses = torch.cat([token_losses(leaf, sequence) for sequence in window])
        (gradient,) = torch.autograd.grad(losses.mean(), leaf)
        if clip is not None and gradient.norm() > clip:
            gradient = gradient * clip / gradient.norm()
        gradients.append(gradient)
        weight = weight - RATE * gradient
    return gradients


def assert_gradients(module: Sums, expected: Sequence[Tensor], rtol: float = 1e-10) -> None:
    assert len(module.seen) == len(expected)
    for gradient, reference in zip(module.seen, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("sizes", [[8], [1] * 8, [4, 4], [3, 1, 4], [1, 6, 1]], ids=str)
def test_any_cut_into_micro_batches_is_one_big_batch(sizes: list[int]) -> None:
    module = Sums()
    trainer = fit(module, sizes, accumulate_grad_batches=len(sizes))
    data = sequences()
    assert_gradients(module, updates([data]))
    loss = torch.cat([token_losses(torch.ones(3, dtype=torch.float64), s) for s in data]).mean()
    assert trainer.logged_metrics["train/loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    mean_length = sum(LENGTHS) / len(LENGTHS)
    assert trainer.logged_metrics["train/length"].item() == pytest.approx(mean_length)


def test_lightning_s_own_mean_of_means_is_another_gradient() -> None:
    module = PlainMeans()
    fit(module, [1] * 8, accumulate_grad_batches=8)
    (expected,) = updates([sequences()])
    difference = (module.seen[0] - expected).norm() / expected.norm()
    assert difference > 0.1


@pytest.mark.parametrize("accumulate", [2, 3])
def test_the_last_window_of_an_epoch_may_be_incomplete(accumulate: int) -> None:
    module = Sums()
    sizes = [2, 1, 3, 1, 1]
    fit(module, sizes, accumulate_grad_batches=accumulate, max_epochs=2)
    data = sequences()
    batches = [[data[i] for i in batch] for batch in batched(sizes, data)]
    windows = [
        [s for batch in batches[i : i + accumulate] for s in batch]
        for i in range(0, len(batches), accumulate)
    ]
    assert len(windows[-1]) < len(windows[0])
    assert_gradients(module, updates(windows * 2))


def test_windows_that_change_their_length_during_training() -> None:
    module = Sums()
    schedule = GradientAccumulationScheduler({0: 1, 1: 4})
    fit(module, [2, 2, 2, 2], max_epochs=2, callbacks=[schedule])
    data = sequences()
    assert_gradients(module, updates([data[0:2], data[2:4], data[4:6], data[6:8], data]))


@pytest.mark.parametrize("share", [0.5, 1.5])
def test_clipping_sees_the_normalised_gradient(share: float) -> None:
    """Half the norm of the mean's gradient clips; one and a half does not, though sums are 29x."""
    (free,) = updates([sequences()])
    clip = share * free.norm().item()
    module = Sums()
    fit(module, [1] * 8, accumulate_grad_batches=8, gradient_clip_val=clip)
    assert_gradients(module, updates([sequences()], clip), rtol=1e-5)
    assert module.seen[0].norm().item() == pytest.approx(min(share, 1) * free.norm().item(), 1e-4)


def test_the_next_window_starts_from_nothing() -> None:
    module = Sums()
    trainer = fit(module, [4, 4])
    data = sequences()
    assert_gradients(module, updates([data[:4], data[4:]]))
    weight = 1 - RATE * module.seen[0]
    last = torch.cat([token_losses(weight, s) for s in data[4:]]).mean()
    assert trainer.logged_metrics["train/loss"].item() == pytest.approx(last.item(), rel=1e-6)


def test_a_window_without_tokens_moves_nothing() -> None:
    module = Sums()
    trainer = fit(module, [1, 1], sequences([0, 0]), accumulate_grad_batches=2)
    assert torch.equal(module.weight.detach(), torch.ones(3, dtype=torch.float64))
    assert "train/loss" not in trainer.logged_metrics


def test_an_empty_micro_batch_does_not_dilute_the_others() -> None:
    module = Sums()
    data = sequences([0, 4, 0, 2])
    fit(module, [1] * 4, data, accumulate_grad_batches=4)
    assert_gradients(module, updates([data]))


class Logged(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(metrics)


def test_a_value_is_logged_only_in_the_steps_that_measured_it() -> None:
    class Rare(Sums):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            if batch_idx % 2 == 0:
                self.log_mean("rare", batch_idx, 1)
            return super().training_step(batch, batch_idx)

    logger = Logged()
    fit(Rare(), [2, 2, 2, 2], logger=logger, log_every_n_steps=1)
    assert [row.get("train/rare") for row in logger.rows] == [0, None, 2, None]
    assert all("train/loss" in row for row in logger.rows)


def test_sums_of_float32_are_added_up_exactly() -> None:
    """Ten million tokens one by one: float32 would stop counting at 2**24."""
    module = Sums()
    module.log_mean("loss", torch.tensor(2.0**24), 2.0**24)
    module.log_mean("loss", torch.tensor(1.0), 1)
    assert module._window.counts["loss"].item() == 2**24 + 1
    assert module._window.sums["loss"].item() == 2**24 + 1


def test_a_window_that_logged_no_loss_counts_no_items() -> None:
    module = Sums()
    module.log_mean("length", 6.0, 2)
    assert module._window.reduce(1, torch.device("cpu")) == ({"length": 3.0}, 0.0)


def test_parameters_without_gradient_are_left_alone() -> None:
    class Two(Sums):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(2))

    module = Two()
    fit(module, [8])
    assert module.unused.grad is None
    assert_gradients(module, updates([sequences()]))


class SavesWeights(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Sums)
        metrics = {name: value.item() for name, value in trainer.logged_metrics.items()}
        state = {"weight": pl_module.weight.detach(), "seen": pl_module.seen, "metrics": metrics}
        torch.save(state, self.folder / f"{trainer.global_rank}.pt")


class EveryOther(Sampler[int]):
    """Rank r of two gets rows r, r + 2, ..."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(torch.distributed.get_rank(), self.rows, 2))

    def __len__(self) -> int:
        return self.rows // 2


@pytest.mark.slow
def test_two_processes_make_the_updates_of_one(tmp_path: Path) -> None:
    """In the last two windows one rank or the other has hardly any tokens, or none at all."""
    data = sequences([*LENGTHS, 0, 9, 0, 5, 3, 0, 7, 0])
    fit(
        Uneven(),
        1,
        data,
        sampler=EveryOther(len(data)),
        accumulate_grad_batches=2,
        devices=2,
        strategy="ddp_spawn",
        use_distributed_sampler=False,
        callbacks=[SavesWeights(tmp_path)],
    )
    windows = [data[i : i + 4] for i in range(0, len(data), 4)]
    expected = updates(windows)
    before_last = 1 - RATE * torch.stack(expected[:-1]).sum(0)
    loss = torch.cat([token_losses(before_last, s) for s in windows[-1]]).mean()
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(state["seen"]) == len(expected)
        for gradient, reference in zip(state["seen"], expected, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-12)
        after = before_last - RATE * expected[-1]
        torch.testing.assert_close(state["weight"], after, rtol=1e-9, atol=1e-12)
        assert state["metrics"]["train/rare"] == 3
        assert state["metrics"]["train/loss"] == pytest.approx(loss.item(), rel=1e-6)
