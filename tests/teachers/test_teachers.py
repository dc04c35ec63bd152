from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sd.models import LoRA
from lightning_sd.models.lora import add_lora
from lightning_sd.objectives import Distillation, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scorer
from lightning_sd.teachers import (
    EMATeacher,
    FrozenTeacher,
    LiveTeacher,
    TeacherWeights,
    fingerprint,
    make_shadow,
    score_both,
)

IDS = torch.tensor([[5, 6, 7, 8]])
PROMPTS, COMPLETIONS = [[5, 6]], [[7, 8, 9]]


def lora(make_llama: Any, **config: Any) -> Any:
    pytest.importorskip("peft")
    return add_lora(make_llama(**config), LoRA(r=4, target_modules=["q_proj", "down_proj"]))


@pytest.fixture(params=["full", "tied", "lora"])
def student(request: Any, make_llama: Any) -> Any:
    if request.param == "lora":
        return lora(make_llama)
    return make_llama(tie_word_embeddings=request.param == "tied")


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def train(student: nn.Module, teacher: TeacherWeights, steps: int) -> list[dict[str, Tensor]]:
    """Real optimizer steps away from the start; the student's weights after each."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    history = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(student(input_ids=IDS).logits[0, :-1], IDS[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.after_step(student)
        history.append(weights_of(student))
    return history


def test_a_frozen_teacher_is_bit_identical_after_20_steps(student: Any) -> None:
    before, initial = logits(student), weights_of(student)
    teacher = FrozenTeacher()
    teacher.setup(student)
    train(student, teacher, 20)
    assert not torch.equal(logits(student), before)
    with teacher.swap_in(student):
        assert torch.equal(logits(student), before)
        if not hasattr(student, "disable_adapter"):
            now = weights_of(student)
            assert all(torch.equal(now[name], initial[name]) for name in initial)


def test_a_frozen_teacher_with_fresh_adapters_holds_no_copy(make_llama: Any) -> None:
    student = lora(make_llama)
    teacher = FrozenTeacher()
    teacher.setup(student)
    assert teacher.state_dict() == {}


@pytest.mark.parametrize("how", ["trained before", "starts off zero"])
def test_adapters_that_change_something_are_part_of_the_initial_policy(
    make_llama: Any, how: str
) -> None:
    peft = pytest.importorskip("peft")
    if how == "trained before":
        student = lora(make_llama)
        train(student, LiveTeacher(), 2)
    else:
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa")
        student = peft.get_peft_model(make_llama(), config)
    before = logits(student)
    teacher = FrozenTeacher()
    teacher.setup(student)
    train(student, teacher, 2)
    with teacher.swap_in(student):
        assert torch.equal(logits(student), before)


def test_parameters_that_train_beside_fresh_adapters_are_part_of_the_initial_policy(
    make_llama: Any,
) -> None:
    """Switching the adapter off does not bring them back."""
    student = lora(make_llama)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or "layernorm" in name)
    before = logits(student)
    teacher = FrozenTeacher()
    teacher.setup(student)
    train(student, teacher, 2)
    assert not torch.equal(logits(student), before)
    with teacher.swap_in(student):
        assert torch.equal(logits(student), before)


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
def test_an_ema_equals_its_closed_form(student: Any, rate: float) -> None:
    """(1 - a)^n of the start and a (1 - a)^(n - i) of the student after step i."""
    start = weights_of(student)
    names = [name for name, p in student.named_parameters() if p.requires_grad]
    teacher = EMATeacher(rate)
    teacher.setup(student)
    steps = 20
    history = train(student, teacher, steps)
    with teacher.swap_in(student):
        found = weights_of(student)
    for name in names:
        expected = (1 - rate) ** steps * start[name].double()
        for i, weights in enumerate(history, 1):
            expected += rate * (1 - rate) ** (steps - i) * weights[name].double()
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
    for name, weight in found.items():
        if name not in names:
            assert torch.equal(weight, start[name])


def delta(student: Any) -> Tensor:
    """What the adapters add to the first layer's query weights."""
    layer = student.get_base_model().model.layers[0].self_attn.q_proj
    return layer.get_delta_weight("default").detach()


def test_a_lora_ema_lags_as_an_ema_of_the_weights_does(make_llama: Any) -> None:
    """A peer starts both factors of its teacher's adapter at zero: 41% instead of 64%."""
    student = lora(make_llama)
    teacher = EMATeacher(0.05)
    teacher.setup(student)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter)
    moved = delta(student)
    for step in range(1, 21):
        teacher.after_step(student)
        with teacher.swap_in(student):
            share = (delta(student).norm() / moved.norm()).item()
        assert share == pytest.approx(1 - 0.95**step, abs=1e-4)
    assert share == pytest.approx(0.6415, abs=1e-3)
    assert share > 0.6 > 0.42 > (1 - 0.95**20) ** 2


