from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.models.tiny import make_model
from lightning_sd.lab.recipe.vocabulary import build_tokenizer
from lightning_sd.models import LoadedModel, ModelSource
from lightning_sd.modules.supervised import SupervisedModule
from lightning_sd.types import Question, QuestionBatch

TOKENIZER = build_tokenizer(["so 7+5 is 2 then now"] * 3)
ROWS = [
    Question(
        id=str(i),
        text=text,
        messages=({"role": "system", "content": "brief"}, {"role": "user", "content": text}),
        reference=reference,
    )
    for i, (text, reference) in enumerate(
        [
            ("7+5", "so 7+5 is 2"),
            ("1", "1"),
            ("what now", "then now so is then"),
            ("9+9+9+9", ""),
            ("2", "7777777777"),
        ]
    )
]


def new_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def new_module(**kwargs: Any) -> SupervisedModule:
    module = SupervisedModule(LoadedModel(new_model(), TOKENIZER), **kwargs)
    module.configure_model()
    return module


def fit(module: SupervisedModule, rows: Sequence[Question], size: int, **kwargs: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    trainer.fit(module, DataLoader(rows, batch_size=size, collate_fn=QuestionBatch))
    return trainer


def weights(module: SupervisedModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def slow_loss(model: nn.Module, rows: Sequence[Question]) -> tuple[float, int]:
    """Row by row, token by token, in float64, from text that was rendered by hand."""
    total, tokens = 0.0, 0
    double = new_model().double().eval()
    double.load_state_dict(model.state_dict())
    for row in rows:
        prompt = "".join(f"<{m['role']}>{m['content']}<end>" for m in row.messages) + "<assistant>"
        ids = TOKENIZER(prompt).input_ids
        target = [*TOKENIZER(row.reference).input_ids, TOKENIZER.convert_tokens_to_ids("<end>")]
        for token in target:
            logits = double(input_ids=torch.tensor([ids])).logits[0, -1]
            total -= logits.log_softmax(-1)[token].item()
            tokens += 1
            ids = [*ids, token]
    return total, tokens


def test_the_loss_is_that_of_the_target_and_its_end_alone() -> None:
    module = new_module()
    expected, tokens = slow_loss(module.student, ROWS)
    total, found = module.loss(ROWS)
    assert found == tokens
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_the_routers_loss_is_part_of_the_training_loss_alone() -> None:
    settings = {"output_router_logits": True, "router_aux_loss_coef": 3.0}
    model = make_model("mixtral", vocab_size=len(TOKENIZER), **settings)
    module = SupervisedModule(LoadedModel(model, TOKENIZER))
    module.configure_model()
    with torch.no_grad():
        validation, _ = module.loss(ROWS[:1])
    training, tokens = module.loss(ROWS[:1])
    prompts, targets = module.encode(ROWS[:1])
    added = model(input_ids=torch.tensor([prompts[0] + targets[0]])).aux_loss * 3.0 * tokens
    torch.testing.assert_close(training - validation, added)


def test_gradient_is_that_of_the_token_mean_however_the_batch_is_cut() -> None:
    """One step of plain gradient descent: five rows at once, or cut into micro-batches."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    before = weights(new_module())
    moved = []
    for size, accumulate in ((5, 1), (1, 5), (2, 3), (4, 2)):
        module = new_module(optimizer=sgd)
        fit(module, ROWS, size, max_epochs=1, accumulate_grad_batches=accumulate)
        moved.append(weights(module) - before)
    module = new_module()
    total, tokens = module.loss(ROWS)
    (total / tokens).backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    for move in moved:
        torch.testing.assert_close(move, -0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_clipping_sees_the_mean_gradient() -> None:
    module = new_module(optimizer=partial(torch.optim.SGD, lr=1.0))
    before = weights(module)
    fit(module, ROWS, 1, max_epochs=1, accumulate_grad_batches=5, gradient_clip_val=0.01)
    assert (weights(module) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_logged_losses_are_means_over_tokens() -> None:
    module = new_module(optimizer=partial(torch.optim.SGD, lr=0.0))
    expected, tokens = slow_loss(module.student, ROWS)
    trainer = fit(module, ROWS, 2, max_epochs=1, accumulate_grad_batches=3)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(
        expected / tokens, rel=1e-5
    )
    result = trainer.validate(
        module, DataLoader(ROWS, batch_size=2, collate_fn=QuestionBatch), verbose=False
    )
    assert result[0]["val/loss"] == pytest.approx(expected / tokens, rel=1e-5)


class Counting(ModelSource):
    def __init__(self) -> None:
        self.loads = 0

    def load(self) -> tuple[nn.Module, Any]:
        self.loads += 1
        return new_model().train(), TOKENIZER


def test_the_model_is_loaded_late_once_and_trained_in_train_mode() -> None:
    source = Counting()
    module = SupervisedModule(source)
    assert source.loads == 0
    fit(module, ROWS, 5, max_epochs=1)
    fit(module, ROWS, 5, max_epochs=1)
    assert source.loads == 1
    assert all(part.training for part in module.student.modules())


def test_a_checkpoint_tells_where_its_model_came_from(tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    module = SupervisedModule(str(tmp_path / "model"), partial(torch.optim.SGD, lr=0.1))
    trainer = fit(module, ROWS, 5, max_epochs=1)
    assert all(part.training for part in module.student.modules())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = SupervisedModule.load_from_checkpoint(tmp_path / "last.ckpt")
    torch.testing.assert_close(weights(again), weights(module), rtol=0, atol=0)


def test_a_row_without_a_reference_is_named() -> None:
    row = Question(id="row-9", text="7", messages=({"role": "user", "content": "7"},))
    with pytest.raises(ValueError, match="'row-9' has no reference"):
        new_module().loss([row])


def test_frozen_weights_are_not_given_to_the_optimizer() -> None:
    module = new_module(optimizer=partial(torch.optim.SGD, lr=0.1))
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    norm = module.student.get_parameter("model.norm.weight").requires_grad_(True)
    optimizer = module.configure_optimizers()
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(norm)]


def test_the_schedule_moves_once_an_optimizer_step() -> None:
    module = new_module(
        optimizer=partial(torch.optim.SGD, lr=1.0),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    )
    trainer = fit(module, ROWS[:4], 1, max_epochs=1, accumulate_grad_batches=2)
    assert trainer.global_step == 2
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


def test_it_learns() -> None:
    module = new_module(optimizer=partial(torch.optim.AdamW, lr=0.02))
    first = module.loss(ROWS[:3])[0].item()
    fit(module, ROWS[:3] * 60, 3, max_epochs=1)
    assert module.loss(ROWS[:3])[0].item() < 0.05 * first
