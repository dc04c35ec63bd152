"""Stop token ids and stop strings of the sampler."""

import pytest
import torch

from lightning_sd import TransformersSampler
from lightning_sd.models.stop_ids import StopIds


def sample(model, stop_ids, **settings):
    sampler = TransformersSampler(max_new_tokens=40, **settings)
    return sampler.sample(
        model, [[5, 6, 7]], samples=4, stop_ids=stop_ids, generator=torch.Generator().manual_seed(0)
    )


def test_further_stop_ids_end_a_completion(tiny_llama):
    free = sample(tiny_llama, [1])
    stop = free[0].ids[3]
    first = sample(tiny_llama, [1], stop_token_ids=(stop,))[0]
    end = free[0].ids.index(stop) + 1
    assert first.ids == free[0].ids[:end]
    assert first.finished


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_text_ends_a_completion_at_the_token_that_completes_it(tiny_llama, tokenizer, length):
    """The text may span tokens, and begins anywhere."""
    stops = StopIds([1], tokenizer)
    free = sample(tiny_llama, stops)[0]
    text = tokenizer.decode(free.ids[4 : 4 + length])
    stopped = sample(tiny_llama, stops, stop_strings=(text,))[0]
    assert stopped.finished
    assert stopped.ids == free.ids[: len(stopped.ids)]
    assert text in tokenizer.decode(stopped.ids)
    assert text not in tokenizer.decode(stopped.ids[:-1])


def test_texts_without_a_tokenizer_are_refused(tiny_llama):
    with pytest.raises(ValueError, match="needs a tokenizer"):
        sample(tiny_llama, [1], stop_strings=("x",))


@pytest.mark.parametrize("strings", ["ab", ("a", "")])
def test_a_bare_string_or_an_empty_text_is_refused(strings):
    with pytest.raises(ValueError, match="stop_strings"):
        TransformersSampler(stop_strings=strings)
