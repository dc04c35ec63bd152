from __future__ import annotations

import copy
import itertools
import random
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sd.models import LoRA
from lightning_sd.models.cache import find_call_cost
from lightning_sd.models.lora import add_lora
from lightning_sd.objectives import Distillation, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Head, Scorer, bucket_rows, deduplicate_prompts, pack_rows
from lightning_sd.scoring import scorer as scorer_module
from lightning_sd.scoring.plan import plan_scoring
from lightning_sd.scoring.sharing import apply_split, find_cheapest_sharing, iterate_splits
from tests.reference.divergence import Settings
from tests.reference.scoring import completion_logits, loss_sum

EOS = 1
Rows = Sequence[Sequence[int]]
PROMPTS: Rows = [[5, 6], [7], [8, 9, 10, 11, 12], [13, 14, 15]]
LONGER: Rows = [[20, 21, 22, 5, 6], [23, 7, 24], [8], [25, 26, 27, 28, 13, 14, 15]]
COMPLETIONS: Rows = [[30, 31, EOS], [32, EOS], [33, 34, 35, 36, 37], []]
GROUPED: tuple[Rows, Rows] = (
    [[5, 6]] * 3 + [[7]] + [[8, 9, 10, 11]] * 2,
    [[30, 31, EOS], [32], [33, 34, 35, 36, 37], [38, EOS], [39, 40, EOS], [41]],
)
"""Several completions a prompt, as sampled."""
BEGUN: Rows = [[50, *prompt] for prompt in ([5, 6, 7], [5, 6, 7], [5, 6, 8], [5, 6], [9, 10], [])]
"""All begin alike, as behind one system turn, and some a little further; one ends there."""
IDS = [token for row in COMPLETIONS for token in row]
LENGTHS = [len(row) for row in COMPLETIONS]


class SeesWhere(nn.Module):
    """Logits by hand: those at a position say which token stands there, and at which index."""

    def __init__(self, vocab: int = 40) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        table = torch.randn(vocab, vocab, generator=generator, dtype=torch.float64)
        self.table = nn.Parameter(table)

    def at(self, token: int, index: int) -> Tensor:
        return self.table[token] + 0.01 * index

    def forward(self, input_ids: Tensor) -> Any:
        index = torch.arange(input_ids.shape[1], dtype=torch.float64)
        return SimpleNamespace(logits=self.table[input_ids] + 0.01 * index[:, None])


@pytest.mark.parametrize("prompts", [PROMPTS, LONGER])
def test_a_token_is_scored_where_the_one_before_it_stands(prompts: Rows) -> None:
    """Off by one, or counted from the padded end, every entry here would be another."""
    model = SeesWhere()
    logits = Scorer(model).score(prompts, COMPLETIONS).logits()
    expected = []
    for prompt, completion in zip(prompts, COMPLETIONS, strict=True):
        row = [*prompt, *completion]
        for t in range(len(completion)):
            position = len(prompt) - 1 + t
            expected.append(model.at(row[position], position))
    assert len(logits) == sum(LENGTHS)
    torch.testing.assert_close(logits, torch.stack(expected), rtol=0, atol=0)


def test_the_eos_is_scored_and_nothing_after_it() -> None:
    model = SeesWhere()
    scores = Scorer(model).score([[5, 6]], [[30, EOS]])
    output = compute_loss(Distillation(), scores, scores, TokenInputs(torch.tensor([30, EOS])), [2])
    expected = [
        model.at(6, 1).log_softmax(-1)[30],
        model.at(30, 2).log_softmax(-1)[EOS],
    ]
    torch.testing.assert_close(output.tokens.student_logprobs, torch.stack(expected).detach())
    assert output.count == 2


