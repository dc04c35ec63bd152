from __future__ import annotations

import itertools
import math

import pytest
import torch

from lightning_sd.functional import DivergenceSpec, add_tail, divergence
from tests.reference.divergence import Settings, elements, softmax, token_divergence

TOKENS, VOCAB = 6, 7
KINDS = [("forward_kl", 0.5), ("reverse_kl", 0.5)] + [("js", b) for b in (0.1, 0.5, 0.9)]
SUPPORTS = [
    {},
    {"top_k": 3, "support": "student", "tail": True},
    {"top_k": 3, "support": "teacher", "tail": True},
    {"top_k": 3, "support": "student", "tail": False},
    {"top_k": 3, "support": "teacher", "tail": False},
    {"top_k": 1, "tail": True},
    {"top_k": VOCAB, "tail": False},
    {"top_k": VOCAB + 5, "tail": False},
]
CLIPS = (None, 0.05)
RATIOS = ({"ratio_low": 0.2}, {"ratio_high": 5.0}, {"ratio_low": 0.5, "ratio_high": 1.5})
CASES = [
    {"kind": kind, "beta": beta, "element_clip": clip, **support}
    for (kind, beta), clip, support in itertools.product(KINDS, CLIPS, SUPPORTS)
]
BOUNDED = [
    {"kind": kind, "beta": beta, "element_clip": clip, **support, **ratio}
    for (kind, beta), clip, support, ratio in itertools.product(KINDS, CLIPS, SUPPORTS[:5], RATIOS)
]


def case_id(case: dict) -> str:
    return "-".join(str(value) for value in case.values())


