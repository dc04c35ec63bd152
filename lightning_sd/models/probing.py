"""Measure on short rows what a model's forward pass supports.

Architectures differ in what they do with padding and caches, and some ignore a cache without an
error. Samplers and scorers therefore compare their fast paths with the model's plain forward pass
over one row, once per model, before they use them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import get_causal_lm, list_arguments
from lightning_sd.models.configs import iterate_configs
from lightning_sd.models.finite import raise_non_finite_logits

PROMPT_LENGTHS = (7, 7, 4)
CONTINUATION = 5
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}
"""Largest error of logits relative to their spread; the default below is for half precision."""
HALF_TOLERANCE = 8e-2


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and restore each submodule's mode afterwards.

    In train mode with gradient checkpointing, transformers ignores the key-value cache and decodes
    wrong tokens without an error (transformers issue 36051).
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def accepts(model: nn.Module, name: str) -> bool:
    """Return whether a model's forward pass has an argument of this name."""
    return name in list_arguments(model)


def make_plain_arguments(model: nn.Module) -> dict[str, Any]:
    """Make the arguments with which a forward pass keeps no cache."""
    return {"use_cache": False} if accepts(model, "use_cache") else {}


@dataclass(frozen=True)
class Probe:
    """Short rows, and the logits that the plain forward pass gives for each of them."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logits: list[Tensor]
    """The logits that predict each row's completion and the token after it,
    ``[CONTINUATION + 1, vocab]``."""
    coarse: bool
    """Whether the model computes in low precision."""

    def matches(self, logits: Sequence[Tensor], rows: Sequence[int] | None = None) -> bool:
        """Return whether a fast path gives the same logits.

        Args:
            logits: One tensor per row, ``[steps, vocab]``, from the first completion token on.
            rows: The rows; None for all in order.
        """
        chosen = range(len(self.prompts)) if rows is None else rows
        pairs = zip(logits, chosen, strict=True)
        return all(
            agree(part, self.logits[row][: len(part)], coarse=self.coarse) for part, row in pairs
        )


def is_coarse(model: nn.Module) -> bool:
    """Return whether a model computes with quantized weights or in half precision."""
    narrow = (torch.int8, torch.uint8, torch.bfloat16, torch.float16)
    return any(parameter.dtype in narrow for parameter in model.parameters())


def agree(logits: Tensor, expected: Tensor, *, coarse: bool = False) -> bool:
    """Return whether logits are equal up to rounding errors.

    In half precision and with quantized weights the median token decides, because rounding may send
    a token to another expert.

    Args:
        logits: ``[tokens, vocab]``.
        expected: ``[tokens, vocab]``.
        coarse: Whether the model computes with less precision than the logits have.
    """
    wide, reference = logits.double(), expected.double()
    finite = reference.isfinite()
    if logits.shape != expected.shape or not bool((wide.isfinite() == finite).all()):
        return False
    spread = reference[finite].std().clamp(min=1e-12)
    errors = (wide - reference).masked_fill(~finite, 0.0).abs().amax(-1) / spread
    tolerance = TOLERANCE.get(expected.dtype)
    if coarse or tolerance is None or torch.is_autocast_enabled(logits.device.type):
        return bool(errors.median() < HALF_TOLERANCE)
    return bool(errors.max() < tolerance)


@torch.no_grad()
def make_probe(model: nn.Module) -> Probe:
    """Run the plain forward pass over short rows, one row at a time.

    Args:
        model: A causal language model, in eval mode.

    Raises:
        ValueError: The model does not compute logits from token ids alone, or it is not causal: a
            token's logits depend on later tokens, maybe only in rows that hold its padding token.
        FloatingPointError: Logits are NaN or infinite.
    """
    vocab = _find_vocab_size(model)
    ids, coarse = _choose_ids(model, vocab), is_coarse(model)
    prompts, completions, logits = [], [], []
    for number, length in enumerate(PROMPT_LENGTHS):
        row = [ids[(5 * number + 3 * i + i * i) % len(ids)] for i in range(length + CONTINUATION)]
        whole = compute_logits(model, [row])[0]
        if bool(whole.isnan().any()) or bool((whole == torch.inf).any()):
            raise_non_finite_logits(model)
        other = [*row[:length], *(ids[(i + 1) % len(ids)] for i in range(CONTINUATION))]
        if not agree(compute_logits(model, [other])[0, :length], whole[:length], coarse=coarse):
            raise ValueError(
                f"{type(get_causal_lm(model)).__name__} is not causal: the logits of a token "
                "depend on later tokens. Configure it as a decoder (is_decoder=True), or choose "
                "another model."
            )
        if number == 0:
            _check_padding_token(model, row, vocab, coarse=coarse)
        prompts.append(row[:length])
        completions.append(row[length:])
        logits.append(whole[length - 1 :])
    return Probe(prompts, completions, logits, coarse)


def compute_logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Run the plain forward pass over rows, padded on the right with the token 0.

    Args:
        model: The model.
        rows: Token ids.

    Returns:
        ``[rows, longest, vocab]``.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    device = next(model.parameters()).device
    logits: Tensor = model(input_ids=ids.to(device), **make_plain_arguments(model)).logits
    return logits


def _find_vocab_size(model: nn.Module) -> int:
    """Run the model on two tokens; return the number of logits, or refuse a model without them."""
    try:
        shape = compute_logits(model, [[1, 1]]).shape
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _make_refusal(model, f"{type(error).__name__}: {error}") from error
    if len(shape) != 3 or shape[:2] != (1, 2):
        raise _make_refusal(model, f"its logits have the shape {tuple(shape)}")
    return shape[-1]


def _make_refusal(model: nn.Module, reason: str) -> ValueError:
    return ValueError(
        f"{type(get_causal_lm(model)).__name__} does not compute logits [rows, tokens, vocab] from "
        f"input_ids alone ({reason}): choose a causal language model of text."
    )


def _check_padding_token(model: Any, row: list[int], vocab: int, *, coarse: bool) -> None:
    """Refuse a model that counts the padding tokens of a row, which a completion may hold."""
    pad = getattr(getattr(get_causal_lm(model), "config", None), "pad_token_id", None)
    if not isinstance(pad, int) or not 0 <= pad < vocab:
        return
    padded, end = [row[0], pad, *row[2:]], len(row) // 2
    if not agree(
        compute_logits(model, [padded[:end]])[0, 2:],
        compute_logits(model, [padded])[0, 2:end],
        coarse=coarse,
    ):
        raise ValueError(
            f"{type(get_causal_lm(model)).__name__} is not causal in rows that hold its padding "
            f"token (pad_token_id={pad}), which a model may sample: choose another model."
        )


def _choose_ids(model: nn.Module, vocab: int) -> list[int]:
    """Choose token ids that have no special meaning in the model's configuration."""
    special: set[int] = set()
    for config in iterate_configs(getattr(get_causal_lm(model), "config", None)):
        for name, value in vars(config).items():
            if name.endswith(("token_id", "token_index", "pad_index")):
                special.update(value if isinstance(value, (list, tuple)) else [value])
    start = vocab // 4
    return [i for i in range(start, min(vocab, start + 200)) if i not in special] or [1]
