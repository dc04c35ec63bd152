"""The shared fixtures keep the promises that other tests build on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from lightning.pytorch import seed_everything

from tests.oldest import find_reason


@pytest.mark.parametrize("text", ["<step_1>7+5=2</step_1>", "ü → 𝛼\n  two  blanks", ""])
def test_the_tokenizer_gives_text_back(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_template_renders_special_tokens_as_single_ids(tokenizer, tiny_llama) -> None:
    messages = [{"role": "user", "content": "2+2"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == [3, *tokenizer.encode("2+2"), 1, 4]
    assert len(tokenizer) <= tiny_llama.config.vocab_size


def test_models_are_seeded_and_untied_unless_asked(make_llama, make_gpt2) -> None:
    a, b, c = make_llama(), make_llama(), make_llama(seed=1)
    assert (a.lm_head.weight == b.lm_head.weight).all()
    assert not (a.lm_head.weight == c.lm_head.weight).all()
    assert a.lm_head.weight is not a.model.embed_tokens.weight
    tied = make_llama(tie_word_embeddings=True)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert make_gpt2().lm_head.weight is not None
    assert a.training


def test_a_process_that_is_aborted_prints_where() -> None:
    command = [sys.executable, "-c", "import os; os.abort()"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Fatal Python error: Aborted" in done.stderr
    assert 'File "<string>", line 1' in done.stderr


@pytest.mark.parametrize("run", [1, 2])
def test_a_seed_is_forgotten_before_the_next_test(run: int) -> None:
    assert "PL_GLOBAL_SEED" not in os.environ
    seed_everything(run)
    assert os.environ["PL_GLOBAL_SEED"] == str(run)


@pytest.mark.parametrize(
    ("test", "version", "skipped"),
    [
        ("tests/models/test_dropout.py::test_x[jetmoe]", "5.0.0", True),
        ("tests/models/test_dropout.py::test_x[jetmoe]", "5.1.0", False),
        ("tests/models/test_dropout.py::test_x[llama]", "5.0.0", False),
    ],
)
def test_only_what_an_old_version_lacks_is_skipped(test: str, version: str, skipped: bool) -> None:
    reason = find_reason(test, {"transformers": version})
    assert (reason is not None) == skipped
    assert reason is None or reason.startswith(f"transformers {version}: ")