def test_student_and_teacher_score_the_same_tokens_behind_different_prompts() -> None:
    student, teacher = SeesWhere(), SeesWhere()
    teacher.table.data.mul_(0.5)
    output = compute_loss(
        Distillation(),
        Scorer(student).score(PROMPTS, COMPLETIONS),
        Scorer(teacher).score(LONGER, COMPLETIONS),
        TokenInputs(torch.tensor(IDS)),
        LENGTHS,
    )
    for model, prompts, found in (
        (student, PROMPTS, output.tokens.student_logprobs),
        (teacher, LONGER, output.tokens.teacher_logprobs),
    ):
        expected = []
        for prompt, completion in zip(prompts, COMPLETIONS, strict=True):
            before = [prompt[-1], *completion[:-1]]
            for t, token in enumerate(completion):
                logs = model.at(before[t], len(prompt) - 1 + t).log_softmax(-1)
                expected.append(logs[token])
        torch.testing.assert_close(found, torch.stack(expected).detach())


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def family(request: Any, make_llama: Any, make_gpt2: Any) -> Any:
    """A maker of float64 models and how exact their float64 is: Llama's norms are in float32."""
    make = make_llama if request.param == "llama" else make_gpt2
    tolerance = 1e-5 if request.param == "llama" else 1e-10
    return SimpleNamespace(
        make=lambda seed: make(seed=seed, dtype=torch.float64, vocab_size=64), tolerance=tolerance
    )


def packed_loss(
    student: Any, teacher: Any, prompts: Rows, longer: Rows, completions: Rows, **settings: Any
) -> Tensor:
    ids = torch.tensor([token for row in completions for token in row])
    with torch.no_grad():
        view = Scorer(teacher).score(longer, completions)
    scores = Scorer(student).score(prompts, completions)
    objective = Distillation(**settings, chunk_tokens=4)
    return compute_loss(
        objective, scores, view, TokenInputs(ids), [len(row) for row in completions]
    ).total


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(
    ours: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]], tol: float
) -> None:
    torch.testing.assert_close(ours[0], other[0], rtol=tol, atol=tol)
    assert ours[1].keys() == other[1].keys()
    for name, gradient in ours[1].items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(gradient, other[1][name], rtol=0, atol=tol * scale)
    assert any(gradient.abs().max() > 1e-2 for gradient in ours[1].values())


@pytest.mark.parametrize(
    ("side", "settings"),
    [("left", {}), ("right", {"kind": "js", "beta": 0.3}), ("right", {"kind": "reverse_kl"})],
    ids=str,
)
def test_equals_the_plain_forward_pass_padded_on_either_side(
    family: Any, side: Any, settings: dict[str, Any]
) -> None:
    student, teacher = family.make(0), family.make(1)
    total = packed_loss(student, teacher, PROMPTS, LONGER, COMPLETIONS, **settings)
    expected = loss_sum(
        student, teacher, PROMPTS, LONGER, COMPLETIONS, Settings(**settings), side=side
    )
    ours = total.detach(), gradients(total, student)
    assert_same(ours, (expected.detach(), gradients(expected, student)), family.tolerance)


def test_the_reference_would_notice_wrong_positions(family: Any) -> None:
    """Learned positions that count the pads give other logits: a peer forgets to pass them."""
    model = family.make(0)
    right = completion_logits(model, [5, 6], [30, 31], pads=4, side="left")
    counted = model(
        input_ids=torch.tensor([[0, 0, 0, 0, 5, 6, 30, 31]]),
        attention_mask=torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]),
        position_ids=torch.arange(8)[None],
    ).logits[0, 5:7]
    differs = (right - counted).abs().max() > 1e-2
    assert differs == (model.config.model_type == "gpt2")


def test_other_rows_do_not_change_a_row(family: Any) -> None:
    """Batched, permuted, one by one, beside longer rows: the same sums and gradients."""
    student, teacher = family.make(0), family.make(1)
    args = list(zip(PROMPTS, LONGER, COMPLETIONS, strict=True))
    together = packed_loss(student, teacher, PROMPTS, LONGER, COMPLETIONS)
    ours = together.detach(), gradients(together, student)

    def of(rows: Sequence[tuple[Any, Any, Any]]) -> Tensor:
        prompts, longer, completions = zip(*rows, strict=True)
        return packed_loss(student, teacher, prompts, longer, completions)

    permuted = of([args[i] for i in (2, 0, 3, 1)])
    assert_same(ours, (permuted.detach(), gradients(permuted, student)), family.tolerance)

    alone = [of([row]) for row in args if row[2]]
    summed = torch.stack(alone).sum()
    assert_same(ours, (summed.detach(), gradients(summed, student)), family.tolerance)

    stretch = ([40] * 30, [41] * 50, [])
    padded = of([*args, stretch])
    assert_same(ours, (padded.detach(), gradients(padded, student)), family.tolerance)


