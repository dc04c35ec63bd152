"""Find the token ids that end a completion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

_ANSWER = "lightning-sd-answer"


class StopIds(list[int]):
    """Token ids that end a completion, with the tokenizer for samplers that stop at strings.

    Args:
        ids: The token ids.
        tokenizer: The model's tokenizer.
    """

    def __init__(self, ids: Iterable[int], tokenizer: Any) -> None:
        super().__init__(ids)
        self.tokenizer = tokenizer


def find_stop_ids(model: nn.Module, tokenizer: Any) -> StopIds:
    """Return the ids that end an answer, sorted.

    They are the end-of-sequence ids of the generation config and of the tokenizer, and the token
    with which the chat template ends the assistant's turn.

    Raises:
        ValueError: There is none.
    """
    config = getattr(model, "generation_config", None)
    configured = getattr(config, "eos_token_id", None)
    ids = set(configured) if isinstance(configured, (list, tuple)) else {configured}
    ids |= {tokenizer.eos_token_id, find_template_end(tokenizer)}
    result = sorted(i for i in ids if i is not None)
    if not result:
        raise ValueError(
            "Neither the model's generation config, nor the tokenizer, nor the chat template names "
            "a token that ends an answer: set tokenizer.eos_token."
        )
    return StopIds(result, tokenizer)


def find_end_of_turn(tokenizer: Any) -> int:
    """Return the token that ends an answer which the sampler did not write.

    This is the chat template's end of the assistant's turn, or the end-of-sequence token where the
    template writes none.

    Raises:
        ValueError: There is neither.
    """
    end = find_template_end(tokenizer)
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise ValueError(
            "Neither the chat template nor the tokenizer names a token that ends an answer: set "
            "tokenizer.eos_token."
        )
    return int(end)


def find_template_end(tokenizer: Any) -> int | None:
    """Return the token that the chat template writes after an answer; None if it writes none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # a template may refuse answers; the end-of-sequence token remains
        return None
    after = text.rpartition(_ANSWER)[2].lstrip()
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    starts = [word for word in added if word and after.startswith(word)]
    return int(added[max(starts, key=len)]) if starts else None
