"""Full-vocabulary divergences by Liger's fused kernel, where it computes what ours computes.

Checked against :func:`~lightning_sd.functional.divergence` in Triton's interpreter, for value and
gradients; it has not been run on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sd.functional.divergence import DivergenceSpec


def liger_computes(spec: DivergenceSpec) -> bool:
    """Whether the kernel gives this divergence: on the whole vocabulary, without clips."""
    return spec == DivergenceSpec(spec.kind, spec.beta)


def liger_loss(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    spec: DivergenceSpec,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Summed divergence of tokens whose logits are ``hidden W^T / temperature``.

    The kernel gives the sum alone: no loss, log-probability or entropy of single tokens, and no
    weights for them. It knows no bias, cap or importance weight.

    Args:
        student_hidden: ``[tokens, hidden]``.
        student_weight: ``[vocab, hidden]``.
        teacher_hidden: ``[tokens, teacher's hidden]``; gets no gradient, like its weight.
        teacher_weight: ``[vocab, teacher's hidden]``.
        spec: One for which :func:`liger_computes` is true.
        temperature: By which both logits are divided.

    Returns:
        A scalar, differentiable with respect to ``student_hidden`` and ``student_weight``.

    Raises:
        ImportError: The extra is missing.
        ValueError: The kernel does not compute this divergence.
    """
    if not liger_computes(spec):
        raise ValueError(
            f"{spec}: Liger's kernel knows forward_kl, reverse_kl and js on the whole vocabulary, "
            "without clips."
        )
    if not len(student_hidden):
        return student_hidden.sum() * 0.0 + student_weight.sum() * 0.0
    try:
        from liger_kernel.transformers import LigerFusedLinearJSD
    except ImportError as error:
        raise ImportError('Liger\'s kernels need `pip install "lightning_sd[liger]"`.') from error
    # Its beta is the teacher's weight as ours is, and its ends stand for the two KLs.
    beta = {"forward_kl": 0.0, "reverse_kl": 1.0}.get(spec.kind, spec.beta)
    kernel = LigerFusedLinearJSD(jsd_beta=beta, temperature=temperature, accum_dtype=torch.float32)
    teacher = teacher_hidden.detach(), teacher_weight.detach()
    mean: Tensor = kernel(student_hidden, student_weight, *teacher, None)
    return mean * len(student_hidden)
