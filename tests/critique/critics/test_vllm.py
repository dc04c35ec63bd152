import builtins
import sys
from types import SimpleNamespace

import pytest

from lightning_sd.critique import LMCritic
from lightning_sd.critique.cache.keys import compute_key
from lightning_sd.critique.critics.vllm import VLLMCritic
from lightning_sd.models import PretrainedModel
from lightning_sd.text.steps import render_steps
from tests.critique.cache.fakes import request

GOOD = render_steps(["7+5=2"], "2")


SOLVER = str(PretrainedModel("package:lightning_sd/lab/solver").path())


class FakeEngine:
    """Answers as vllm.LLM.chat does, and remembers how it was called."""

    def __init__(self, **options):
        self.options, self.calls = options, []
        FakeEngine.last = self

    def chat(self, conversations, sampling, *, use_tqdm):
        self.calls.append((conversations, sampling))
        completion = SimpleNamespace(
            text=f"hm</think>{GOOD}", token_ids=[1] * 9, finish_reason="stop"
        )
        return [SimpleNamespace(outputs=[completion]) for _ in conversations]


@pytest.fixture
def vllm(monkeypatch):
    module = SimpleNamespace(LLM=FakeEngine, SamplingParams=lambda **options: options)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr("lightning_sd.rollout.vllm_engine._list_cpu_head_sizes", list)


def critic(**options):
    return VLLMCritic(SOLVER, prompt="{question} {attempt}", max_new_tokens=50, **options)


def test_asks_the_engine_in_one_batch(vllm):
    one = critic(engine={"dtype": "bfloat16"}, revision="r")
    critiques = one.critique([request(1, "x"), request(2, "y")])
    assert [(c.text, c.refused, c.tokens) for c in critiques] == [(GOOD, None, 9)] * 2
    engine = FakeEngine.last
    assert engine.options == {"model": SOLVER, "revision": "r", "dtype": "bfloat16"}
    [(conversations, sampling)] = engine.calls
    assert [c[0]["content"] for c in conversations] == ["What is 1? x", "What is 2? y"]
    assert sampling == {"temperature": 0.0, "max_tokens": 50}
    one.critique([request(3)])
    assert FakeEngine.last is engine


def test_identity_tells_engines_apart():
    keys = {
        compute_key(one.identity(), request())
        for one in (critic(), critic(revision="r"), critic(engine={"quantization": "awq"}))
    }
    assert len(keys) == 3


def test_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "vllm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"lightning_sd\[vllm\]"):
        critic().critique([request()])


@pytest.mark.slow
def test_the_real_engine_writes_what_transformers_writes(
    make_llama, tokenizer, tmp_path, monkeypatch
):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    make_llama(head_dim=32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    requests = [request(1, "x"), request(2, "y + z")]
    settings = {"prompt": "{question} {attempt}", "max_new_tokens": 12}
    engine = {"enforce_eager": True, "max_model_len": 256}
    ours = LMCritic(str(tmp_path), **settings, batch_size=2).critique(requests)
    theirs = VLLMCritic(str(tmp_path), **settings, engine=engine).critique(requests)
    # Where an answer is cut off, vLLM leaves out bytes that are no whole character.
    ours, theirs = (
        [(c.text.rstrip("\ufffd"), c.refused, c.tokens) for c in critiques]
        for critiques in (ours, theirs)
    )
    assert theirs == ours
    assert theirs[0][0]
