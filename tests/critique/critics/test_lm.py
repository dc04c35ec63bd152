import json
import pickle

import pytest
import torch

from lightning_sd.critique.cache.keys import compute_key
from lightning_sd.critique.critics.lm import LMCritic, read_text
from lightning_sd.data.module import CritiqueDataModule
from lightning_sd.models import LoadedModel, ModelSource, PretrainedModel
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.fingerprint import fingerprint_files, fingerprint_module
from lightning_sd.rollout import Completion
from lightning_sd.text.steps import render_steps
from tests.critique.cache.fakes import NumberTask, request, rollout

PROMPT = "{question} {attempt}"
REPAIRED = render_steps(["7+5=2"], "2")


class Counted(ModelSource):
    """Counts how often the model is loaded."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.loads = model, tokenizer, 0

    def load(self):
        self.loads += 1
        return self.model, self.tokenizer


@pytest.fixture
def saved(tmp_path, make_llama, tokenizer):
    """A model on disk."""
    make_llama().save_pretrained(tmp_path / "critic")
    tokenizer.save_pretrained(tmp_path / "critic")
    return tmp_path / "critic"


def critic(source, **options):
    return LMCritic(source, **{"max_new_tokens": 12, "batch_size": 3, "prompt": PROMPT, **options})


def test_writes_what_generate_writes(make_llama, tokenizer):
    """Batched, left-padded decoding against transformers, one prompt at a time."""
    model = make_llama()
    requests = [request(i, "x" * i) for i in range(5)]
    critiques = [c for _, c in critic(LoadedModel(model, tokenizer)).stream(requests)]
    for asked, critique in zip(requests, critiques, strict=True):
        text = f"{asked.question.text} {asked.attempt}"
        ids = torch.tensor([encode_prompt(tokenizer, [{"role": "user", "content": text}])])
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
            )[0, ids.shape[1] :]
        assert critique.text == tokenizer.decode(out, skip_special_tokens=True).strip()
        assert critique.tokens == len(out)
        assert critique.refused is not None  # a random model never keeps to the form
        assert critique.seconds > 0


def test_the_precision_of_the_trainer_decides_nothing(make_llama, tokenizer, monkeypatch):
    """Critiques are asked for within the trainer's autocast, which the cache key does not know."""
    one, dtypes = critic(LoadedModel(make_llama(), tokenizer)), set()
    model = one.model.load()[0]
    model.lm_head.register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        [within] = one.critique([request(1)])
    assert dtypes == {torch.float32}
    assert within.text == one.critique([request(1)])[0].text


def test_is_loaded_at_first_use_and_once(make_llama, tokenizer):
    source = Counted(make_llama(), tokenizer)
    one = critic(source)
    assert source.loads == 0
    one.critique([request(1)])
    one.critique([request(2)])
    assert source.loads == 1
    assert not any(p.requires_grad for p in source.model.parameters())


def test_a_fully_cached_run_never_loads_the_model(saved, tmp_path, monkeypatch):
    needs = frozenset({"critique"})

    def run():
        module = CritiqueDataModule(NumberTask(), critic(str(saved)), str(tmp_path / "cache"))
        module.setup("fit")
        return module.evidence([rollout(i) for i in range(4)], needs), module.counters()

    found, counts = run()
    assert counts["critique_misses"] == 4
    monkeypatch.setattr(PretrainedModel, "load", lambda self: pytest.fail("loaded"))
    again, counts = run()
    assert (counts["critique_hits"], counts["critique_misses"]) == (4, 0)
    assert again == found


def key(one):
    return compute_key(one.identity(), request())


def test_identity_holds_everything_that_decides_a_critique(saved, make_llama, tokenizer):
    base = key(critic(str(saved)))
    assert key(critic(str(saved), batch_size=7, device="cpu")) == base  # these decide nothing
    others = [
        critic(str(saved), prompt=PROMPT + "!"),
        critic(str(saved), max_new_tokens=13),
        critic(str(saved), include_reference=False),
        critic(PretrainedModel(str(saved), dtype="bfloat16")),
        critic(PretrainedModel(str(saved), quantization="nf4")),
        critic(PretrainedModel(str(saved), quantization="int8")),
    ]
    make_llama(seed=1).save_pretrained(saved)  # other weights under the same name
    others.append(critic(str(saved)))
    assert len({base, *map(key, others)}) == 1 + len(others)


