from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sd.models import LoRA
from lightning_sd.models.lora import add_lora
from lightning_sd.models.probing import eval_mode
from lightning_sd.rollout import Completion, TransformersSampler
from lightning_sd.scoring import Scorer

PROMPTS = [[5, 6], [7, 8, 9, 10, 11, 12, 13], [14], [15, 16, 17], [200, 3], [90, 91, 92, 93]]
NEW = 12
# Chi-square statistics that chance exceeds once in ten thousand times, by degrees of freedom.
CRITICAL = {1: 15.14, 2: 18.42, 3: 21.11, 4: 23.51, 5: 25.74, 6: 27.86, 7: 29.88, 11: 37.37}


def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    *,
    samples: int = 1,
    stop_ids: Sequence[int] = (1,),
    seed: int = 0,
    **settings: Any,
) -> list[Completion]:
    sampler = TransformersSampler(**{"max_new_tokens": NEW, **settings})
    generator = torch.Generator().manual_seed(seed)
    return sampler.sample(model, prompts, samples=samples, stop_ids=stop_ids, generator=generator)


def generated(model: Any, prompts: Sequence[Sequence[int]], stops: list[int]) -> list[list[int]]:
    """What transformers' own greedy ``generate`` gives, one prompt at a time, without padding."""
    results = []
    for prompt in prompts:
        ids = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=0,
        )
        results.append(ids[0, len(prompt) :].tolist())
    return results


@pytest.fixture(params=["llama", "gpt2", "lora"])
def model(request: Any, make_llama: Any, make_gpt2: Any) -> Any:
    if request.param == "gpt2":
        return make_gpt2(seed=3)
    built = make_llama(seed=3)
    if request.param == "lora":
        pytest.importorskip("peft")
        built = add_lora(built, LoRA(r=2, target_modules=["q_proj", "down_proj"]))
        for name, parameter in built.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter)
    return built


def test_greedy_equals_generate_token_by_token(model: Any) -> None:
    """Padded prompts, two stop ids, rows that leave the batch early and rows that never stop."""
    free = [c.ids for c in sample(model.eval(), temperature=0, stop_ids=())]
    stops = telling_stops(free)
    expected = generated(model, PROMPTS, stops)
    found = sample(model, temperature=0, stop_ids=stops)
    assert [list(completion.ids) for completion in found] == expected
    assert [c.finished for c in found] == [ids[-1] in stops for ids in expected]


def telling_stops(free: Sequence[Sequence[int]]) -> list[int]:
    """Two tokens that end some rows at different lengths and let others run to the limit."""
    for pair in itertools.combinations({i for ids in free for i in ids}, 2):
        ends = [next((t for t, i in enumerate(ids) if i in pair), None) for ids in free]
        used = {ids[t] for ids, t in zip(free, ends, strict=True) if t is not None}
        if len(set(ends) - {None}) >= 2 and None in ends and used == set(pair):
            return list(pair)
    raise AssertionError("no such pair: take other prompts or another seed")


def test_samples_of_a_prompt_stand_together(model: Any) -> None:
    single = sample(model, temperature=0)
    triple = sample(model, temperature=0, samples=3)
    assert [completion.prompt for completion in triple] == [
        i for i in range(len(PROMPTS)) for _ in range(3)
    ]
    assert [c.ids for c in triple] == [c.ids for c in single for _ in range(3)]


def test_train_mode_and_checkpointing_give_the_tokens_of_eval_mode(model: Any) -> None:
    expected = sample(model.eval(), temperature=0)
    model.train()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.gradient_checkpointing_enable({"use_reentrant": False})
    assert sample(model, temperature=0) == expected
    assert all(module.training for module in model.modules())


def test_every_submodule_s_mode_is_restored_even_after_an_error(make_llama: Any) -> None:
    model = make_llama()
    model.model.layers[1].eval()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    with pytest.raises(RuntimeError, match="broken"), eval_mode(model):
        raise RuntimeError("broken")
    assert [module.training for module in model.modules()] == before


