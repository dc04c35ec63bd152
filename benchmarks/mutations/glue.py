"""Places between the parts that a test must notice when they break."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """One text of a file, and what breaks it."""

    name: str
    path: str
    """Below ``lightning_sd/``."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Below ``tests/``."""


BASE, GATHER = "contexts/base.py", "objectives/gather.py"
GLUE: tuple[Place, ...] = (
    Place(
        "a view's template arguments are dropped",
        BASE,
        "cut, template_kwargs=self.template_kwargs",
        "cut",
        ("contexts/test_contexts.py",),
    ),
    Place(
        "the context limit ignores the template arguments",
        BASE,
        "encode_prompt(self.tokenizer, messages, self.template_kwargs)",
        "encode_prompt(self.tokenizer, messages)",
        ("contexts/test_contexts.py",),
    ),
    Place(
        "a view that is cut to nothing is kept",
        BASE,
        "if cut and not any(",
        "if False and not any(",
        ("contexts/test_contexts.py",),
    ),
    Place(
        "write(teacher=True) uses the student's weights",
        "modules/hosting.py",
        "self.teacher.swap_in(self.student) if teacher else nullcontext()",
        "nullcontext()",
        ("modules/test_randomness.py",),
    ),
    Place(
        "the sampling index is always 0",
        "modules/self_distill.py",
        "self.samples, stage, index)",
        "self.samples, stage, 0)",
        ("modules/test_randomness.py",),
    ),
    Place(
        "the stage is left out of the seed",
        "rollout/seeding.py",
        'f"{base}/{stage}/{index}/{rank}"',
        'f"{base}/{index}/{rank}"',
        ("rollout/test_seeding.py",),
    ),
    Place(
        "behavior log-probabilities of the wrong rollouts",
        GATHER,
        "for i in scored.active:",
        "for i in range(len(scored.active)):",
        ("objectives/test_gather.py",),
    ),
    Place(
        "a missing contrast is 0 instead of NaN",
        GATHER,
        "ids.device, k), torch.nan)",
        "ids.device, k), 0.0)",
        ("objectives/test_gather.py",),
    ),
    Place(
        "the mask of rollouts without a view is dropped",
        GATHER,
        "result[name].masked_fill(no_view, 0.0)",
        "result[name]",
        ("objectives/test_gather.py",),
    ),
    Place(
        "trainable parameters beside adapters count as adapters",
        "teachers/frozen.py",
        'all("lora_" in name for name, _ in parameters)',
        "all(True for name, _ in parameters)",
        ("teachers/test_teachers.py",),
    ),
    Place(
        "adapters that change the model count as fresh ones",
        "teachers/frozen.py",
        'if "_B." in name)',
        "if False)",
        ("teachers/test_teachers.py",),
    ),
    Place(
        "prompts are shared under gradient checkpointing",
        "scoring/scorer.py",
        'module.training and getattr(module, "gradient_checkpointing", False)',
        "False",
        ("scoring/test_scoring.py",),
    ),
    Place(
        "stop ids lack the tokenizer's end of sequence",
        "models/stop_ids.py",
        "ids |= {tokenizer.eos_token_id, find_template_end(tokenizer)}",
        "ids |= {find_template_end(tokenizer)}",
        ("models/test_stop_ids.py",),
    ),
    Place(
        "dropout modules keep their rate",
        "models/dropout.py",
        "            module.p = 0.0",
        "            pass",
        ("models/test_dropout.py",),
    ),
    Place(
        "configurations keep their dropout rates",
        "models/dropout.py",
        "            setattr(config, name, 0.0)",
        "            pass",
        ("models/test_dropout.py",),
    ),
    Place(
        "bfloat16 log-probabilities are not widened",
        "functional/logprobs.py",
        "cross_entropy(widen(logits), ids",
        "cross_entropy(logits, ids",
        ("functional/test_logprobs.py",),
    ),
    Place(
        "group advantages count a teacher's texts",
        "objectives/policy_gradient.py",
        "own, advantages = inputs.by_student, ",
        "own, advantages = torch.ones_like(inputs.by_student), ",
        ("objectives/test_gather.py", "objectives/test_objectives.py"),
    ),
    Place(
        "the cache key lacks the schema",
        "critique/cache/keys.py",
        '"schema": SCHEMA, ',
        "",
        ("critique/cache/test_cache.py",),
    ),
    Place(
        "the cache key strips the attempt",
        "critique/cache/keys.py",
        "replace_surrogates(request.attempt)",
        "replace_surrogates(request.attempt.strip())",
        ("critique/cache/test_cache.py",),
    ),
    Place(
        "the teacher's scores build a graph",
        "teachers/scores.py",
        "@torch.no_grad()\ndef score_teacher(",
        "def score_teacher(",
        ("modules/test_rollout_scorer.py",),
    ),
    Place(
        "the importance weight of PolicyGradient is dropped",
        "objectives/policy_gradient.py",
        "loss = loss * importance_weight(",
        "_ = loss * importance_weight(",
        ("objectives/test_importance.py",),
    ),
    Place(
        "the temperature misses parts of a mixture",
        "scoring/scaled.py",
        "ScaledLogits(part, scale) for part",
        "ScaledLogits(part, 1.0) for part",
        ("scoring/test_mixed.py",),
    ),
)
