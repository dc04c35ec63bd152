"""VLLMSampler on the real engine: weights, log-probabilities, seeds, adapters, teachers.

Runs where vLLM is installed (its CPU build serves), in an environment of its own.
"""

from __future__ import annotations

import copy
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from benchmarks.engines.servable import widen_heads
from lightning_sd.cli.main import main
from lightning_sd.contexts import ReferenceSolution
from lightning_sd.models import PretrainedModel
from lightning_sd.models.lora import LoRA, add_lora
from lightning_sd.models.trainable import list_trainable
from lightning_sd.rollout import VLLMSampler
from lightning_sd.rollout.vllm_adapters import check_swappable
from lightning_sd.rollout.vllm_engine import VLLMEngine, get_engine
from lightning_sd.rollout.vllm_weights import check_servable, iterate_weights
from lightning_sd.scoring import Scorer
from lightning_sd.scoring.statistics import compute_token_statistics
from lightning_sd.teachers import EMATeacher, FrozenTeacher
from tests.callbacks.test_sample_ahead import compute_logprobs
from tests.callbacks.test_sample_ahead import fit as fit_ahead
from tests.cli.test_configs import TINY
from tests.stubs import LabData, module, trainer

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12] * 17]
STOP = [1]
ENGINE = {"enforce_eager": True, "max_model_len": 128, "disable_log_stats": True}


@pytest.fixture
def _small_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def needs_engine(function: Any) -> Any:
    """Mark a test that starts the real engine."""
    return pytest.mark.slow(pytest.mark.usefixtures("_small_engine")(function))


def make_model(make_llama: Any, **config: Any) -> Any:
    config = {"head_dim": 32, "max_position_embeddings": 128, **config}
    return make_llama(**config)


def sample(model: Any, seed: int = 0, **settings: Any) -> list[Any]:
    sampler = VLLMSampler(**{"max_new_tokens": 12, "engine": ENGINE, **settings})
    generator = torch.Generator().manual_seed(seed)
    return sampler.sample(model, PROMPTS, samples=2, stop_ids=STOP, generator=generator)


def decode_greedily(model: Any) -> list[tuple[int, ...]]:
    model.eval()
    rows = []
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in STOP:
                break
        rows.append(tuple(ids[len(prompt) :]))
    return rows


def assert_follows(model: Any, **settings: Any) -> None:
    greedy = sample(model, temperature=0.0, **settings)
    assert [c.ids for c in greedy[::2]] == decode_greedily(model)
    drawn = sample(model, **settings)
    prompts = [PROMPTS[c.prompt] for c in drawn]
    scores = Scorer(model).score(prompts, [c.ids for c in drawn])
    ids = torch.tensor([token for c in drawn for token in c.ids])
    expected, _ = compute_token_statistics(scores, ids)
    actual = torch.tensor([value for c in drawn for value in c.logprobs])
    assert (actual - expected).abs().max() < 1e-5


@torch.no_grad()
def move(model: Any, size: float = 0.05) -> None:
    for _, parameter in list_trainable(model):
        parameter.add_(size * torch.randn_like(parameter))


@needs_engine
@pytest.mark.parametrize("tied", [True, False])
def test_it_follows_the_weights(make_llama: Any, tied: bool) -> None:
    model = make_model(make_llama, tie_word_embeddings=tied)
    assert_follows(model)
    before = sample(model, temperature=0.0)
    move(model)
    assert_follows(model)
    assert before != sample(model, temperature=0.0)


@needs_engine
def test_equal_seeds_give_equal_rollouts_and_siblings_differ(make_llama: Any) -> None:
    model = make_model(make_llama)
    one, two, other = sample(model, 3), sample(model, 3), sample(model, 4)
    assert one == two
    assert one != other
    assert any(a.ids != b.ids for a, b in zip(one[::2], one[1::2], strict=True))


@needs_engine
def test_further_stop_tokens_end_a_completion(make_llama: Any) -> None:
    model = make_model(make_llama)
    (first, *_) = sample(model, temperature=0.0)
    stop = first.ids[4]
    (again, *_) = sample(model, temperature=0.0, stop_token_ids=[stop])
    assert again.ids == first.ids[: first.ids.index(stop) + 1]
    assert again.finished


@needs_engine
def test_adapters_are_merged_and_the_model_is_left_as_it_is(make_llama: Any) -> None:
    model = add_lora(make_model(make_llama), LoRA(r=4))
    before = {name: p.clone() for name, p in model.state_dict().items()}
    assert_follows(model)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    move(model)
    assert_follows(model)
    adapted = sample(model, temperature=0.0)
    with model.disable_adapter():
        assert_follows(model)
        assert adapted != sample(model, temperature=0.0)


