"""The routers' auxiliary loss is that of transformers' own forward pass, or it is refused."""

import pytest
import torch
from lightning.pytorch import Callback
from transformers import MixtralForCausalLM

from benchmarks.models.checks import flatten_gradient
from benchmarks.models.tiny import make_model
from lightning_sd import LoadedModel, SameQuestion
from lightning_sd.models.experts import find_router_loss
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.modules.safe_scorer import MemorySafeScorer
from lightning_sd.rollout.decoding import plan_decoding
from lightning_sd.scoring.plan import plan_scoring
from tests.stubs import LabData, module, trainer

PROMPTS = [[5, 6, 7, 8, 9, 10]] * 3 + [[20, 21, 22]]
COMPLETIONS = [[11, 12], [13, 14, 15, 16, 17, 18, 19], [12], [30, 31, 32]]


def make(family, **changes):
    """A model in which the auxiliary loss weighs as much as the rest."""
    weight = {"aux_loss_coef" if family == "jetmoe" else "router_aux_loss_coef": 2.0}
    model = make_model(family, dtype=torch.float64, output_router_logits=True, **weight, **changes)
    model.set_experts_implementation("eager")  # grouped products of matrices have no float64
    return model


def pad(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def compute_own_loss(model, prompts, completions):
    """The loss that transformers computes of a padded batch with labels."""
    rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    labels = [[*[-100] * len(p), *c] for p, c in zip(prompts, completions, strict=True)]
    mask = pad([[1] * len(row) for row in rows], 0)
    return model(input_ids=pad(rows, 0), attention_mask=mask, labels=pad(labels, -100))


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize(
    "family", ["mixtral", "qwen3_moe", "gpt_oss", "jetmoe", "granitemoe", "qwen3_next"]
)
def test_loss_and_gradient_are_those_of_transformers(family, limit):
    """Rows of several lengths in several passes, with a common prompt, also split for memory."""
    model = make(family)
    compute_own_loss(model, PROMPTS, COMPLETIONS).loss.backward()
    expected = flatten_gradient(model)
    model.zero_grad()
    scorer = MemorySafeScorer(model, MemoryLimits(scoring=limit))
    scorer.call_cost = 5  # two passes, one with padding
    scores = scorer.score(PROMPTS, COMPLETIONS)
    ids = torch.tensor([i for row in COMPLETIONS for i in row])
    router_loss = find_router_loss(model)
    value = router_loss.compute(scores.router_logits)
    loss = torch.nn.functional.cross_entropy(scores.logits(), ids) + router_loss.weight * value
    loss.backward()
    assert (flatten_gradient(model) - expected).norm() < 1e-5 * expected.norm()


class OwnGradient(Callback):
    """Keeps the gradient of the first step, and that of the model's own auxiliary loss."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradient = flatten_gradient(pl_module.student)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rollouts = outputs["step"].rollouts
        prompts = [pl_module.encode(r.question.messages) for r in rollouts]
        model = make("qwen3_moe", vocab_size=320, max_position_embeddings=512)
        out = compute_own_loss(model, prompts, [r.ids for r in rollouts])
        (2.0 * out.aux_loss).backward()
        self.expected, self.value = flatten_gradient(model), out.aux_loss.item()
        self.gradient /= sum(len(r.ids) for r in rollouts)  # a step divides by it after the hook


def test_a_step_adds_the_weighted_loss_and_logs_it(tokenizer, tmp_path):
    """A teacher with the student's prompt and weights adds no gradient of its own."""
    model = make("qwen3_moe", vocab_size=320, max_position_embeddings=512)
    own = OwnGradient()
    fit = trainer(tmp_path, SameQuestion(), own, max_steps=1)
    fit.fit(module(model, tokenizer), LabData(batch_size=2))
    assert (own.gradient - own.expected).norm() < 1e-5 * own.expected.norm()
    assert fit.logged_metrics["train/router_loss"].item() == pytest.approx(own.value, rel=1e-5)
    assert fit.logged_metrics["train/loss"].item() == pytest.approx(2 * own.value, rel=1e-4)


@pytest.mark.parametrize("family", ["doge", "deepseek_v3", "llama4_text"])
def test_a_loss_of_another_kind_or_none_is_refused(family, tokenizer):
    model = make_model(family, output_router_logits=True)
    with pytest.raises(ValueError, match=r"ForCausalLM: output_router_logits=True asks .*False"):
        LoadedModel(model, tokenizer).load()


def test_a_loss_that_differs_from_the_models_own_is_refused():
    class Doubled(MixtralForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.aux_loss = 2 * out.aux_loss
            return out

    model = Doubled(make_model("mixtral", output_router_logits=True).config)
    with pytest.raises(ValueError, match="Doubled: output_router_logits=True"):
        plan_scoring(model)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "jamba"])
def test_sampling_is_as_fast_as_without_the_auxiliary_loss(family):
    """In decoding, its mask would not fit the router logits of one token."""
    model = make_model(family, output_router_logits=True)
    plan = plan_decoding(model)
    assert plan.cached
    assert plan.padded


def test_without_the_setting_nothing_is_added():
    assert find_router_loss(make_model("mixtral")) is None