def test_an_ema_of_bfloat16_weights_moves_however_small_its_rate(make_llama: Any) -> None:
    student = make_llama(dtype=torch.bfloat16)
    teacher = EMATeacher(0.001)
    teacher.setup(student)
    start = student.lm_head.weight.detach().clone()
    with torch.no_grad():
        student.lm_head.weight.mul_(1.05)
    naive = start.clone()
    for _ in range(200):
        teacher.after_step(student)
        naive.lerp_(student.lm_head.weight.detach(), 0.001)
    shadow = teacher.state_dict()["shadow"]["lm_head.weight"]
    gone = (shadow - start.float()).norm() / (student.lm_head.weight - start).float().norm()
    assert shadow.dtype == torch.float32
    assert gone.item() == pytest.approx(1 - 0.999**200, abs=1e-3)
    # In the weights' own dtype each step rounds away, which is what the shadow is for.
    assert (naive != start).float().mean() < 0.05
    with teacher.swap_in(student):
        assert student.lm_head.weight.dtype == torch.bfloat16
        assert not torch.equal(student.lm_head.weight, start)


def test_a_live_teacher_is_the_student_without_gradient(student: Any) -> None:
    teacher = LiveTeacher()
    teacher.setup(student)
    train(student, teacher, 2)
    before = logits(student)
    with teacher.swap_in(student):
        assert torch.equal(logits(student), before)
    assert teacher.state_dict() == {}


TEACHERS = [LiveTeacher, FrozenTeacher, lambda: EMATeacher(0.1)]


@pytest.mark.parametrize("kind", TEACHERS)
def test_the_student_has_its_own_weights_back_afterwards(student: Any, kind: Any) -> None:
    teacher = kind()
    teacher.setup(student)
    train(student, teacher, 2)
    parameters = dict(student.named_parameters())
    memory = {name: p.data_ptr() for name, p in parameters.items()}
    before, out = weights_of(student), logits(student)
    wants = {name: p.requires_grad for name, p in parameters.items()}
    with pytest.raises(RuntimeError, match="broken"), teacher.swap_in(student):
        raise RuntimeError("broken")
    for name, parameter in student.named_parameters():
        assert parameter is parameters[name]
        assert parameter.data_ptr() == memory[name]
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == wants[name]
    assert torch.equal(logits(student), out)


def test_weights_come_back_even_if_they_were_frozen_meanwhile(make_llama: Any) -> None:
    student = make_llama()
    teacher = EMATeacher()
    teacher.setup(student)
    train(student, teacher, 2)
    before = weights_of(student)
    with teacher.swap_in(student):
        student.requires_grad_(False)
    assert all(torch.equal(p, before[name]) for name, p in student.named_parameters())


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_s_pass_leaves_the_student_s_gradients_alone(student: Any, kind: Any) -> None:
    teacher = kind()
    teacher.setup(student)
    train(student, teacher, 2)

    def gradients(*, scored: bool) -> dict[str, Tensor]:
        student.zero_grad()
        if scored:
            with torch.no_grad(), teacher.swap_in(student):
                Scorer(student).score(PROMPTS, COMPLETIONS).logits()
        student(input_ids=IDS).logits.square().mean().backward()
        return {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}

    plain, after = gradients(scored=False), gradients(scored=True)
    assert plain.keys() == after.keys()
    assert plain
    assert all(torch.equal(plain[name], after[name]) for name in plain)


@pytest.mark.parametrize("kind", [FrozenTeacher, lambda: EMATeacher(0.1)])
def test_scores_taken_inside_stay_the_teacher_s_outside(student: Any, kind: Any) -> None:
    """The head is applied later, when the student has its own weights back."""
    teacher = kind()
    teacher.setup(student)
    train(student, teacher, 5)
    with torch.no_grad():
        with teacher.swap_in(student):
            scores = Scorer(student).score(PROMPTS, COMPLETIONS)
            inside = scores.logits()
            expected = student(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0, 1:]
        assert torch.equal(scores.logits(), inside)
        torch.testing.assert_close(inside, expected, rtol=1e-4, atol=1e-4)
        own = Scorer(student).score(PROMPTS, COMPLETIONS).logits()
        assert (own - inside).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TEACHERS)
def test_before_any_step_every_teacher_is_the_student(student: Any, kind: Any) -> None:
    teacher = kind()
    teacher.setup(student)
    with torch.no_grad(), teacher.swap_in(student):
        view = Scorer(student).score(PROMPTS, COMPLETIONS)
    scores = Scorer(student).score(PROMPTS, COMPLETIONS)
    output = compute_loss(Distillation(), scores, view, TokenInputs(torch.tensor([7, 8, 9])), [3])
    output.total.backward()
    assert output.total == 0
    found = [p.grad for p in student.parameters() if p.grad is not None]
    assert found
    assert all((gradient == 0).all() for gradient in found)


