"""Prompts with sounds in them: encoded, sampled from and scored as transformers itself would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.methods.echodistill.model import audio_model, audio_processor, texts
from lightning_sd.lab.spoken_digits import SpokenDigitsTask
from lightning_sd.models import LoadedModel, PretrainedModel, chat
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.media import MediaPrompt, collect_media_inputs, has_media
from lightning_sd.models.tokenizer import prepare_tokenizer
from lightning_sd.rollout import TransformersSampler
from lightning_sd.scoring import Scorer, deduplicate_prompts
from lightning_sd.text.content import render_content

NEW = 8
EOS = 1


@pytest.fixture(scope="module")
def questions() -> Any:
    return SpokenDigitsTask(train_size=6, val_size=1, test_size=1).questions("train")[:]


@pytest.fixture(scope="module")
def processor(questions: Any) -> Any:
    return audio_processor(texts(questions))


@pytest.fixture(scope="module")
def tokenizer(processor: Any) -> Any:
    return prepare_tokenizer(processor, "tiny")


@pytest.fixture(scope="module")
def model(processor: Any) -> Any:
    """Weights so large that what is heard decides what is said."""
    return audio_model(processor, width=32, spread=0.3, seed=5)


@pytest.fixture(scope="module")
def prompts(questions: Any, tokenizer: Any) -> Any:
    """Four with sounds, of two lengths; one of text alone; one with two sounds."""
    found = [encode_prompt(tokenizer, q.messages) for q in questions[:4]]
    parts = [questions[i].messages[0]["content"][0] for i in (4, 5)]
    both = [*parts, {"type": "text", "text": "Which number do you hear?"}]
    found.append(encode_prompt(tokenizer, [{"role": "user", "content": "I hear four"}]))
    found.append(encode_prompt(tokenizer, [{"role": "user", "content": both}]))
    assert len({len(prompt) for prompt in found}) >= 3
    return found


def test_a_prompt_has_a_placeholder_for_each_vector_of_its_sound(
    questions: Any, processor: Any, tokenizer: Any
) -> None:
    messages = questions[0].messages
    prompt = encode_prompt(tokenizer, messages)
    assert isinstance(prompt, MediaPrompt)
    assert prompt.count(processor.audio_token_id) == 12  # 50 frames, halved, pooled by two
    assert set(prompt.inputs) == {"input_features", "feature_attention_mask"}
    assert prompt.inputs["input_features"].shape == (1, 40, 50)
    sound = messages[0]["content"][0]["audio"]
    features = processor.feature_extractor(sound, sampling_rate=16000, return_tensors="pt")
    assert torch.equal(prompt.inputs["input_features"], features.input_features)


def test_the_same_parts_give_the_same_object_and_other_sounds_another(
    questions: Any, tokenizer: Any
) -> None:
    first, second = (
        encode_prompt(tokenizer, [{"role": "user", "content": list(q.messages[0]["content"])}])
        for q in (questions[0], questions[0])
    )
    assert first is second
    content = questions[0].messages[0]["content"]
    other = [{"type": "audio", "audio": content[0]["audio"][::-1].copy()}, content[1]]
    third = encode_prompt(tokenizer, [{"role": "user", "content": other}])
    assert list(third) == list(first)
    assert not torch.equal(third.inputs["input_features"], first.inputs["input_features"])
    assert encode_prompt(tokenizer, questions[0].messages, {}) is first


def test_text_alone_stays_a_plain_list(tokenizer: Any) -> None:
    plain = encode_prompt(tokenizer, [{"role": "user", "content": "I hear four"}])
    assert type(plain) is list
    parts = encode_prompt(
        tokenizer, [{"role": "user", "content": [{"type": "text", "text": "I hear four"}]}]
    )
    assert type(parts) is list
    assert parts == plain
    assert not has_media([plain, parts])
    assert collect_media_inputs([plain], torch.device("cpu")) == {}


def test_only_the_most_recent_prompts_are_kept(
    questions: Any, tokenizer: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(chat, "_MOST_RECENT", 2)
    prompts = [encode_prompt(tokenizer, q.messages) for q in questions[:3]]
    assert len(chat._RECENT) == 2
    assert encode_prompt(tokenizer, questions[2].messages) is prompts[2]
    assert encode_prompt(tokenizer, questions[0].messages) is not prompts[0]


def test_inputs_with_one_entry_per_token_are_refused(
    questions: Any, tokenizer: Any, processor: Any, monkeypatch: Any
) -> None:
    def encode(*args: Any, **kwargs: Any) -> Any:
        ids = torch.tensor([[5, 6]])
        return {"input_ids": ids, "mm_token_type_ids": torch.zeros_like(ids)}

    monkeypatch.setattr(processor, "apply_chat_template", encode)
    with pytest.raises(ValueError, match=r"returns \['mm_token_type_ids'\]"):
        encode_prompt(
            tokenizer, [{"role": "user", "content": [*questions[4].messages[0]["content"]]}]
        )


@pytest.mark.parametrize("missing", [False, True])
def test_the_processor_s_template_comes_before_its_tokenizer_s(missing: bool) -> None:
    processor = audio_processor(["I hear four"])
    processor.tokenizer.chat_template = "of the tokenizer"
    processor.chat_template = None if missing else "of the processor"
    expected = "of the tokenizer" if missing else "of the processor"
    assert prepare_tokenizer(processor, "tiny").chat_template == expected


def test_parts_without_a_processor_are_refused(questions: Any, request: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    inner = prepare_tokenizer(audio_processor(["I hear four"]), "x")
    plain = PreTrainedTokenizerFast(
        tokenizer_object=inner.backend_tokenizer, chat_template=inner.chat_template
    )
    with pytest.raises(ValueError, match="no processor"):
        encode_prompt(plain, questions[0].messages)


def test_pieces_of_different_sizes_are_refused() -> None:
    rows = [MediaPrompt([1], {"pixels": torch.zeros(1, 3, n, n)}) for n in (4, 6)]
    with pytest.raises(ValueError, match="pixels: pieces of one batch have the shapes"):
        collect_media_inputs(rows, torch.device("cpu"))


def test_text_of_names_what_is_not_text() -> None:
    parts = [{"type": "image", "image": None}, {"type": "text", "text": "a"}]
    assert render_content(parts) == "[image]a"
    assert render_content("a") == "a"


def sample(model: Any, prompts: Any, samples: int = 1, **settings: Any) -> Any:
    return TransformersSampler(**{"max_new_tokens": NEW, "temperature": 0, **settings}).sample(
        model,
        prompts,
        samples=samples,
        stop_ids=[EOS],
        generator=torch.Generator().manual_seed(0),
    )


def test_greedy_equals_generate(model: Any, prompts: Any) -> None:
    """Of all prompts at once, left-padded, against transformers one by one."""
    expected = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        out = model.eval().generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **collect_media_inputs([prompt], ids.device),
            max_new_tokens=NEW,
            do_sample=False,
        )
        expected.append(tuple(out[0, ids.shape[1] :].tolist()))
    assert len(set(expected)) >= 4
    assert [completion.ids for completion in sample(model, prompts)] == expected


def test_one_by_one_gives_what_a_batch_gives(model: Any, prompts: Any) -> None:
    batch = sample(model, prompts, samples=2)
    for i, prompt in enumerate(prompts):
        (alone,) = sample(model, [prompt])
        for found in batch[2 * i : 2 * i + 2]:
            assert found.ids == alone.ids
            assert found.prompt == i
            np.testing.assert_allclose(found.logprobs, alone.logprobs, atol=1e-4)


def test_the_sound_decides(model: Any, prompts: Any) -> None:
    """Of prompts with the same ids: no row may hear another row's sound."""
    same = [p for p in prompts if isinstance(p, MediaPrompt) and list(p) == list(prompts[0])]
    swapped = sample(model, [MediaPrompt(prompts[0], prompts[3].inputs)])
    assert len(same) >= 2
    first, second = (sample(model, [prompt])[0].logprobs[0] for prompt in same[:2])
    assert abs(first - second) > 1e-3
    assert abs(swapped[0].logprobs[0] - sample(model, [prompts[0]])[0].logprobs[0]) > 1e-3


