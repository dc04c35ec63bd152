"""Compare sampling, scoring and gradients with a model's own forward pass over single rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.models.tiny import make_config, make_model
from lightning_sd import LoRA, TransformersSampler
from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.configs import iterate_configs
from lightning_sd.models.dropout import disable_dropout, list_rates
from lightning_sd.models.lora import add_lora
from lightning_sd.models.probing import compute_logits, eval_mode
from lightning_sd.rollout.decoding import plan_decoding
from lightning_sd.scoring import Scorer
from lightning_sd.scoring.plan import plan_scoring

PROMPTS = [
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [5, 6, 7, 8, 9, 10, 11, 12, 20, 21],
    [30, 31, 32, 33],
]
SAMPLES = 3
NEW_TOKENS = 12
STOP = 3


def check_family(kind: str, variant: str) -> dict[str, Any]:
    """Check one family.

    Args:
        kind: The model type.
        variant: ``untied``, ``tied``, ``lora`` or ``dropout`` (all rates 0.1 before loading).

    Returns:
        The largest errors, and how the model was decoded and scored; or why it was refused.
    """
    row: dict[str, Any] = {"family": kind, "variant": variant}
    try:
        model = build(kind, variant)
    except Exception as error:
        return row | {"result": "not built", "reason": _shorten(error)}
    try:
        row |= measure(model)
    except ValueError as error:
        return row | {"result": "refused", "reason": _shorten(error)}
    except Exception as error:
        return row | {"result": "WRONG", "reason": f"{type(error).__name__}: {_shorten(error)}"}
    exact = (
        row["sampled"] < 1e-3 and row["scored"] < 1e-3 and row["gradient"] < 1e-3 and row["greedy"]
    )
    plain = not row["cached"] or not row["padded"] or not row["batched"]
    return row | {"result": ("plain" if plain else "exact") if exact else "WRONG"}


def build(kind: str, variant: str) -> nn.Module:
    """Build a tiny model as a model source prepares it."""
    changes: dict[str, Any] = {"tie_word_embeddings": variant == "tied"}
    if variant == "dropout":
        configs = iterate_configs(make_config(kind))
        changes |= {name: 0.1 for config in configs for name in list_rates(config, zero=True)}
    model = make_model(kind, **changes)
    disable_dropout(model)
    if variant == "lora":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = add_lora(model, LoRA(r=2))
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(parameter, std=0.05)
    return model.train()


def measure(model: nn.Module) -> dict[str, Any]:
    """Measure the errors of sampling, greedy decoding, scoring and gradients."""
    plan, scoring = plan_decoding(model), plan_scoring(model)
    sampler = TransformersSampler(max_new_tokens=NEW_TOKENS)
    completions = sampler.sample(
        model,
        PROMPTS,
        samples=SAMPLES,
        stop_ids=[STOP],
        generator=torch.Generator().manual_seed(1),
    )
    prompts = [PROMPTS[c.prompt] for c in completions]
    ids = [list(c.ids) for c in completions]
    expected = [reference_logprobs(model, p, c) for p, c in zip(prompts, ids, strict=True)]
    sampled = [torch.tensor(c.logprobs) for c in completions]
    scored, gradient = score_shared(model, prompts, ids)
    whole = whole_gradient(model, prompts, ids)
    greedy, generate = greedy_agrees(model)
    return {
        "cached": plan.cached,
        "padded": plan.padded,
        "batched": scoring.padded,
        "shared": scoring.shared,
        "split": scoring.split is not None,
        "sampled": _distance(torch.cat(sampled), torch.cat(expected)),
        "scored": _distance(scored, torch.cat(expected)),
        "gradient": float((gradient - whole).norm() / whole.norm()),
        "greedy": greedy,
        "generate": generate,
    }


def reference_logprobs(
    model: nn.Module, prompt: Sequence[int], completion: Sequence[int]
) -> Tensor:
    """Log-probabilities under the model's own forward pass over one row, in eval mode."""
    with torch.no_grad(), eval_mode(model):
        logits = compute_logits(model, [[*prompt, *completion]])[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def score_shared(
    model: nn.Module, prompts: list[list[int]], ids: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Score with a Scorer that shares prompts wherever it may; return log-probs and gradient."""
    model.zero_grad()
    logits = Scorer(model, call_cost=0).score(prompts, ids).logits().float()
    flat = torch.tensor([i for row in ids for i in row])
    logprobs = logits.log_softmax(-1).gather(-1, flat[:, None])[:, 0]
    logprobs.sum().backward()
    return logprobs.detach(), flatten_gradient(model)


def whole_gradient(model: nn.Module, prompts: list[list[int]], ids: list[list[int]]) -> Tensor:
    """Gradient of the same sum, one row at a time through the whole model."""
    model.zero_grad()
    for prompt, row in zip(prompts, ids, strict=True):
        logits = compute_logits(model, [[*prompt, *row]])[0, len(prompt) - 1 : -1].float()
        logits.log_softmax(-1).gather(-1, torch.tensor(row)[:, None]).sum().backward()
    return flatten_gradient(model)


def greedy_agrees(model: nn.Module) -> tuple[bool, bool]:
    """Return whether greedy samples are the arg max of the forward pass, and those of generate."""
    sampler = TransformersSampler(max_new_tokens=NEW_TOKENS, temperature=0.0)
    completions = sampler.sample(
        model, PROMPTS, samples=1, stop_ids=[STOP], generator=torch.Generator()
    )
    own, generated = True, True
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        with torch.no_grad(), eval_mode(model):
            row = [*prompt, *completion.ids]
            best = compute_logits(model, [row])[0, len(prompt) - 1 : -1].argmax(-1).tolist()
            ids = _generate(model, prompt)
        own &= tuple(best) == completion.ids
        generated &= ids is None or ids == list(completion.ids)
    return own, generated


def _generate(model: Any, prompt: list[int]) -> list[int] | None:
    """The model's own greedy generate without a cache; None if it has none that works."""
    base = get_causal_lm(model)
    # A new config, because some families force tokens at the beginning or at the end.
    config = transformers.GenerationConfig(
        eos_token_id=STOP, pad_token_id=0, max_new_tokens=NEW_TOKENS, use_cache=False
    )
    base.generation_config = config
    ids = torch.tensor([prompt])
    try:
        out = base.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    except Exception as error:
        logging.getLogger(__name__).debug("generate fails with %r", error)
        return None
    return list(out[0, len(prompt) :].tolist())


def flatten_gradient(model: nn.Module) -> Tensor:
    """Join the gradients; an expert that got no token has none in one layout and 0 in another."""
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    return torch.cat([grad.flatten().double() for grad in grads])


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:240]


transformers.logging.set_verbosity_error()
