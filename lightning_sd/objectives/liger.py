"""Distillation by Liger's fused kernel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_sd.functional.liger import liger_computes, liger_loss
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.scoring import LogitsSource, Scores

FUSED_ON = ("cuda",)
"""Devices on which the kernel runs."""


@dataclass(frozen=True)
class LigerDistillation(Distillation):
    """:class:`Distillation` over the whole vocabulary by Liger's fused kernel, on CUDA.

    Needs ``pip install "lightning_sd[liger]"``. The kernel gives the sum alone: advantages, entropy
    and the loss of single tokens are not logged. On other devices it is :class:`Distillation`.
    Checked in Triton's interpreter; not run on a GPU.

    Raises:
        ValueError: A setting that the kernel does not know.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = self.token_clip is None and self.importance_clip is None and not self.weights
        if not (liger_computes(self.spec) and plain and self.reduction == "token"):
            raise ValueError(
                "LigerDistillation knows kind, beta and temperature only: leave top_k, clips, "
                "weights and reduction as they are, or take Distillation."
            )

    def fused(self, student: Scores, teacher: LogitsSource) -> Tensor | None:
        """The sum over all tokens; see :class:`Objective`."""
        if student.hidden.device.type not in FUSED_ON:
            return None
        if not isinstance(teacher, Scores) or student.head is None or teacher.head is None:
            raise ValueError(
                "LigerDistillation needs one teacher, and models whose logits are a linear map: "
                "take Distillation."
            )
        head, other = student.head, teacher.head
        if head.bias is not None or head.softcap is not None:
            raise ValueError(
                "LigerDistillation knows no bias or cap of the logits: take Distillation."
            )
        return liger_loss(
            student.hidden,
            head.weight,
            teacher.hidden,
            other.weight,
            self.spec,
            temperature=self.temperature / head.scale,
        )