COMPLETIONS = [[30, 31, EOS], [32, EOS], [33, 34, 35, 36, 37], [38], [39, 40, EOS], [41, EOS]]


def by_hand(model: Any, prompts: Any, completions: Any) -> torch.Tensor:
    """One row at a time through the whole model, no padding."""
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([[*prompt, *completion]])
        logits = model(input_ids=ids, **collect_media_inputs([prompt], ids.device)).logits[0]
        rows.append(logits[len(prompt) - 1 : len(prompt) - 1 + len(completion)])
    return torch.cat(rows)


@pytest.fixture(params=["rows", "shared", "padded"])
def batch(request: Any, prompts: Any) -> Any:
    if request.param == "rows":
        return prompts, COMPLETIONS
    if request.param == "shared":
        order = [0, 1, 0, 3, 4, 5, 3, 0]
        texts = [*COMPLETIONS, [50, 51, 52], [53]]
        return [prompts[i] for i in order], texts
    return [*prompts, prompts[0]], [*COMPLETIONS, list(range(30, 70))]


@pytest.mark.parametrize("share", [True, False])
def test_scores_and_gradients_equal_one_row_at_a_time(model: Any, batch: Any, share: bool) -> None:
    rows, completions = batch
    precise = model.double().train()
    wide = [
        MediaPrompt(p, {n: v.double() if v.is_floating_point() else v for n, v in p.inputs.items()})
        if isinstance(p, MediaPrompt)
        else p
        for p in rows
    ]
    expected = by_hand(precise, wide, completions)
    found = Scorer(precise, share_prompts=share, call_cost=0).score(wide, completions)
    assert found.head is not None
    logits = found.logits()
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-4)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).double()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    names, parameters = [n for n, _ in trained], [p for _, p in trained]
    ours = torch.autograd.grad((logits * probe).sum(), parameters)
    theirs = torch.autograd.grad((expected * probe).sum(), parameters)
    assert any("audio_tower" in name for name in names)
    for name, a, b in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item(), msg=name)
    model.float()