ZEROS = [
    {"kind": "forward_kl"},
    {"kind": "reverse_kl"},
    {"kind": "js", "beta": 0.2},
    {"kind": "forward_kl", "top_k": 4},
    {"kind": "reverse_kl", "top_k": 4, "support": "teacher"},
    {"kind": "js", "top_k": 4},
    {"kind": "forward_kl", "top_k": 4, "tail": False},
]


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("settings", ZEROS, ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_student_s_own_prompt_and_weights_teach_nothing_at_all(
    make_llama: Any, make_gpt2: Any, settings: dict[str, Any], checkpointing: bool
) -> None:
    """Exactly zero, not merely small: any misalignment or mixed-up mode would show."""
    for make, prompts, completions in (
        (make_llama, PROMPTS, COMPLETIONS),
        (make_gpt2, BEGUN, GROUPED[1]),
    ):
        model = make()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        total = packed_loss(model, model, prompts, prompts, completions, **settings)
        found = gradients(total, model)
        assert total == 0
        assert found
        assert all((gradient == 0).all() for gradient in found.values())
        longer = [[9, *prompt] for prompt in prompts]
        assert packed_loss(model, model, prompts, longer, completions, **settings) > 1e-2


@pytest.fixture(params=[0, 1, -1], ids=["prompts", "groups", "all"])
def always_shared(request: Any, monkeypatch: Any) -> None:
    """These rows are so short that sharing would not pay."""

    def forced(prompts: Rows, completions: Rows, *, call_cost: int) -> Any:
        distinct, index = deduplicate_prompts(prompts)
        found = list(iterate_splits(distinct))
        return apply_split(found[min(request.param, len(found) - 1)], distinct, index, completions)

    monkeypatch.setattr(scorer_module, "find_cheapest_sharing", forced)


def shared_and_plain(model: Any, prompts: Rows, completions: Rows) -> list[Any]:
    """Logits and gradients with prompts encoded once, and with every row laid out whole."""
    results = []
    for shared in (True, False):
        logits = Scorer(model, share_prompts=shared).score(prompts, completions).logits()
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
        results.append((logits.detach(), gradients((logits.tanh() * weights).sum(), model)))
    return results


@pytest.mark.usefixtures("always_shared")
def test_sharing_a_prompt_changes_neither_logits_nor_gradients(family: Any) -> None:
    shared, plain = shared_and_plain(family.make(0), BEGUN, GROUPED[1])
    assert_same(shared, plain, family.tolerance)


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize(
    ("kind", "config"),
    [("Gemma2", {"sliding_window": 3}), ("Mistral", {"sliding_window": 2}), ("Qwen3", {})],
)
def test_sharing_works_with_sliding_windows(kind: str, config: dict) -> None:
    shared, plain = shared_and_plain(small(kind, **config), BEGUN, GROUPED[1])
    assert_same(shared, plain, 1e-4)


BEGINNING = [5] * 100


@pytest.mark.parametrize(
    ("prompts", "tokens"),
    [
        # The last token of a completion predicts nothing that is scored.
        ([BEGINNING] * 8, 100 + 8 * 1),
        # What each has for itself is read with its completion.
        ([[*BEGINNING, 10 + i, 9, 9] for i in range(8)], 100 + 8 * (3 + 1)),
        # A short end is read with each completion.
        ([[*BEGINNING, 10 + i // 4, 9, 9] for i in range(8)], 100 + 8 * (3 + 1)),
        # Behind a short beginning, two prompts are read once each.
        ([[5, 10 + i // 4, *BEGINNING] for i in range(8)], 2 * 102 + 8 * 1),
        # Two questions, their four attempts with a critique each.
        ([[5, 10 + i // 4, *BEGINNING, 20 + i, 9] for i in range(8)], 2 * 102 + 8 * (2 + 1)),
    ],
    ids=["prompt", "beginning", "end", "prompts", "questions"],
)
def test_what_rows_share_is_encoded_once(make_llama: Any, prompts: Rows, tokens: int) -> None:
    model = make_llama()
    scorer = Scorer(model)
    scorer.score([[5]], [[6]])
    seen: list[int] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0].numel()),
        with_kwargs=True,
    )
    scorer.score(prompts, [[6, 7]] * 8)
    assert sum(seen) == tokens * model.config.hidden_size


@pytest.mark.parametrize(
    ("device", "rows", "prompt", "shared"),
    [
        *[("cuda", 8, 100, True), ("cuda", 8, 60, False)],
        *[("cuda", 2, 400, False), ("cuda", 2, 600, True)],
        *[("cpu", 8, 20, True), ("cpu", 8, 7, False)],
        *[("cpu", 2, 70, True), ("cpu", 2, 60, False)],
    ],
)
def test_prompts_are_shared_where_that_saves_more_than_a_call(
    make_llama: Any, device: str, rows: int, prompt: int, shared: bool, monkeypatch: Any
) -> None:
    """Another call costs as much as 512 tokens, 64 on a CPU; student and teacher are alike."""
    cost = find_call_cost(torch.device(device))
    monkeypatch.setattr(scorer_module, "find_call_cost", lambda device: cost)
    model = make_llama(max_position_embeddings=1024)
    scorer, calls = Scorer(model), 0

    def count(*args: Any) -> None:
        nonlocal calls
        calls += 1

    scorer.score([[5]], [[6]])
    model.model.layers[0].register_forward_hook(count)
    prompts, completions = [[5] * prompt] * rows, [[6, 7]] * rows
    with torch.no_grad():
        alone = scorer.score(prompts, completions).logits()
    assert calls == 1 + shared
    assert torch.equal(scorer.score(prompts, completions).logits(), alone)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_the_same_however_they_are_split(seed: int) -> None:
    """Behind its head stands a row's tail, every group begins alike, and the cheapest is found."""
    rng = random.Random(seed)
    prompts = [[1, *rng.choices([2, 3], k=rng.randrange(6))] for _ in range(12)]
    completions = [[4] * rng.randint(1, 5) for _ in prompts]
    distinct, index = deduplicate_prompts(prompts)

    def cost(found: Any) -> int:
        tail = max(map(len, found.tails)) - 1
        return len(found.prefixes) * max(map(len, found.prefixes)) + len(prompts) * tail

    ways = [apply_split(split, distinct, index, completions) for split in iterate_splits(distinct)]
    for found in ways:
        rows = [[*found.prefixes[i], *t] for i, t in zip(found.index, found.tails, strict=True)]
        assert rows == [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    least = min(ways, key=cost)
    chosen = find_cheapest_sharing(prompts, completions, call_cost=0)
    # Where calls cost nothing each row may be read alone, without padding.
    alone = sum(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    assert chosen == (least if cost(least) < alone else None)


def test_ragged_completions_are_not_padded_to_share_a_short_prompt() -> None:
    prompts, completions = [[5] * 20] * 8, [[6] * 2000, *[[6] * 4] * 7]
    assert find_cheapest_sharing(prompts, completions, call_cost=512) is None
    even = [[6] * 4] * 8
    assert find_cheapest_sharing([[5] * 200] * 8, even, call_cost=512) is not None


def test_only_completion_tokens_leave_the_scorer(tiny_llama: Any) -> None:
    scores = Scorer(tiny_llama).score(PROMPTS, COMPLETIONS)
    assert isinstance(scores.head, Head)
    assert scores.hidden.shape == (sum(LENGTHS), tiny_llama.config.hidden_size)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_head_has_the_gradient_of_both_its_uses(make_llama: Any, tied: bool) -> None:
    student = make_llama(dtype=torch.float64, vocab_size=64, tie_word_embeddings=tied)
    teacher = make_llama(seed=1, dtype=torch.float64, vocab_size=64)
    total = packed_loss(student, teacher, PROMPTS, LONGER, COMPLETIONS)
    expected = loss_sum(student, teacher, PROMPTS, LONGER, COMPLETIONS, Settings())
    ours = total.detach(), gradients(total, student)
    assert len(ours[1]) == len(dict(student.named_parameters()))
    assert_same(ours, (expected.detach(), gradients(expected, student)), 1e-5)


def small(kind: str, **config: Any) -> Any:
    import transformers

    settings = getattr(transformers, f"{kind}Config")(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        **config,
    )
    return getattr(transformers, f"{kind}ForCausalLM")(settings).train()


LOGIT_CONFIGS = [
    ("Gemma2", {"final_logit_softcapping": 2.0}),
    ("Cohere", {"logit_scale": 0.0625}),
    ("Granite", {"logits_scaling": 8.0}),
    ("Qwen3", {}),
]


@pytest.mark.parametrize(("kind", "config"), LOGIT_CONFIGS)
def test_scales_and_caps_of_known_models_are_reproduced(kind: str, config: dict) -> None:
    model = small(kind, **config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = Scorer(model).score(PROMPTS, COMPLETIONS)
    assert scores.head is not None
    expected = [
        completion_logits(model, p, c, pads=0, side="right")
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
        if c
    ]
    torch.testing.assert_close(scores.logits(), torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_an_unknown_map_to_logits_falls_back_with_a_warning(make_llama: Any) -> None:
    model = make_llama()
    model.register_forward_hook(
        lambda module, inputs, output: setattr(output, "logits", output.logits.sin())
    )
    with pytest.warns(UserWarning, match="in an unknown way"):
        scores = Scorer(model).score(PROMPTS, COMPLETIONS)
    assert scores.head is None
    expected = completion_logits(model, PROMPTS[0], COMPLETIONS[0], pads=0, side="right")
    torch.testing.assert_close(scores.logits(slice(0, 3)), expected, rtol=1e-4, atol=1e-4)


def lora_model(make_llama: Any, targets: list[str]) -> Any:
    pytest.importorskip("peft")
    model = add_lora(make_llama(vocab_size=64), LoRA(r=2, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["q_proj", "lm_head"]])
def test_adapters_are_trained_as_through_the_plain_forward_pass(
    make_llama: Any, targets: list[str]
) -> None:
    """With an adapter on the head its logits are no single matrix product: no split then."""
    model, teacher = lora_model(make_llama, targets), make_llama(seed=1, vocab_size=64)
    scores = Scorer(model).score(PROMPTS, COMPLETIONS)
    assert (scores.head is None) == ("lm_head" in targets)
    total = packed_loss(model, teacher, PROMPTS, LONGER, COMPLETIONS)
    expected = loss_sum(model, teacher, PROMPTS, LONGER, COMPLETIONS, Settings()).float()
    ours = total.detach(), gradients(total, model)
    assert all("lora_" in name for name in ours[1])
    assert_same(ours, (expected.detach(), gradients(expected, model)), 1e-4)


def test_a_frozen_head_wants_no_gradient_and_a_trained_one_does(make_llama: Any) -> None:
    model = make_llama()
    scorer = Scorer(model)
    head = scorer.score([[5]], [[6]]).head
    assert head is not None
    assert [tensor is model.lm_head.weight for tensor in head.list_trainable()] == [True]
    with torch.no_grad():
        head = scorer.score([[5]], [[6]]).head
        assert head is not None
        assert head.list_trainable() == []
    model.lm_head.weight.requires_grad_(False)
    head = scorer.score([[5]], [[6]]).head
    assert head is not None
    assert head.list_trainable() == []


def test_a_bias_may_train_beside_a_frozen_head(make_llama: Any) -> None:
    """Tuning only the biases is a known recipe; their gradient must not vanish quietly."""
    model, teacher = make_llama(vocab_size=64), make_llama(seed=1, vocab_size=64)
    model.lm_head.bias = nn.Parameter(torch.zeros(64))
    model.requires_grad_(False)
    model.lm_head.bias.requires_grad_()
    total = packed_loss(model, teacher, PROMPTS, LONGER, COMPLETIONS)
    expected = loss_sum(model, teacher, PROMPTS, LONGER, COMPLETIONS, Settings()).float()
    ours = total.detach(), gradients(total, model)
    assert ours[1].keys() == {"lm_head.bias"}
    assert_same(ours, (expected.detach(), gradients(expected, model)), 1e-4)


def test_gradient_checkpointing_changes_nothing(make_llama: Any) -> None:
    model, teacher = make_llama(vocab_size=64), make_llama(seed=1, vocab_size=64)
    total = packed_loss(model, teacher, *GROUPED[:1], *GROUPED)
    expected = total.detach(), gradients(total, model)
    checkpointed = copy.deepcopy(model)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    recomputed: list[bool] = []
    checkpointed.model.layers[0].mlp.register_forward_hook(
        lambda *_: recomputed.append(torch.is_grad_enabled())
    )
    total = packed_loss(checkpointed, teacher, *GROUPED[:1], *GROUPED)
    found = total.detach(), gradients(total, checkpointed)
    assert len(recomputed) > 1
    assert_same(found, expected, 1e-4)


def test_scoring_leaves_the_model_as_it_is(make_llama: Any) -> None:
    model = make_llama()
    model.model.layers[0].eval()
    before = {name: m.training for name, m in model.named_modules()}
    weights = {name: p.clone() for name, p in model.named_parameters()}
    Scorer(model).score(PROMPTS, COMPLETIONS)
    assert before == {name: m.training for name, m in model.named_modules()}
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("call_cost", [0, 3, 10_000])
def test_buckets_cost_as_little_as_any_split(call_cost: int) -> None:
    """Against every way to cut the rows, longest first, into consecutive groups."""
    lengths = [4, 9, 1, 30, 31, 2, 9]
    order = sorted(lengths, reverse=True)

    def cost(groups: list[list[int]]) -> int:
        return sum(max(group) * len(group) + call_cost for group in groups)

    least = min(
        cost([order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])])
        for number in range(len(order))
        for cuts in itertools.combinations(range(1, len(order)), number)
    )
    found = bucket_rows(lengths, call_cost=call_cost)
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    assert cost([[lengths[row] for row in group] for group in found]) == least


def test_rows_of_different_buckets_come_back_in_their_own_order(monkeypatch: Any) -> None:
    monkeypatch.setattr(scorer_module, "bucket_rows", lambda lengths, call_cost: [[2, 0], [3, 1]])
    model = SeesWhere()
    logits = Scorer(model).score(PROMPTS, COMPLETIONS).logits()
    monkeypatch.undo()
    torch.testing.assert_close(logits, Scorer(model).score(PROMPTS, COMPLETIONS).logits())


def test_shared_prompts_names_each_row_s_prompt() -> None:
    distinct, index = deduplicate_prompts(GROUPED[0])
    assert [distinct[i] for i in index] == list(GROUPED[0])
    assert len(distinct) == 3


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        pack_rows([[5], []], [[6], [7]], torch.device("cpu"))


@pytest.mark.parametrize("prompts", [[[], []], [[5], []]])
def test_an_empty_prompt_is_refused_by_the_scorer_too(tiny_llama: Any, prompts: Rows) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        Scorer(tiny_llama).score(prompts, [[6], [7]])


def test_batches_of_only_empty_completions_have_no_entry(tiny_llama: Any) -> None:
    scores = Scorer(tiny_llama).score([[5], [6, 7]], [[], []])
    assert scores.hidden.shape == (0, tiny_llama.config.hidden_size)
    assert scores.logits().shape == (0, tiny_llama.config.vocab_size)


def test_with_checkpointing_no_cache_is_shared_in_train_mode(make_llama: Any) -> None:
    """The backward pass would fill the cache again; teachers keep the student's layout."""
    model = make_llama()
    scorer = Scorer(model, call_cost=0)
    plan = plan_scoring(model)
    prompts, completions = [list(range(5, 60))] * 4, [[7, 8, 9]] * 4
    assert scorer._find_shared(plan, prompts, completions) is not None
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert scorer._find_shared(plan, prompts, completions) is None
    with torch.no_grad():
        assert scorer._find_shared(plan, prompts, completions) is None
    model.eval()
    assert scorer._find_shared(plan, prompts, completions) is not None