@needs_engine
def test_adapters_are_swapped_and_the_base_weights_are_sent_once(make_llama: Any) -> None:
    model = add_lora(make_model(make_llama), LoRA(r=4, alpha=12))
    settings = VLLMSampler(engine=ENGINE)._list_settings()
    for _ in range(3):
        move(model, 0.1)
        assert_follows(model, swap_adapters=True)
        with model.disable_adapter():
            assert_follows(model, swap_adapters=True)
    assert get_engine(model, settings, swap_adapters=True).syncs == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"r": 1024}, "r=1024 is above 512"),
    ],
)
def test_adapters_that_vllm_does_not_apply_are_refused(
    make_llama: Any, change: Any, words: str
) -> None:
    model: Any = add_lora(make_llama(), LoRA(r=4))
    assert check_swappable(model) == 4
    for name, value in change.items():
        setattr(model.peft_config["default"], name, value)
    with pytest.raises(ValueError, match=words):
        check_swappable(model)


def test_swapping_needs_an_adapter(make_llama: Any) -> None:
    with pytest.raises(ValueError, match="has no LoRA adapter"):
        check_swappable(make_llama())


@needs_engine
@pytest.mark.parametrize("teacher", [FrozenTeacher(), EMATeacher(0.5)], ids=["frozen", "ema"])
def test_it_writes_with_the_teachers_weights(make_llama: Any, teacher: Any) -> None:
    model = make_model(make_llama)
    teacher.setup(model)
    move(model, 0.2)
    own = sample(model, temperature=0.0)
    with teacher.swap_in(model):
        assert_follows(model)
        assert sample(model, temperature=0.0) != own
    assert sample(model, temperature=0.0) == own


@needs_engine
def test_weights_are_sent_once_and_a_write_to_data_is_seen(make_llama: Any) -> None:
    model = make_model(make_llama)
    sample(model)
    sampler = VLLMSampler(max_new_tokens=12, engine=ENGINE)
    engine = get_engine(model, sampler._list_settings())
    number = engine.syncs
    sample(model)
    assert engine.syncs == number
    model.model.layers[0].mlp.down_proj.weight.data.mul_(1.5)  # moves no version counter
    sample(model)
    assert engine.syncs == number + 1