def test_the_optimizer_and_the_checkpoint_never_see_a_shadow(student: Any) -> None:
    number, names = len(list(student.parameters())), set(student.state_dict())
    for teacher in (FrozenTeacher(), EMATeacher()):
        teacher.setup(student)
        assert len(list(student.parameters())) == number
        assert set(student.state_dict()) == names
        assert not any(t.requires_grad for t in (teacher._shadow or {}).values())


def test_a_tied_weight_has_one_shadow_and_both_its_uses_are_swapped(make_llama: Any) -> None:
    student = make_llama(tie_word_embeddings=True)
    assert "lm_head.weight" not in make_shadow(student)
    teacher = FrozenTeacher()
    teacher.setup(student)
    train(student, teacher, 2)
    with teacher.swap_in(student):
        assert student.lm_head.weight.data_ptr() == student.model.embed_tokens.weight.data_ptr()
    assert student.lm_head.weight.data_ptr() == student.model.embed_tokens.weight.data_ptr()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_an_ema_comes_back_from_a_checkpoint_and_goes_on(student: Any) -> None:
    """A peer's average is the initial model again after resuming."""
    teacher = EMATeacher(0.2)
    teacher.setup(student)
    train(student, teacher, 3)
    state = through_a_file(teacher.state_dict())
    resumed = EMATeacher(0.2)
    resumed.setup(student)
    resumed.load_state_dict(state)
    train(student, teacher, 0)
    for each in (teacher, resumed):
        each.after_step(student)
    expected, found = teacher.state_dict()["shadow"], resumed.state_dict()["shadow"]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    start = EMATeacher(0.2)
    start.setup(student)
    fresh = start.state_dict()["shadow"]
    assert any(not torch.equal(fresh[name], found[name]) for name in found)


def test_an_ema_of_other_weights_is_refused(make_llama: Any) -> None:
    teacher = EMATeacher()
    teacher.setup(make_llama())
    other = EMATeacher()
    other.setup(lora(make_llama))
    for state in (other.state_dict(), {}, {"fingerprint": "0"}):
        with pytest.raises(ValueError, match="covers other parameters"):
            teacher.load_state_dict(state)
    wider = EMATeacher()
    wider.setup(make_llama(vocab_size=400))
    with pytest.raises(ValueError, match=r"embed_tokens\.weight"):
        teacher.load_state_dict(wider.state_dict())


def test_a_frozen_teacher_s_source_must_be_what_it_was(make_llama: Any) -> None:
    teacher = FrozenTeacher()
    student = make_llama()
    teacher.setup(student)
    train(student, teacher, 2)
    state = through_a_file(teacher.state_dict())
    assert sum(len(str(value)) for value in state.values()) < 1000

    same = FrozenTeacher()
    same.setup(make_llama())
    same.load_state_dict(state)

    other = FrozenTeacher()
    other.setup(make_llama(seed=1))
    with pytest.raises(ValueError, match="model source now gives other parameters"):
        other.load_state_dict(state)


def test_a_fingerprint_sees_values_names_and_shapes() -> None:
    weights = {"a": torch.arange(10_000.0), "b": torch.ones(2, 3)}
    same = fingerprint({name: weights[name].clone() for name in ("b", "a")})
    assert fingerprint(weights) == same
    changes: list[dict[str, Tensor]] = [
        {"a": weights["a"], "b": weights["b"].reshape(3, 2)},
        {"a": weights["a"], "c": weights["b"]},
        {"a": weights["a"] + 1e-3, "b": weights["b"]},
        {"a": weights["a"].flip(0), "b": weights["b"]},
    ]
    assert len({fingerprint(x) for x in changes} | {same}) == 5


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_an_ema_rate_out_of_range_is_named(rate: float) -> None:
    with pytest.raises(ValueError, match=f"rate={rate}"):
        EMATeacher(rate)


@pytest.mark.parametrize("teacher", [LiveTeacher(), FrozenTeacher()], ids=["live", "frozen"])
def test_both_scores_equal_two_passes(teacher, make_llama):
    """One batch where student and teacher have the same weights, two where they have not."""
    student = make_llama()
    scorer = Scorer(student)
    teacher.setup(student)
    own, seen = [[5, 6], [5, 6], [7]], [[9, 5, 6], [8, 9, 5, 6], [7, 7]]
    completions = [[7, 8, 9], [4], [10, 11]]
    got = score_both(teacher, student, scorer, own, seen, completions)
    for scores, prompts in zip(got, (own, seen), strict=True):
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            start = sum(map(len, completions[:row]))
            alone = Scorer(student).score([prompt], [completion]).logits()
            torch.testing.assert_close(
                scores.logits(slice(start, start + len(completion))), alone, rtol=1e-4, atol=1e-5
            )
