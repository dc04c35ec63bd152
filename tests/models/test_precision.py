"""Half-precision weights that no update moves, and fused optimizers with clipping."""

import warnings

import pytest
import torch

from lightning_sd.models.precision import check_fused_clipping, check_update_size
from tests.stubs import LabData, SameAsStudent, module, trainer


def count_moved(model, rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        model(input_ids=torch.arange(5, 25)[None]).logits.float().pow(2).mean().backward()
        optimizer.step()
    moved = sum(int((p != q).sum()) for p, q in zip(model.parameters(), before, strict=True))
    return moved / sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("dtype", "rate", "stuck"),
    [
        (torch.bfloat16, 1e-6, True),
        (torch.bfloat16, 1e-2, False),
        (torch.float16, 1e-7, True),
        (torch.float32, 1e-6, False),
    ],
)
def test_the_warning_says_what_two_steps_do(make_llama, dtype, rate, stuck):
    model = make_llama(dtype=dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    if stuck:
        with pytest.warns(UserWarning, match=r"% of the b?float16 .*bf16-mixed.*Kahan"):
            check_update_size(optimizer)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_update_size(optimizer)
    if dtype != torch.float16:  # its gradients underflow here, which is another matter
        assert (count_moved(model, rate) < 0.5) == stuck


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam, torch.optim.Adamax])
def test_relatives_of_adamw_are_named_too(make_llama, kind):
    with pytest.warns(UserWarning, match="cannot move by a learning rate of 1e-06"):
        check_update_size(kind(make_llama(dtype=torch.bfloat16).parameters(), lr=1e-6))


@pytest.mark.parametrize("remedy", ["kahan_sum", "bf16_stochastic_round"])
def test_the_remedies_are_not_warned_of(make_llama, remedy):
    """optimi sets the one in its groups, torchao the other on the optimizer."""
    optimizer = torch.optim.AdamW(make_llama(dtype=torch.bfloat16).parameters(), lr=1e-6)
    if remedy == "kahan_sum":
        optimizer.param_groups[0][remedy] = True
    else:
        setattr(optimizer, remedy, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_update_size(optimizer)


def test_optimizers_whose_step_is_not_the_rate_are_left_alone(make_llama):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_update_size(torch.optim.SGD(make_llama(dtype=torch.bfloat16).parameters(), lr=1e-9))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_a_fused_optimizer_with_clipping_is_one_clear_line(make_llama, precision, kind):
    optimizer = kind(make_llama().parameters(), lr=1e-3, fused=True)
    name = kind.__name__
    with pytest.raises(ValueError, match=rf"{name}\(fused=True\) with gradient_clip_val=1.0"):
        check_fused_clipping(optimizer, precision, 1.0)
    check_fused_clipping(optimizer, precision, None)
    check_fused_clipping(optimizer, "32-true", 1.0)


def test_it_is_found_before_the_first_step(make_llama, tokenizer, tmp_path):
    student = module(
        make_llama(), tokenizer, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True)
    )
    fit = trainer(tmp_path, SameAsStudent(), precision="bf16-mixed", gradient_clip_val=1.0).fit
    with pytest.raises(ValueError, match="fused=False"):
        fit(student, LabData())