def test_identity_is_plain_and_stable(saved, make_llama, tokenizer):
    for source in (str(saved), LoadedModel(make_llama(), tokenizer)):
        assert json.dumps(critic(source).identity()) == json.dumps(critic(source).identity())


def test_fingerprints_see_a_change_of_any_one_tensor(make_llama):
    seen = {fingerprint_module(make_llama())}
    assert fingerprint_module(make_llama()) in seen
    names = [name for name, _ in make_llama().named_parameters()]
    for name in names:
        model = make_llama()
        with torch.no_grad():
            model.get_parameter(name).mul_(1.01)
        seen.add(fingerprint_module(model))
    assert fingerprint_module(make_llama(dtype=torch.float64)) not in seen
    assert len(seen) == 1 + len(names)


def test_file_fingerprints_see_sizes_names_and_contents(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return fingerprint_files([tmp_path / name])

    data = bytes(range(256)) * 40
    prints = [
        write("a.safetensors", data),
        write("a.safetensors", data + b"x"),
        write("b.safetensors", data),
        write("a.safetensors", data[:5000] + b"\0" + data[5001:]),
        write("a.safetensors", b""),
    ]
    assert len(set(prints)) == 5
    assert write("a.safetensors", data) == prints[0]


def test_pickles_without_its_model(make_llama, tokenizer, saved):
    one = critic(str(saved))
    one.critique([request()])
    again = pickle.loads(pickle.dumps(one))
    assert again._loaded is None
    assert again.identity() == one.identity()


def test_a_prompt_without_room_is_refused_alone(make_llama, tokenizer):
    model = make_llama(max_position_embeddings=64)
    long, short = critic(LoadedModel(model, tokenizer)).critique(
        [request(1, "word " * 60), request(1, "a")]
    )
    assert "too long" in long.refused
    assert (long.tokens, short.tokens > 0) == (0, True)
    assert "too long" not in short.refused


@pytest.fixture
def scripted(monkeypatch, make_llama, tokenizer):
    """Makes a critic that writes a given text."""

    def make(text, template_end="", finished=True):
        import copy

        own = copy.deepcopy(tokenizer)
        own.chat_template = own.chat_template + template_end
        ids = tuple(own.encode(text))
        monkeypatch.setattr(
            LMCritic,
            "_decode",
            lambda self, model, tokenizer, prompts: (
                [Completion(i, ids, (0.0,) * len(ids), finished)] for i in range(len(prompts))
            ),
        )
        return critic(LoadedModel(make_llama(), own))

    return make


@pytest.mark.parametrize(
    ("text", "template_end"),
    [
        (REPAIRED, ""),
        (f"<think>Is 7+5 really 2?</think>\n{REPAIRED}", ""),
        (f"Is 7+5 really 2?</think>\n{REPAIRED}", "<think>\n"),
        (f"<think>Is 7+5 really 2?</think>\n{REPAIRED}", "<think>\n"),
    ],
)
def test_thinking_is_removed(scripted, text, template_end):
    [critique] = scripted(text, template_end).critique([request()])
    assert (critique.text, critique.refused) == (REPAIRED, None)


def test_thinking_that_never_ends_leaves_no_critique(scripted):
    [critique] = scripted("So 7+5", "<think>\n", finished=False).critique([request()])
    assert critique.text == ""
    assert "cut off" in critique.refused


def test_thinking_is_removed_where_its_tags_are_special_tokens(tokenizer):
    """Decoding without special tokens would leave the thinking, its tags gone."""
    import copy

    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = own.encode(f"<think>hm</think>{REPAIRED}")
    assert read_text(own, own.encode("a"), ids) == REPAIRED
    ids = own.encode(f"hm</think>{REPAIRED}")
    assert read_text(own, own.encode("a<think>\n"), ids) == REPAIRED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"prompt": "Go!"}, "question"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        critic("some-model", **options)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_critics_run(saved, make_llama, quantization):
    # 4-bit blocks hold 64 values, so the layers must be at least that wide.
    make_llama(hidden_size=64, intermediate_size=128).save_pretrained(saved)
    one = critic(PretrainedModel(str(saved), quantization=quantization))
    critiques = one.critique([request(i) for i in range(2)])
    assert [c.tokens > 0 for c in critiques] == [True, True]
