"""Text of data never becomes a control token, whatever the tokenizer's family."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.control_tokens import choose_marker, encode_text
from lightning_sd.models.stop_ids import StopIds, find_end_of_turn, find_stop_ids
from lightning_sd.rollout import encode_stored_attempts
from lightning_sd.types import Question
from tests.tokenizers import FAMILIES, make_tokenizer

TOKENIZERS = {family: make_tokenizer(family) for family in FAMILIES}
FORGED = ["<|im_end|>", "</s>", "<think>", "</think>", "<end_of_turn>", "<|eot_id|>", "[/INST]"]


def prompt(family, content, role="user"):
    return encode_prompt(TOKENIZERS[family], [{"role": role, "content": content}])


def count_control(family, ids):
    tokenizer = TOKENIZERS[family]
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control -= {i for i in control if tokenizer.convert_ids_to_tokens(i).startswith("<0x")}
    control |= {tokenizer.convert_tokens_to_ids(t) for t in FAMILIES[family].get("plain", [])}
    return sum(i in control for i in ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("forged", FORGED)
def test_a_control_token_in_the_content_is_text(family, forged):
    """As many control tokens as with harmless text, and the text comes back whole."""
    content = f"What does {forged} mean?{forged}"
    ids = prompt(family, content)
    assert count_control(family, ids) == count_control(family, prompt(family, "What? It?"))
    assert content in TOKENIZERS[family].decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_special_token_of_the_tokenizer_is_text(family):
    tokenizer = TOKENIZERS[family]
    for word in [*FAMILIES[family]["special"], *FAMILIES[family].get("plain", [])]:
        ids = prompt(family, f"a {word} b")
        assert count_control(family, ids) == count_control(family, prompt(family, "a b"))
        assert f"a {word} b" in tokenizer.decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_harmless_text_is_encoded_as_the_template_does(family):
    tokenizer = TOKENIZERS[family]
    messages = [{"role": "user", "content": "What is 7 + 5?"}]
    kwargs = {"date_string": "x"}
    expected = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False, **kwargs
    )
    assert encode_prompt(tokenizer, messages, kwargs) == expected


PIECES = st.lists(
    st.one_of(
        st.sampled_from([*FORGED, "<|im_", "end|>", "<", "|", ">", "\n", "{{ x }}", "", "é"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    max_size=8,
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=PIECES)
def test_no_text_forges_a_turn(family, pieces):
    ids = prompt(family, "".join(pieces))
    assert count_control(family, ids) == count_control(family, prompt(family, "a"))


def test_a_text_with_the_marker_gets_another_one():
    assert choose_marker("a\ue000") == "\ue001"
    assert (
        prompt("chatml", "a\ue000<|im_end|>").count(
            TOKENIZERS["chatml"].convert_tokens_to_ids("<|im_end|>")
        )
        == 1
    )
    with pytest.raises(ValueError, match="U\\+E000"):
        choose_marker("".join(chr(0xE000 + i) for i in range(16)))


def test_an_attempt_may_think_but_not_end_its_turn():
    tokenizer = TOKENIZERS["qwen"]
    ids = encode_text(tokenizer, "<think>hm</think>4<|im_end|>")
    assert tokenizer.convert_tokens_to_ids("<think>") in ids
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
    assert tokenizer.decode(ids) == "<think>hm</think>4<|im_end|>"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_an_answer_is_the_templates_end_of_turn(family):
    tokenizer = TOKENIZERS[family]
    end = tokenizer.convert_tokens_to_ids(FAMILIES[family]["end"])
    assert find_end_of_turn(tokenizer) == end
    question = Question("q", "q", (), attempt="18")
    (rollout,) = encode_stored_attempts([question], tokenizer)
    assert rollout.ids == (*tokenizer.encode("18", add_special_tokens=False), end)
    stops = find_stop_ids(None, tokenizer)
    assert isinstance(stops, StopIds)
    assert stops == sorted({end, tokenizer.eos_token_id})


def test_without_an_end_in_the_template_the_eos_token_ends_an_answer():
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert find_end_of_turn(tokenizer) == tokenizer.eos_token_id
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert find_end_of_turn(tokenizer) == tokenizer.eos_token_id
