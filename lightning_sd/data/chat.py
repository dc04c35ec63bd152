"""Chat messages to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_sd.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Render messages through the chat template, up to where the assistant's answer begins.

    Completions never pass through here: student and teacher append the very ids that were sampled,
    because decoding and encoding them again may give other tokens.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The prompt, ending with a user's turn.
        template_kwargs: Handed to the chat template, such as Qwen3's ``enable_thinking``.

    Returns:
        Token ids, special tokens and the assistant's opening included.

    Raises:
        ValueError: No messages, or the last one is the assistant's.
    """
    if not messages:
        raise ValueError("A prompt needs at least one message; messages is empty.")
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            "A prompt must end before the assistant's turn, but the last of "
            f"{len(messages)} messages has role 'assistant'; drop it."
        )
    ids: Any = tokenizer.apply_chat_template(
        [{"role": message["role"], "content": message["content"]} for message in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,  # transformers 5 would give a BatchEncoding
        **(template_kwargs or {}),
    )
    return [int(token) for token in ids]
