"""The embedded solver's tokenizer: bytes, a few words, and the tags as single tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHAT_TOKENS = ("<pad>", "<end>", "<system>", "<user>", "<assistant>")
STEP_TAGS = (
    *(tag for n in range(1, 9) for tag in (f"<step_{n}>", f"</step_{n}>")),
    "<answer>",
    "</answer>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>' + message['content'] + '<end>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
MAX_TOKENS = 512
# Each digit is one token, so that a result is one token. A word includes the blanks around it.
_WORDS = r"[0-9]| ?[A-Za-z]+ ?"
_VOCABULARY_SIZE = 400


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that reproduces any text exactly.

    Args:
        texts: Training texts, step tags included.

    Returns:
        A tokenizer with a chat template. Decoding with ``skip_special_tokens=True`` keeps the step
        tags and drops the chat tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        special_tokens=list(CHAT_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_split_at_tags(texts), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in STEP_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        extra_special_tokens=["<system>", "<user>", "<assistant>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _split_at_tags(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from re.split("|".join(STEP_TAGS), text)