def chi_square(counts: Sequence[int], probs: Tensor) -> tuple[float, int]:
    """Statistic and degrees of freedom, cells with fewer than 5 expected draws put together."""
    total = sum(counts)
    cells = [(c, total * p.item()) for c, p in zip(counts, probs, strict=True) if p > 0]
    large = [cell for cell in cells if cell[1] >= 5]
    small = [cell for cell in cells if cell[1] < 5]
    if sum(expected for _, expected in small) >= 5:
        large.append((sum(c for c, _ in small), sum(expected for _, expected in small)))
    return sum((c - e) ** 2 / e for c, e in large), len(large) - 1


def assert_follows(ids: Sequence[int], probs: Tensor) -> None:
    counts = Counter(ids)
    assert all(probs[i] > 0 for i in counts)
    statistic, degrees = chi_square([counts[i] for i in range(len(probs))], probs)
    bound = CRITICAL[min(d for d in CRITICAL if d >= degrees)]
    assert statistic < bound, (statistic, degrees, counts, probs)


LOGITS = torch.tensor([1.0, -torch.inf, 0.3, -2.0, 2.0, -torch.inf, 0.0, -1.0])


def draws(settings: dict[str, Any], number: int = 20_000, logits: Tensor = LOGITS) -> list[int]:
    sampler = TransformersSampler(**settings)
    rows = logits.expand(number, -1)
    return sampler.pick(rows, torch.Generator().manual_seed(1))[0].tolist()


def kept_by_hand(logits: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """The k most likely; of these the fewest that hold ``top_p``; renormalised."""
    probs = logits.double().softmax(-1)
    order = sorted(range(len(probs)), key=lambda i: -probs[i].item())
    if top_k:
        order = order[:top_k]
    mass = sum(probs[i].item() for i in order)
    kept, held = [], 0.0
    for i in order:
        if held >= top_p * mass - 1e-9 and kept:
            break
        kept.append(i)
        held += probs[i].item()
    result = torch.zeros_like(probs)
    result[kept] = probs[kept] / probs[kept].sum()
    return result


FILTERS: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"top_k": 100},
    {"top_p": 0.7},
    {"top_p": 0.01},
    {"top_k": 4, "top_p": 0.8},
    {"top_k": 1},
]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_draws_follow_the_filtered_softmax(filters: dict[str, Any], temperature: float) -> None:
    expected = kept_by_hand(LOGITS / temperature, **filters)
    found = draws({"temperature": temperature, **filters})
    assert set(found) >= {i for i, p in enumerate(expected.tolist()) if p > 1e-3}
    assert_follows(found, expected)


def test_the_chi_square_test_notices_another_temperature() -> None:
    with pytest.raises(AssertionError):
        assert_follows(draws({"temperature": 1.1}), kept_by_hand(LOGITS))


@pytest.mark.parametrize(("temperature", "tensors"), [(1.0, 1), (0.0, 1), (0.5, 2)])
def test_few_tensors_of_the_vocabulary_s_size_are_formed(temperature: float, tensors: int) -> None:
    formed = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            nonlocal formed
            result = func(*args, **(kwargs or {}))
            is_new = not func.is_view and not func._schema.is_mutable
            formed += is_new and getattr(result, "numel", int)() >= 4 * 4096
            return result

    with Count():
        sampler = TransformersSampler(temperature=temperature)
        sampler.pick(torch.randn(4, 4096), torch.Generator().manual_seed(0))
    assert formed - 1 == tensors, "beside the logits"


def test_draws_are_no_coarser_than_float32_when_the_default_dtype_is_bfloat16() -> None:
    """Precision ``bf16-true`` sets it, and 8 bits of a uniform number hit 256 levels only."""
    logits = torch.zeros(4096)
    expected = draws({}, 2000, logits)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = draws({}, 2000, logits)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected
    assert len(set(found)) > 1000