def random_logits(seed: int, *, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(TOKENS, VOCAB, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(TOKENS, VOCAB, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def value_of(student: torch.Tensor, teacher: torch.Tensor, spec: DivergenceSpec) -> torch.Tensor:
    ids = torch.zeros(student.shape[:-1], dtype=torch.long)
    return divergence(student, teacher, ids, spec).value


def from_probs(*probs: float) -> torch.Tensor:
    return torch.tensor([probs], dtype=torch.float64).log()


@pytest.mark.parametrize("case", CASES + BOUNDED, ids=case_id)
def test_value_and_gradient_equal_the_slow_loop(case: dict) -> None:
    student, teacher = random_logits(1)
    weights = torch.rand(TOKENS, dtype=torch.float64)
    value = value_of(student, teacher, DivergenceSpec(**case))
    (gradient,) = torch.autograd.grad((value * weights).sum(), student)

    slow = torch.stack(
        [token_divergence(student[i], teacher[i], Settings(**case)) for i in range(TOKENS)]
    )
    (slow_gradient,) = torch.autograd.grad((slow * weights).sum(), student)
    torch.testing.assert_close(value, slow, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, slow_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES[::3], ids=case_id)
def test_gradient_passes_gradcheck(case: dict) -> None:
    student, teacher = (x[:2].detach() for x in random_logits(2))
    student.requires_grad_()
    spec = DivergenceSpec(**case)
    assert torch.autograd.gradcheck(lambda s: value_of(s, teacher, spec), student, eps=1e-7)


def test_the_clips_of_the_cases_bite_on_some_elements_and_spare_others() -> None:
    """Otherwise the comparisons above would say nothing about clipping."""
    student, teacher = random_logits(1)
    for kind, beta in KINDS:
        over = sum(
            element.item() > CLIPS[1]
            for i in range(TOKENS)
            for element in elements(
                softmax(student[i]), softmax(teacher[i]), Settings(kind=kind, beta=beta)
            )
        )
        assert 3 <= over < TOKENS * VOCAB - 5


def test_a_clipped_token_may_turn_negative() -> None:
    """OPSD's clip is one-sided: the negative elements stay, the positive ones are bounded."""
    student, teacher = from_probs(0.9, 0.1), from_probs(0.1, 0.9)
    value = value_of(student, teacher, DivergenceSpec(element_clip=0.05))
    expected = 0.05 + 0.1 * math.log(0.1 / 0.9)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    assert value.item() < 0


def test_a_bounded_teacher_is_not_normalised_again() -> None:
    """Reverse KL, S = (0.9, 0.1), T = (0.1, 0.9), T / S in [0.2, 5]: T becomes (0.18, 0.5)."""
    student, teacher = from_probs(0.9, 0.1), from_probs(0.1, 0.9)
    spec = DivergenceSpec("reverse_kl", ratio_low=0.2, ratio_high=5.0)
    value = value_of(student, teacher, spec)
    expected = 0.9 * math.log(1 / 0.2) + 0.1 * math.log(1 / 5)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    forward = value_of(student, teacher, DivergenceSpec(ratio_low=0.2, ratio_high=5.0))
    expected = 0.18 * math.log(0.2) + 0.5 * math.log(5)
    assert forward.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_bounds_that_nothing_meets_change_no_bit(kind: str, beta: float) -> None:
    student, teacher = random_logits(4)
    bounds = {"ratio_low": 1e-9, "ratio_high": 1e9}
    for support in SUPPORTS[:3]:
        plain = DivergenceSpec(kind, beta, **support)  # type: ignore[arg-type]
        wide = DivergenceSpec(kind, beta, **support, **bounds)  # type: ignore[arg-type]
        one, other = value_of(student, teacher, plain), value_of(student, teacher, wide)
        assert torch.equal(one, other)
        (a,), (b,) = (torch.autograd.grad(v.sum(), student) for v in (one, other))
        assert torch.equal(a, b)


@pytest.mark.parametrize("bounds", [(0.0, None), (1.5, None), (None, 0.9), (-1.0, 5.0)])
def test_bounds_on_the_wrong_side_of_one_are_refused(
    bounds: tuple[float | None, float | None],
) -> None:
    with pytest.raises(ValueError, match="ratio_low"):
        DivergenceSpec(ratio_low=bounds[0], ratio_high=bounds[1])


def test_no_second_derivative_is_promised() -> None:
    student, teacher = random_logits(3)
    value = value_of(student, teacher, DivergenceSpec()).sum()
    (gradient,) = torch.autograd.grad(value, student, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


# Numbers of other projects' tests, recomputed in float64 from the definitions.
S3, T3 = from_probs(0.5, 0.3, 0.2), from_probs(0.2, 0.6, 0.2)
TOP2_TAIL = {"top_k": 2, "tail": True}
VECTORS = {
    "V1 forward": ((0.1, 0.9), (0.9, 0.1), {"kind": "forward_kl"}, 1.7577796618689754),
    "V1 reverse": ((0.1, 0.9), (0.9, 0.1), {"kind": "reverse_kl"}, 1.7577796618689754),
    "V2 forward": ((0.8, 0.2), (0.5, 0.5), {"kind": "forward_kl"}, 0.2231435513142097),
    "V2 reverse": ((0.8, 0.2), (0.5, 0.5), {"kind": "reverse_kl"}, 0.19274475702175747),
    "V3": (
        (0.5, 0.3, 0.2),
        (0.2, 0.6, 0.2),
        {"kind": "forward_kl", "top_k": 2, "tail": False},
        0.29078770245142016,
    ),
    "V4 forward": (
        (0.5, 0.3, 0.2),
        (0.2, 0.6, 0.2),
        {"kind": "forward_kl", **TOP2_TAIL},
        0.23263016196113623,
    ),
    "V4 js": (
        (0.5, 0.3, 0.2),
        (0.2, 0.6, 0.2),
        {"kind": "js", "beta": 0.5, **TOP2_TAIL},
        0.05869201271045054,
    ),
    "V4 reverse": (
        (0.5, 0.3, 0.2),
        (0.2, 0.6, 0.2),
        {"kind": "reverse_kl", **TOP2_TAIL},
        0.2502012117690939,
    ),
    "V4 reverse, full": (
        (0.5, 0.3, 0.2),
        (0.2, 0.6, 0.2),
        {"kind": "reverse_kl"},
        0.2502012117690939,
    ),
    "V7": ((0.6, 0.3, 0.1), (0.5, 0.4, 0.1), {"kind": "js", "beta": 0.5}, 0.005859544696623517),
    # A peer that swaps the mixture's weights gives 0.21556 for both of these.
    "A1 beta .25": ((0.6, 0.3, 0.1), (0.2, 0.3, 0.5), {"kind": "js", "beta": 0.25}, 0.09878),
    "A1 beta .75": ((0.6, 0.3, 0.1), (0.2, 0.3, 0.5), {"kind": "js", "beta": 0.75}, 0.09217),
}


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name: str) -> None:
    student, teacher, spec, expected = VECTORS[name]
    value = value_of(from_probs(*student), from_probs(*teacher), DivergenceSpec(**spec))
    digits = 5e-6 if name.startswith("A1") else 1e-12
    assert value.item() == pytest.approx(expected, abs=digits)


V8 = {
    ("forward_kl", 0.5, 1): (0.9773357590668846, 2.727014438103179),
    ("js", 0.25, 1): (0.156686367541247, 0.4374687319487879),
    ("js", 0.5, 1): (0.20300730510324935, 0.5648723478154791),
    ("reverse_kl", 0.5, 1): (1.0041626213464526, 2.699794021109253),
    ("forward_kl", 0.5, 2): (0.26861455084144065, None),
    ("js", 0.25, 2): (0.04875773493618427, None),
    ("js", 0.5, 2): (0.06478851398554221, None),
    ("reverse_kl", 0.5, 2): (0.27999849904195045, None),
}


@pytest.mark.parametrize("key", V8)
def test_published_vector_v8(key: tuple[str, float, int]) -> None:
    kind, beta, temperature = key
    generator = torch.Generator().manual_seed(42)
    student = torch.randn(2, 3, 5, generator=generator).double() / temperature
    teacher = torch.randn(2, 3, 5, generator=generator).double() / temperature
    mask = torch.tensor([[False, True, True], [False, False, True]])
    value = value_of(student, teacher, DivergenceSpec(kind, beta))
    masked, summed = V8[key]
    assert value[mask].mean().item() == pytest.approx(masked, abs=1e-12)
    if summed is not None:
        assert value.sum().item() / 2 == pytest.approx(summed, abs=1e-12)


def test_published_vector_v11() -> None:
    tail = add_tail(torch.full((10,), 0.1, dtype=torch.float64).log())[-1]
    assert tail.item() == pytest.approx(-16.11809570095832, abs=1e-12)


def test_published_vector_v14() -> None:
    student = torch.tensor([[-4.0, -2.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, -2.0, -4.0]], dtype=torch.float64)
    spec = DivergenceSpec("reverse_kl", top_k=3, tail=False)
    assert value_of(student, teacher, spec).item() == pytest.approx(3.4037483688834733, abs=1e-12)
    assert value_of(teacher, teacher, spec).item() == 0


@pytest.mark.parametrize("alpha", [0, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("support", ["full", "tail", "renormalised"])
def test_agrees_with_trl(alpha: float, support: str) -> None:
    """TRL's alpha weighs the teacher in the mixture, as beta does here; 0 is KL(teacher||student).

    Its top-k is always the student's.
    """
    trl = pytest.importorskip("trl.experimental.sdpo.loss_utils")
    student, teacher = random_logits(4)
    kind = {0: "forward_kl", 1: "reverse_kl"}.get(alpha, "js")
    beta = alpha if kind == "js" else 0.5
    if support == "full":
        logs, logt = student.log_softmax(-1), teacher.log_softmax(-1)
        expected = trl.compute_divergence(logs, logt, float(alpha))
        spec = DivergenceSpec(kind, beta)
    else:
        tail = support == "tail"
        expected = trl.compute_topk_self_distillation_loss(
            student,
            teacher,
            distillation_topk=3,
            distillation_alpha=float(alpha),
            distillation_add_tail=tail,
        )
        spec = DivergenceSpec(kind, beta, top_k=3, tail=tail)
    value = value_of(student, teacher, spec)
    (gradient,) = torch.autograd.grad(value.sum(), student, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-6)


UNCLIPPED = [case for case in CASES if case["element_clip"] is None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", UNCLIPPED, ids=case_id)
def test_equal_logits_give_exactly_zero(case: dict, dtype: torch.dtype) -> None:
    """Also at confident tokens, where the tail of the top k is floored."""
    student = torch.cat([random_logits(5)[0], random_logits(6, scale=40)[0]]).detach().to(dtype)
    student.requires_grad_()
    value = value_of(student, student.detach().clone(), DivergenceSpec(**case))
    value.sum().backward()
    assert (value == 0).all()
    assert student.grad is not None
    assert (student.grad == 0).all()


@pytest.mark.parametrize("case", UNCLIPPED, ids=case_id)
def test_a_constant_added_to_a_token_s_logits_changes_nothing(case: dict) -> None:
    student, teacher = random_logits(7, scale=15)
    spec = DivergenceSpec(**case)
    value = value_of(student, teacher, spec)
    moved = value_of(student + 100, teacher - 50, spec)
    torch.testing.assert_close(value, moved, rtol=1e-9, atol=1e-10)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    # So the gradient has no part along that direction, tails that are floored included.
    torch.testing.assert_close(
        gradient.sum(-1), torch.zeros(TOKENS, dtype=torch.float64), rtol=0, atol=3e-6
    )


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_never_negative_and_js_at_most_log_2(scale: float, dtype: torch.dtype) -> None:
    student, teacher = (x.detach().to(dtype) for x in random_logits(5, scale=scale))
    rounding = 50 * torch.finfo(dtype).eps * (1 + scale)
    for case in UNCLIPPED:
        value = value_of(student, teacher, DivergenceSpec(**case))
        assert torch.isfinite(value).all()
        # A floored tail makes the categories sum to as much as 1 + 1e-7.
        least = -rounding - (1e-7 if case.get("tail") else 0)
        assert (value >= least).all(), case
        if case["kind"] == "js":
            bound = -math.log(case["beta"]) * case["beta"]
            bound -= math.log(1 - case["beta"]) * (1 - case["beta"])
            assert (value <= bound + 1e-6).all()
            assert bound <= math.log(2) + 1e-12


def test_js_of_disjoint_distributions_is_the_entropy_of_its_weights() -> None:
    student, teacher = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    value = value_of(student, teacher, DivergenceSpec("js", 0.5))
    assert value.item() == pytest.approx(math.log(2), abs=1e-6)
    value = value_of(student, teacher, DivergenceSpec("js", 0.1))
    expected = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", UNCLIPPED, ids=case_id)
def test_masked_tokens_have_no_part_in_anything(case: dict) -> None:
    """Logits of -inf in both (padded vocabularies, banned tokens) are as good as not there."""
    student, teacher = random_logits(8)
    holes = torch.full((TOKENS, 2), -torch.inf, dtype=torch.float64)
    spec = DivergenceSpec(**case)
    expected = value_of(student, teacher, spec)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), student)
    wide = torch.cat([student.detach(), holes], -1).requires_grad_()
    value = value_of(wide, torch.cat([teacher, holes], -1), spec)
    (gradient,) = torch.autograd.grad(value.sum(), wide)
    atol = 1e-6 if case.get("top_k", 0) > VOCAB else 1e-10
    torch.testing.assert_close(value, expected, rtol=0, atol=atol)
    torch.testing.assert_close(gradient[:, :VOCAB], expected_gradient, rtol=0, atol=atol)
    assert (gradient[:, VOCAB:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [1e2, 1e5, float("inf")])
@pytest.mark.parametrize("case", CASES[:: len(KINDS) - 2], ids=case_id)
def test_enormous_gaps_stay_finite(case: dict, gap: float, dtype: torch.dtype) -> None:
    student = torch.zeros(2, VOCAB, dtype=dtype)
    teacher = student.clone()
    student[0, 0], teacher[0, 1] = (-gap, -gap) if math.isinf(gap) else (gap, gap)
    student[1, :3], teacher[1, 2:5] = -gap, -gap
    student.requires_grad_()
    value = value_of(student, teacher, DivergenceSpec(**case))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    # A probability moves by at most its own size; only reverse KL scales with the gap.
    assert student.grad.abs().max() <= (2 if case["kind"] != "reverse_kl" else 3e4)


def test_a_gap_of_hundreds_is_exact() -> None:
    student = torch.tensor([[0.0, 500.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    value = value_of(student, teacher, DivergenceSpec("forward_kl")).item()
    assert value == pytest.approx(250 - math.log(2), abs=1e-10)
    value = value_of(student, teacher, DivergenceSpec("reverse_kl")).item()
    assert value == pytest.approx(math.log(2), abs=1e-10)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_vocabulary_of_one_has_nothing_to_learn(case: dict) -> None:
    student = torch.randn(3, 1, requires_grad=True)
    value = value_of(student, torch.randn(3, 1), DivergenceSpec(**case))
    value.sum().backward()
    assert (value == 0).all()
    assert student.grad is not None
    assert (student.grad == 0).all()


def floored_tail() -> tuple[torch.Tensor, torch.Tensor]:
    """A student sure of one token beside a teacher that is not."""
    student = torch.tensor([[40.0, 1.0, 0.0, -1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    return student, torch.tensor([[1.0, 0.5, 0.0, 0.5, 1.0]], dtype=torch.float64)


def test_a_floored_tail_still_teaches_its_members_in_proportion() -> None:
    """Its value is bounded by the floor; its gradient is that of the tail without a floor."""
    student, teacher = floored_tail()
    value = value_of(student, teacher, DivergenceSpec(top_k=2))
    (gradient,) = torch.autograd.grad(value, student)
    probs, target = student.softmax(-1), teacher.softmax(-1)
    top = torch.tensor([True, True, False, False, False])
    rest = probs[0, ~top] / probs[0, ~top].sum()
    expected = torch.empty(5, dtype=torch.float64)
    expected[top] = (probs - target)[0, top].detach()
    expected[~top] = (rest * (probs - target)[0, ~top].sum()).detach()
    torch.testing.assert_close(gradient[0], expected, rtol=0, atol=2e-7)


def test_a_float32_tail_falls_on_its_members_by_their_share() -> None:
    student, teacher = (x.detach().float() for x in floored_tail())
    student.requires_grad_()
    value_of(student, teacher, DivergenceSpec(top_k=2)).sum().backward()
    assert student.grad is not None
    shares = student.grad[0, 2:] / student.grad[0, 2:].sum()
    torch.testing.assert_close(shares, student[0, 2:].softmax(-1).detach())


def reference_in_float64(
    student: torch.Tensor, teacher: torch.Tensor, kind: str, beta: float
) -> torch.Tensor:
    logs, logt = student.double().log_softmax(-1), teacher.double().log_softmax(-1)
    if kind == "forward_kl":
        return (logt.exp() * (logt - logs)).sum(-1)
    if kind == "reverse_kl":
        return (logs.exp() * (logs - logt)).sum(-1)
    mixed = torch.logaddexp(logt + math.log(beta), logs + math.log1p(-beta))
    towards = (logt.exp() * (logt - mixed)).sum(-1)
    return beta * towards + (1 - beta) * (logs.exp() * (logs - mixed)).sum(-1)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("kind", "beta"), KINDS[:3])
def test_small_divergences_of_bfloat16_logits_are_summed_in_float32(
    kind: str, beta: float, autocast: bool
) -> None:
    """A fused loss in use elsewhere sums in bfloat16 and returns -0.0037 for a JSD of 0.0024."""
    generator = torch.Generator().manual_seed(0)
    base = 3 * torch.randn(2, 50_000, generator=generator)
    student = (base + 0.1 * torch.randn(base.shape, generator=generator)).bfloat16()
    teacher = base.bfloat16()
    ids = torch.arange(2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        result = divergence(student, teacher, ids, DivergenceSpec(kind, beta))
    expected = reference_in_float64(student, teacher, kind, beta)
    assert 1e-4 < expected.min() < expected.max() < 1e-2
    assert result.value.dtype == torch.float32
    torch.testing.assert_close(result.value.double(), expected, rtol=2e-3, atol=1e-7)
    logs = student.double().log_softmax(-1)
    torch.testing.assert_close(
        result.entropy.double(), -(logs.exp() * logs).sum(-1), rtol=1e-5, atol=0
    )
    sampled = logs.gather(-1, ids[:, None]).squeeze(-1)
    torch.testing.assert_close(result.student_logprobs.double(), sampled, rtol=1e-5, atol=0)

    # What the same sum gives in bfloat16, to show that this test can fail.
    logs16, logt16 = student.log_softmax(-1), teacher.log_softmax(-1)
    wrong = (logt16.exp() * (logt16 - logs16)).sum(-1).double()
    forward = reference_in_float64(student, teacher, "forward_kl", 0.5)
    assert ((wrong - forward).abs() > 0.1 * forward).any()


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_the_default_dtype_has_no_say(kind: str, beta: float) -> None:
    """Precision ``bf16-true`` makes it bfloat16 while a step runs."""
    student, teacher = random_logits(14)
    expected = value_of(student, teacher, DivergenceSpec(kind, beta, top_k=3))
    torch.set_default_dtype(torch.bfloat16)
    try:
        value = value_of(student, teacher, DivergenceSpec(kind, beta, top_k=3))
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_bfloat16_gradients_have_the_logits_dtype_and_float32_accuracy() -> None:
    student, teacher = (x.detach().bfloat16() for x in random_logits(9))
    student.requires_grad_()
    value_of(student, teacher, DivergenceSpec()).sum().backward()
    assert student.grad is not None
    assert student.grad.dtype == torch.bfloat16
    exact = (student.double().softmax(-1) - teacher.double().softmax(-1)).detach()
    torch.testing.assert_close(student.grad.double(), exact, rtol=1e-2, atol=1e-6)


def test_returns_what_the_sampled_tokens_were_worth() -> None:
    student, teacher = random_logits(10)
    ids = torch.randint(VOCAB, (TOKENS,))
    result = divergence(student, teacher, ids, DivergenceSpec(top_k=2))
    rows = torch.arange(TOKENS)
    logs, logt = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    torch.testing.assert_close(result.student_logprobs, logs[rows, ids])
    torch.testing.assert_close(result.teacher_logprobs, logt[rows, ids])
    torch.testing.assert_close(
        result.entropy, torch.distributions.Categorical(logits=logs).entropy()
    )
    assert result.value.requires_grad
    assert not any(x.requires_grad for x in result[1:])


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_any_number_of_leading_axes(case: dict) -> None:
    student, teacher = random_logits(11)
    spec = DivergenceSpec(**case)
    flat = value_of(student, teacher, spec)
    (gradient,) = torch.autograd.grad(flat.sum(), student)
    folded = value_of(student.reshape(2, 3, VOCAB), teacher.reshape(2, 3, VOCAB), spec)
    (gradient_folded,) = torch.autograd.grad(folded.sum(), student)
    torch.testing.assert_close(folded.flatten(), flat, rtol=0, atol=1e-14)
    torch.testing.assert_close(gradient_folded, gradient, rtol=0, atol=1e-14)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = random_logits(12)
    teacher.requires_grad_()
    value_of(student, teacher, DivergenceSpec("js")).sum().backward()
    assert teacher.grad is None


def test_forward_kl_has_the_gradient_of_cross_entropy_with_the_teacher() -> None:
    student, teacher = random_logits(13)
    value_of(student, teacher, DivergenceSpec()).sum().backward()
    torch.testing.assert_close(student.grad, (student.softmax(-1) - teacher.softmax(-1)).detach())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "kl"}, "kind='kl'"),
        ({"kind": "js", "beta": 0.0}, "beta=0.0"),
        ({"kind": "js", "beta": 1.0}, "beta=1.0"),
        ({"kind": "js", "beta": math.nan}, "beta=nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 1, "tail": False}, "top_k=1"),
        ({"support": "both"}, "support='both'"),
        ({"element_clip": 0.0}, "element_clip=0.0"),
        ({"element_clip": -1.0}, "element_clip=-1.0"),
        ({"element_clip": math.nan}, "element_clip=nan"),
    ],
)
def test_settings_out_of_range_are_named(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        DivergenceSpec(**arguments)


@pytest.mark.parametrize(
    ("student", "teacher", "ids"),
    [((2, 5), (2, 6), (2,)), ((2, 5), (3, 5), (2,)), ((2, 5), (2, 5), (3,))],
)
def test_shapes_that_do_not_fit_are_named(student: tuple, teacher: tuple, ids: tuple) -> None:
    with pytest.raises(ValueError, match="do not match"):
        divergence(
            torch.zeros(student),
            torch.zeros(teacher),
            torch.zeros(ids, dtype=torch.long),
            DivergenceSpec(),
        )