@needs_engine
def test_the_gap_stays_small_over_training_steps(make_llama: Any) -> None:
    model = make_model(make_llama, initializer_range=0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(20):
        drawn = sample(model, step)
        prompts = [PROMPTS[c.prompt] for c in drawn]
        scores = Scorer(model).score(prompts, [c.ids for c in drawn])
        ids = torch.tensor([token for c in drawn for token in c.ids])
        logprobs = -torch.nn.functional.cross_entropy(scores.logits(), ids, reduction="none")
        reported = torch.tensor([value for c in drawn for value in c.logprobs])
        assert (logprobs.detach() - reported).abs().max() < 1e-5
        (-logprobs.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


@needs_engine
def test_a_draw_in_a_second_thread_has_the_weights_of_its_start(make_llama: Any) -> None:
    model = make_model(make_llama)
    expected, moved = sample(model, temperature=0.0), copy.deepcopy(model)
    move(moved, 0.2)
    sampler = VLLMSampler(max_new_tokens=12, engine=ENGINE, temperature=0.0)
    settings = {"samples": 2, "stop_ids": STOP, "generator": torch.Generator().manual_seed(0)}
    draw = sampler.start(model, PROMPTS, **settings)
    model.load_state_dict(moved.state_dict())
    with ThreadPoolExecutor(1) as worker:
        drawn = worker.submit(draw)
        # The engine is reserved: new weights wait for the end of the draw.
        assert_follows(model)
        assert drawn.result() == expected
    assert sample(model, temperature=0.0) != expected


@needs_engine
def test_a_run_one_step_ahead_keeps_the_gap_small(
    make_llama: Any, tokenizer: Any, tmp_path: Any
) -> None:
    sampler = VLLMSampler(max_new_tokens=12, engine=ENGINE)
    student = module(
        make_model(make_llama, max_position_embeddings=512),
        tokenizer,
        sampler=sampler,
        check_every=3,
    )
    recorder = fit_ahead(tmp_path, student, log_every_n_steps=1)
    assert [means["train/staleness"] for means in recorder.means] == [0, 1, 1, 0]
    for step, age in enumerate((0, 1, 1, 0)):
        for rollout in recorder.rollouts[step]:
            expected = compute_logprobs(recorder.before[step - age], student, rollout)
            gap = expected - torch.tensor(rollout.logprobs, dtype=torch.float64)
            assert gap.abs().max() < 1e-5


class StaleSampler(VLLMSampler):
    """Gives its engine only the weights of the first step, or never a tied head."""

    fault = "none"

    def sample(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        engine = get_engine(model, self._list_settings())
        with pytest.MonkeyPatch.context() as patch:
            if self.fault == "no sync" and engine.syncs:
                patch.setattr(engine, "sync", lambda model: False)
            elif self.fault == "no head":
                patch.setattr(
                    "lightning_sd.rollout.vllm_engine.iterate_weights",
                    lambda model, **kwargs: (
                        pair for pair in iterate_weights(model) if pair[0] != "lm_head.weight"
                    ),
                )
            return super().sample(model, *args, **kwargs)


@needs_engine
@pytest.mark.parametrize("fault", ["none", "no sync", "no head"])
def test_an_engine_with_old_weights_stops_the_run(
    make_llama: Any, tokenizer: Any, tmp_path: Any, fault: str
) -> None:
    sampler = StaleSampler(max_new_tokens=12, engine=ENGINE)
    object.__setattr__(sampler, "fault", fault)
    model = make_model(make_llama, tie_word_embeddings=True)
    student = module(model, tokenizer, sampler=sampler, check_every=2)
    fit = trainer(tmp_path, ReferenceSolution(), max_steps=3).fit
    if fault == "none":
        fit(student, LabData())
    else:
        with pytest.raises(RuntimeError, match="The sampler and the scorer disagree"):
            fit(student, LabData())
    assert student.global_step == {"none": 3, "no sync": 2, "no head": 0}[fault]


@needs_engine
def test_head_sizes_of_the_cpu_are_named(make_llama: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("only vLLM on a CPU limits the head size")
    with pytest.raises(ValueError, match="does not support the head size 24"):
        sample(make_llama(head_dim=24))


def test_merged_weights_are_those_of_peft(make_llama: Any) -> None:
    model = add_lora(make_model(make_llama), LoRA(r=4))
    move(model, 0.3)
    ours = dict(iterate_weights(model))
    merged = model.merge_and_unload().state_dict()
    assert ours.keys() == merged.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(ours[name], tensor)


def test_weights_in_shards_are_refused(make_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_sd.rollout.vllm_weights.is_sharded", lambda model: True)
    with pytest.raises(ValueError, match="keeps them in shards"):
        check_servable(make_model(make_llama))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"temperature": 0.7, "top_k": 5}, "untempered or truncated"),
        ({"sleep_level": 3}, "sleep_level=3"),
    ],
)
def test_settings_out_of_range_are_named(settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VLLMSampler(**settings)


@pytest.mark.parametrize("level", [1, 2])
def test_a_sleeping_engine_is_woken_before_it_gets_weights(make_llama: Any, level: int) -> None:
    model, calls = make_model(make_llama), []

    class LLM:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: calls.append(name)

    engine = object.__new__(VLLMEngine)
    engine.llm, engine.version, engine.syncs, engine.asleep = LLM(), None, 0, False
    engine.adapters = None
    engine.sync(model)
    engine.sleep(level)
    calls.clear()
    engine.sync(model)
    sent = ["collective_rpc", "reset_prefix_cache"] if level == 2 else []  # level 2 drops weights
    assert calls == ["wake_up", *sent]


@needs_engine
def test_the_config_of_rollout_engines_trains(tmp_path: Any, monkeypatch: Any) -> None:
    model, tokenizer = PretrainedModel("package:lightning_sd/lab/solver").load()
    for part in (widen_heads(model, 32), tokenizer):  # heads of 24 are not served on a CPU
        part.save_pretrained(tmp_path / "solver")
    monkeypatch.chdir(tmp_path)
    sampler = "--model.init_args.sampler.init_args"
    cli = main(
        [
            *("fit", "--config", "quickstart", "--config", "rollout_engine", *TINY),
            '--model.init_args.model={"class_path": "PretrainedModel", "init_args": '
            '{"name": "solver"}}',
            f"{sampler}.max_new_tokens=16",
            f"{sampler}.engine={json.dumps({**ENGINE, 'max_model_len': 512})}",
        ]
    )
    assert isinstance(cli.model.sampler, VLLMSampler)
    assert cli.trainer.global_step == 1
