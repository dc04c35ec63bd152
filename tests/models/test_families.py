"""Tiny models of the families that people train, against their own forward pass over one row."""

import copy
import json

import pytest
import torch
import transformers
from lightning.pytorch import Callback

from benchmarks.models.checks import build, check_family, flatten_gradient
from benchmarks.models.report import PAGE
from benchmarks.models.run import ROWS
from benchmarks.models.tiny import list_families, make_model
from lightning_sd import Distillation, ReferenceSolution
from lightning_sd.models.dropout import disable_dropout
from lightning_sd.models.probing import compute_logits
from lightning_sd.scoring import Scorer
from lightning_sd.scoring.head import Scaling, find_scaling
from lightning_sd.scoring.plan import plan_scoring
from tests.stubs import LabData, module, trainer

RECURRENT = [
    "qwen3_5_text",
    "qwen3_next",
    "lfm2",
    "granitemoehybrid",
    "nemotron_h",
    "bamba",
    "jamba",
    "falcon_h1",
    "mamba2",
    "mamba",
    "olmo_hybrid",
    "recurrent_gemma",
]
ATTENTION = ["gpt2", "gemma2", "gpt_oss", "llama4_text", "mixtral", "dory"]


def test_the_committed_table_holds_every_family_and_no_wrong_one():
    rows = json.loads(ROWS.read_text())
    assert {row["result"] for row in rows} <= {"exact", "plain", "refused", "not built"}
    head = PAGE.read_text().partition("| family |")[0]
    if f"transformers {transformers.__version__}" in head:
        assert {row["family"] for row in rows} == set(list_families())


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["untied", "lora", "dropout"])
@pytest.mark.parametrize("family", RECURRENT + ATTENTION)
def test_samples_scores_and_gradients_are_those_of_whole_rows(family, variant):
    row = check_family(family, variant)
    assert row["result"] in ("exact", "plain"), row
    assert row["gradient"] < 1e-5, row
    assert max(row["sampled"], row["scored"]) < 1e-3, row


@pytest.mark.parametrize("family", ["qwen3_5_text", "bamba"])
def test_a_hybrid_family_is_exact(family):
    row = check_family(family, "untied")
    assert row["result"] == "exact", row
    assert row["gradient"] < 1e-5, row
    assert not row["shared"]


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in RECURRENT if f != "lfm2"])
def test_prompts_are_never_shared_across_recurrent_layers(family):
    assert not plan_scoring(build(family, "untied")).shared


class WholeRows(Callback):
    """Compares the gradient of each step with that of whole rows, which are run one at a time."""

    def on_train_start(self, trainer, pl_module):
        self.errors = []
        self.teacher = copy.deepcopy(pl_module.student)
        self.student = copy.deepcopy(pl_module.student)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.student.load_state_dict(pl_module.student.state_dict())
        self.student.zero_grad()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradient = flatten_gradient(pl_module.student)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for rollout, view in zip(outputs["step"].rollouts, outputs["step"].views, strict=True):
            prompts = pl_module.encode(rollout.question.messages), pl_module.encode(view.messages)
            own = compute_logprobs(self.student, prompts[0], rollout.ids)
            target = compute_logprobs(self.teacher, prompts[1], rollout.ids).detach()
            (target.exp() * (target - own)).sum().backward()
        expected = flatten_gradient(self.student)
        self.errors.append(float((self.gradient - expected).norm() / expected.norm()))


def compute_logprobs(model, prompt, ids):
    return compute_logits(model, [[*prompt, *ids]])[0, len(prompt) - 1 : -1].log_softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("family", RECURRENT)
def test_two_steps_of_self_distillation_have_the_gradient_of_whole_rows(
    family, tokenizer, tmp_path
):
    """The real sampler and scorer, with the check of one against the other in every step."""
    model = make_model(family, dtype=torch.float64, vocab_size=320, max_position_embeddings=512)
    model.set_experts_implementation("eager")  # grouped products of matrices have no float64
    student = module(model, tokenizer, objective=Distillation(), samples=2, check_every=1)
    rows = WholeRows()
    trainer(tmp_path, ReferenceSolution(), rows, max_steps=2).fit(student, LabData(batch_size=2))
    assert len(rows.errors) == 2
    assert max(rows.errors) < 1e-6


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 3.0}),
        ("gemma4", {"final_logit_softcapping": 3.0}),
        ("gemma4_unified", {"final_logit_softcapping": 3.0}),
        ("gemma3n_text", {"final_logit_softcapping": 3.0}),
        ("recurrent_gemma", {"logits_soft_cap": 3.0}),
        ("cohere", {"logit_scale": 0.3}),
        ("granite", {"logits_scaling": 3.0}),
        ("falcon_h1", {"lm_head_multiplier": 0.4}),
        ("minicpm3", {"dim_model_base": 8}),
    ],
)
def test_a_factor_or_cap_of_the_logits_is_found_under_any_name(family, settings):
    """Without it, scoring would fall back to the logits of whole sequences."""
    model = make_model(family, **settings)
    disable_dropout(model)
    scorer = Scorer(model)
    logits = scorer.score([[5, 6, 7]], [[8, 9]]).logits()
    assert plan_scoring(model).split is not None
    expected = compute_logits(model, [[5, 6, 7, 8, 9]])[0, 2:-1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_cap_in_a_nested_configuration_is_found():
    """The text model's configuration holds the cap, and the configuration around it does not."""
    model = make_model("gemma2", final_logit_softcapping=3.0)

    class Around(type(model.config)):
        def get_text_config(self, decoder=None, encoder=None):
            return self.text_config

    around = Around(**{**model.config.to_dict(), "final_logit_softcapping": None})
    vars(around)["text_config"] = model.config
    row = torch.tensor([[5, 6, 7, 8]])
    hidden = model.eval().model(input_ids=row).last_hidden_state[0]
    scaling = find_scaling(model.lm_head(hidden), model(input_ids=row).logits[0], around)
    assert scaling == Scaling(1.0, 3.0)