def test_a_sampled_placeholder_is_a_token_like_any_other(
    model: Any, prompts: Any, processor: Any
) -> None:
    """Models may say the token that stands for sounds; it is scored as decoding saw it."""
    prompt, said = prompts[0], [30, processor.audio_token_id, 31, EOS]
    start = torch.tensor([list(prompt)])
    out = model(input_ids=start, **collect_media_inputs([prompt], start.device), use_cache=True)
    expected, cache = [out.logits[0, -1]], out.cache
    for token in said[:-1]:
        out = model(input_ids=torch.tensor([[token]]), cache=cache, use_cache=True)
        expected.append(out.logits[0, -1])
    found = Scorer(model).score([prompt], [said]).logits()
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=2e-4)


def test_prompts_are_shared_by_object_not_by_ids(prompts: Any) -> None:
    twin = MediaPrompt(prompts[0], {name: 2 * v for name, v in prompts[0].inputs.items()})
    distinct, index = deduplicate_prompts([prompts[0], twin, prompts[0], [1, 2], [1, 2]])
    assert index == [0, 1, 0, 2, 2]
    assert distinct[0] is prompts[0]
    assert distinct[1] is twin
    assert distinct[2] == [1, 2]


def test_text_alone_is_scored_as_by_the_language_model_alone(model: Any, prompts: Any) -> None:
    plain = [list(prompts[4])] * 2
    found = Scorer(model).score(plain, COMPLETIONS[:2]).logits()
    torch.testing.assert_close(found, by_hand(model, plain, COMPLETIONS[:2]), rtol=0, atol=1e-4)


def test_a_folder_with_a_processor_is_loaded_with_it(
    model: Any, processor: Any, questions: Any, tmp_path: Any
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, tokenizer = PretrainedModel(str(tmp_path)).load()
    again, other = LoadedModel(model, processor).load()
    assert type(loaded) is type(model)
    found, expected = (encode_prompt(t, questions[0].messages) for t in (tokenizer, other))
    assert found == expected
    assert torch.equal(found.inputs["input_features"], expected.inputs["input_features"])
    (ours,), (theirs,) = sample(loaded, [found]), sample(again, [expected])
    assert ours.ids == theirs.ids
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)


def test_a_model_without_a_part_below_its_head_is_refused(
    model: Any, prompts: Any, monkeypatch: Any
) -> None:
    """As transformers 5.0 builds Qwen2-Audio."""
    scorer = Scorer(model)
    scorer.prepare()
    monkeypatch.setattr(type(model), "base_model_prefix", "")
    with pytest.raises(ValueError, match="update it"):
        scorer.score(prompts[:1], [[5, 6]])