def test_the_whole_sampler_follows_the_model(make_llama: Any) -> None:
    """First tokens, and second ones given the most frequent first one, at temperature 0.7."""
    model = make_llama(seed=5, vocab_size=12)
    found = sample(
        model,
        [[5, 6], [7]],
        samples=4000,
        stop_ids=(99,),
        temperature=0.7,
        max_new_tokens=2,
    )
    for number, prompt in enumerate([[5, 6], [7]]):
        ids = [completion.ids for completion in found if completion.prompt == number]
        first = Counter(i for i, _ in ids).most_common(1)[0][0]
        for before, tokens in (
            (prompt, [a for a, _ in ids]),
            ([*prompt, first], [b for a, b in ids if a == first]),
        ):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([before])).logits[0, -1]
            assert_follows(tokens, (logits.double() / 0.7).softmax(-1))


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.6, "top_k": 5, "top_p": 0.9}, {"temperature": 1.4}], ids=str
)
def test_logprobs_are_the_scorer_s(model: Any, settings: dict[str, Any]) -> None:
    """Before top-k and top-p, at the sampling temperature, and of the tokens that were drawn."""
    found = sample(model, samples=3, stop_ids=tuple(range(20, 60)), **settings)
    completions = [completion.ids for completion in found]
    with torch.no_grad():
        scores = Scorer(model).score([PROMPTS[c.prompt] for c in found], completions)
    logs = (scores.logits() / settings.get("temperature", 1.0)).log_softmax(-1)
    ids = torch.tensor([i for row in completions for i in row])
    expected = logs.gather(-1, ids[:, None]).squeeze(-1)
    logprobs = torch.tensor([p for completion in found for p in completion.logprobs])
    torch.testing.assert_close(logprobs, expected, rtol=1e-4, atol=1e-4)
    assert len({len(row) for row in completions}) > 2


def test_greedy_logprobs_are_those_of_temperature_1(tiny_llama: Any) -> None:
    (found,) = sample(tiny_llama, [[5]], temperature=0, max_new_tokens=1)
    with torch.no_grad():
        logs = tiny_llama(input_ids=torch.tensor([[5]])).logits[0, -1].log_softmax(-1)
    assert found.ids[0] == logs.argmax()
    assert found.logprobs[0] == pytest.approx(logs.max().item(), abs=1e-5)


def test_nothing_comes_after_a_stop_token(model: Any) -> None:
    stops = set(range(20, 80))
    found = sample(model, samples=16, stop_ids=tuple(stops))
    assert len({len(completion.ids) for completion in found}) > 3
    for completion in found:
        *before, last = completion.ids
        assert not stops & set(before)
        assert completion.finished == (last in stops)
        assert completion.finished or len(completion.ids) == NEW
        assert len(completion.logprobs) == len(completion.ids)
    assert {completion.finished for completion in found} == {True, False}


def test_without_stop_ids_every_row_runs_to_the_limit(tiny_llama: Any) -> None:
    found = sample(tiny_llama, stop_ids=())
    assert [(len(c.ids), c.finished) for c in found] == [(NEW, False)] * len(PROMPTS)


def test_a_generator_s_seed_decides_everything_and_nothing_else_does(tiny_llama: Any) -> None:
    state = torch.get_rng_state()
    first = sample(tiny_llama, samples=4, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert sample(tiny_llama, samples=4, seed=7) == first
    assert sample(tiny_llama, samples=4, seed=8) != first


def test_siblings_differ(tiny_llama: Any) -> None:
    found = sample(tiny_llama, [[5]], samples=8)
    assert len({completion.ids for completion in found}) > 4


def test_no_graph_is_kept(make_llama: Any) -> None:
    model = make_llama()
    found = sample(model)
    assert all(isinstance(p, float) for p in found[0].logprobs)
    assert all(isinstance(i, int) for i in found[0].ids)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -0.5}, "temperature=-0.5"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_p": math.nan}, "top_p=nan"),
        ({"top_k": -1}, "top_k=-1"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        TransformersSampler(**settings)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_probabilities_of_bfloat16_logits_are_summed_in_float32(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(8, 500, generator=generator)).bfloat16()
    sampler = TransformersSampler(temperature=temperature)
    ids, logprobs = sampler.pick(logits, generator)
    assert logprobs.dtype == torch.float32
    exact = (logits.double() / (temperature or 1.0)).log_softmax(-1)
    expected = exact.gather(-1, ids[:, None]).squeeze(-1)
    torch.testing.assert_close(logprobs.double(), expected, rtol=0, atol=1e-5)
