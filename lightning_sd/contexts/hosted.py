"""The part of a context that talks to the LightningModule that hosts it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_sd.contexts.host import ContextHost
from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.types import Message, Rollout, TeacherView, link_siblings


class HostedCallback(Callback, ABC):
    """A callback that gives itself to a module, and asks the module to write and to log."""

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    """Evidence that is gathered in addition to the verdict: ``critique`` asks the critic."""
    reads_verdicts: ClassVar[bool] = False
    """Whether the context reads the verdicts, of the rollouts or of their siblings."""

    _tokenizer: Any = None
    _host: ContextHost | None = None
    _trainer: Trainer | None = None
    template_kwargs: dict[str, Any]

    @property
    def tokenizer(self) -> Any:
        """The module's tokenizer; set it to use a context without a module."""
        return self._host.tokenizer if self._tokenizer is None and self._host else self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module can host a context, and give it this one.

        Raises:
            TypeError: The module has no ``tokenizer`` or no ``teacher_context`` attribute.
            ValueError: The module has another context already.
        """
        for name in ("tokenizer", "teacher_context"):
            if not hasattr(pl_module, name):
                raise TypeError(
                    f"{type(self).__name__} needs a module with the attributes `tokenizer` and "
                    f"`teacher_context` (None at first); {type(pl_module).__name__} lacks `{name}`."
                )
        host: Any = pl_module
        other = host.teacher_context
        if other is not None and other is not self:
            raise ValueError(
                f"Two teacher contexts, {type(other).__name__} and {type(self).__name__}: keep "
                "one, or write one that composes both."
            )
        host.teacher_context = self
        self._trainer = trainer
        self.attach(host)

    def attach(self, host: ContextHost) -> None:
        """Use a module's tokenizer and model without becoming its context."""
        # The tokenizer is read later: Lightning loads models only after every callback's setup.
        self._host = host

    @abstractmethod
    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Return what the teacher sees of each rollout; None: the rollout has no teacher."""

    def gather_missing(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Gather the evidence that the context reads, if none of the rollouts has it.

        ``SelfDistillModule`` gathers evidence before it calls a context. Any other module may pass
        bare rollouts: the trainer's data module is then asked. A context without a trainer changes
        nothing.

        Args:
            rollouts: A batch.

        Returns:
            The rollouts in order; with evidence and siblings, if evidence was missing.

        Raises:
            TypeError: Evidence is missing and the trainer's data module cannot gather it.
        """
        own = [rollout for rollout in rollouts if rollout.origin == "student"]
        names = [*(["verdict"] if self.reads_verdicts else []), *sorted(self.required_evidence)]
        missing = [n for n in names if own and all(getattr(r, n, None) is None for r in own)]
        if self._trainer is None or not missing:
            return list(rollouts)
        source: Any = getattr(self._trainer, "datamodule", None)
        if not hasattr(source, "evidence"):
            raise TypeError(
                f"{type(self).__name__} reads {missing} of the rollouts, and none has any. Set "
                "them before you call the context, or give the trainer a data module that gathers "
                "them, such as CritiqueDataModule."
            )
        gathered = iter(link_siblings(source.evidence(own, self.required_evidence)))
        return [next(gathered) if r.origin == "student" else r for r in rollouts]

    def write(
        self, prompts: Sequence[Sequence[Message]], *, sampler: Sampler, teacher: bool = False
    ) -> list[Completion]:
        """Generate one text per prompt, with the student's or the teacher's parameters.

        Args:
            prompts: Chat messages, each ending with a user turn.
            sampler: How to sample.
            teacher: Use the teacher's parameters and this context's ``template_kwargs``.

        Raises:
            TypeError: The module has no ``write`` method.
        """
        kwargs = self.template_kwargs if teacher else None
        texts: list[Completion] = self._ask_host("write")(
            prompts, sampler=sampler, teacher=teacher, template_kwargs=kwargs
        )
        return texts

    def log_mean(self, name: str, total: Tensor | float, number: float) -> None:
        """Add to the mean that the module logs as ``train/name`` at the next optimizer step.

        Args:
            name: Name of the mean.
            total: Sum over ``number`` items.
            number: Number of items.

        Raises:
            TypeError: The module has no ``log_mean`` method.
        """
        self._ask_host("log_mean")(name, total, number)

    def frozen_teacher_fingerprint(self) -> str | None:
        """Identify the teacher's parameters if they never change; None if they may.

        A context uses it to reuse texts that a frozen teacher wrote.
        """
        ask = getattr(self._host, "frozen_teacher_fingerprint", None)
        return None if ask is None else ask()

    def _ask_host(self, method: str) -> Any:
        function = getattr(self._host, method, None)
        if function is None:
            raise TypeError(
                f"{type(self).__name__} needs a module with a `{method}` method, such as "
                f"SelfDistillModule; {type(self._host).__name__} has none."
            )
        return function
