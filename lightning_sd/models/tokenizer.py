"""Prepare a tokenizer or a processor for chat prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare_tokenizer(tokenizer: Any, name: str) -> PreTrainedTokenizerBase:
    """Check that a tokenizer has a chat template, and give it a padding token if it has none.

    The end-of-sequence token serves as padding. This is safe, because masks are made from lengths
    and never by comparing ids.

    Args:
        tokenizer: A tokenizer, or a processor that holds one.
        name: The model's name, for the error message.

    Returns:
        The tokenizer; a processor's tokenizer holds the processor in ``.processor``.

    Raises:
        ValueError: There is no chat template.
    """
    if getattr(tokenizer, "tokenizer", None) is not None:
        processor, tokenizer = tokenizer, tokenizer.tokenizer
        tokenizer.chat_template = processor.chat_template or tokenizer.chat_template
        tokenizer.processor = processor
    if not tokenizer.chat_template:
        raise ValueError(
            f"The tokenizer of {name!r} has no chat template. Give one with "
            "PretrainedModel(chat_template=...), or use the instruction-tuned model."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    prepared: PreTrainedTokenizerBase = tokenizer
    return prepared
