"""An exported folder in vLLM. Runs where vLLM is installed, as the tests of ``VLLMSampler`` do."""

from __future__ import annotations

import pytest
import torch

from lightning_sd import LoRA
from lightning_sd.callbacks.export import export_pretrained
from lightning_sd.models.lora import add_lora

PROMPT = [5, 6, 7, 8]


@pytest.mark.slow
def test_a_merged_folder_answers_in_vllm_as_in_transformers(
    make_llama, tokenizer, tmp_path, monkeypatch
):
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    model = add_lora(make_llama(head_dim=32, max_position_embeddings=128), LoRA(r=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    export_pretrained(model, tokenizer, tmp_path, merge=True)
    expected = model.eval().generate(
        input_ids=torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False, eos_token_id=None
    )
    engine = vllm.LLM(str(tmp_path), dtype="float32", enforce_eager=True, max_model_len=128)
    settings = vllm.SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    [answer] = engine.generate({"prompt_token_ids": PROMPT}, settings)
    assert answer.outputs[0].token_ids == expected[0, len(PROMPT) :].tolist()
