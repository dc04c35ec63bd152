"""A Qwen2-Audio of 0.4 million parameters: transformers' classes with a small vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from lightning_sd.lab.recipe.vocabulary import build_tokenizer
from lightning_sd.lab.sounds import SAMPLING_RATE
from lightning_sd.types import Question

AUDIO_TOKENS = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def texts(questions: Iterable[Question]) -> list[str]:
    """List all texts that the vocabulary must encode well."""
    return [t for q in questions for t in (q.text, q.reference or "")]


def audio_processor(samples: Iterable[str], *, seconds: int = 1, bins: int = 40) -> Any:
    """Build a processor: mel bins every 20 ms, and a byte-level vocabulary.

    Args:
        samples: Texts that the model will read and write.
        seconds: Length of the longest sound.
        bins: Number of mel bins.
    """
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    tokenizer = build_tokenizer(samples)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(AUDIO_TOKENS)}, replace_extra_special_tokens=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    extractor = WhisperFeatureExtractor(
        feature_size=bins,
        sampling_rate=SAMPLING_RATE,
        hop_length=SAMPLING_RATE // 50,
        n_fft=640,
        chunk_length=seconds,
    )
    return Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)


def audio_model(
    processor: Any, *, width: int = 96, layers: int = 2, seed: int = 0, spread: float = 0.05
) -> Any:
    """Build a model with random weights for a processor's sounds and vocabulary.

    Args:
        processor: Processor from :func:`audio_processor`.
        width: Width of the audio encoder and of the language model, a multiple of 4.
        layers: Layers of the encoder; the language model has one more.
        seed: Seed of the weights.
        spread: Standard deviation of the weights.
    """
    from transformers import (
        GenerationConfig,
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2Config,
    )

    tokenizer, extractor = processor.tokenizer, processor.feature_extractor
    ends = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=extractor.feature_size,
            d_model=width,
            encoder_layers=layers,
            encoder_attention_heads=4,
            encoder_ffn_dim=2 * width,
            max_source_positions=extractor.nb_max_frames // 2,
            initializer_range=spread,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers + 1,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            initializer_range=spread,
            **ends,
        ),
        audio_token_index=processor.audio_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**ends)
    return model.train()
