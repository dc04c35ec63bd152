"""The base class of teacher contexts: what the self-teacher sees.

A context is a Lightning callback. It works in any LightningModule that has a ``tokenizer`` and a
``teacher_context`` attribute (None at first), which the callback sets in ``setup``. The module then
calls ``self.teacher_context.views(rollouts)``. Evidence that the rollouts lack comes from the
trainer's data module.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer

from lightning_sd.contexts.hosted import HostedCallback
from lightning_sd.models.chat import encode_prompt
from lightning_sd.types import Message, Question, Rollout, TeacherView

CHECKED_QUESTIONS = 1000
"""Number of training questions that are looked through for what a context shows."""


class TeacherContext(HostedCallback):
    """Write, for each rollout, the prompt under which the self-teacher scores it.

    Subclass it with a ``template`` and :meth:`fields`; override :meth:`messages` for full control.
    If a prompt is longer than ``max_prompt_tokens``, the ends of the fields in ``cut_fields`` are
    cut, one field after another. The question, the template and earlier turns are never cut.

    Example:
        >>> class Hint(TeacherContext):
        ...     template = "{question} (Hint: {hint})"
        ...     cut_fields = ("hint",)
        ...
        ...     def fields(self, rollout):
        ...         hint = rollout.question.extra.get("hint")
        ...         return {"hint": hint} if hint else None

    Args:
        template: Wording of the last user turn. It must contain ``{question}`` and may contain
            each of the fields. Default: the class's wording.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only, such as
            Qwen3's ``{enable_thinking: true}`` (in the paper the teacher thinks and the student
            does not).

    Raises:
        ValueError: A template without ``{question}`` or with unbalanced braces, or a limit below 1.
        TypeError: A subclass does not define :meth:`fields`, or has no ``template``.
    """

    gives_views: ClassVar[bool] = True
    """Whether the context ever gives a view; False: objectives that require a teacher refuse it."""
    template: str
    """The default wording, set by subclasses."""
    cut_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that may be cut to fit ``max_prompt_tokens``, in this order."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class that misspells ``fields``, before anything is loaded."""
        super().__init_subclass__(**kwargs)
        if cls.fields is TeacherContext.fields:
            close = difflib.get_close_matches("fields", vars(cls), 1, cutoff=0.8)
            if close:
                raise TypeError(
                    f"{cls.__name__} defines `{close[0]}` and no `fields`: did you mean `fields`?"
                )

    def __init__(
        self,
        template: str | None = None,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if template is not None:
            self.template = template
        if not hasattr(self, "template"):
            raise TypeError(
                f"{type(self).__name__}.template: the class has none; set "
                '`template = "{question} ..."` with its fields in braces.'
            )
        if "{question}" not in self.template:
            raise ValueError(
                f"template={self.template!r} of {type(self).__name__} lacks {{question}}; add it."
            )
        try:
            _ = self.template.format_map(_AnyField())
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"template={self.template!r} of {type(self).__name__} cannot be filled ({error}): "
                "write literal braces twice, {{ and }}."
            ) from error
        if max_prompt_tokens is not None and max_prompt_tokens < 1:
            raise ValueError(f"max_prompt_tokens={max_prompt_tokens}: must be at least 1, or none.")
        self.max_prompt_tokens = max_prompt_tokens
        self.template_kwargs = template_kwargs or {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse training questions that lack what the context shows; see :meth:`has_evidence`.

        Raises:
            ValueError: None of the first questions has it.
        """
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        questions = getattr(getattr(trainer, "datamodule", None), "train_questions", ())
        number = min(len(questions), CHECKED_QUESTIONS)
        if number and not any(self.has_evidence(questions[i]) for i in range(number)):
            raise ValueError(
                f"teacher_context {type(self).__name__} shows what none of the first {number} "
                "training questions has: map the column in data.task.columns, or choose another "
                "context."
            )

    def has_evidence(self, question: Question) -> bool:
        """Return whether the data hold what the context shows of this question.

        True by default: for contexts that show attempts, critiques, or texts that a model writes.
        """
        return True

    @abstractmethod
    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the template's fields for one rollout, or None: no teacher for this rollout.

        Args:
            rollout: A rollout with its evidence (``verdict``, ``critique``) and ``siblings``.
        """

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the teacher's prompt: the student's, with the last turn worded by the template."""
        content = fill(self.template, {"question": rollout.question.text, **fields})
        return (*rollout.question.messages[:-1], Message(role="user", content=content))

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Prepare a batch before :meth:`views`; called in training and in predict.

        A context may update its memory here (keep it in ``state_dict`` and equal on all ranks),
        write texts through :meth:`write`, and add completions that the student did not sample
        (``origin="teacher"``, with the ``group`` of their question).

        Args:
            rollouts: The batch with its evidence.

        Returns:
            The rollouts that take part.
        """
        return self.gather_missing(rollouts)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Return what the teacher sees of each rollout; None: the rollout has no teacher.

        Args:
            rollouts: The batch. Evidence that it lacks is gathered; see :meth:`gather_missing`.
        """
        return [
            self.write_view(rollout, self.fields(rollout))
            for rollout in self.gather_missing(rollouts)
        ]

    def write_view(self, rollout: Rollout, fields: Mapping[str, str] | None) -> TeacherView | None:
        """Write the teacher's prompt, with fields cut to ``max_prompt_tokens``.

        Args:
            rollout: The rollout whose question the prompt asks.
            fields: What the context shows, usually :meth:`fields` of the same rollout.

        Returns:
            What the teacher sees; None without fields, or if nothing of them fits.
        """
        if fields is None:
            return None
        fields, cut = dict(fields), {}
        for name in (None, *self.cut_fields):
            over = self._count_excess(rollout, fields)
            if name and over > 0:
                fields[name], cut[name], over = self._cut_field(rollout, fields, name, over)
            if over <= 0:
                # A context with all its fields cut to nothing is no context.
                if cut and not any(fields[field] for field in self.cut_fields):
                    return None
                return TeacherView(
                    self.messages(rollout, fields), cut, template_kwargs=self.template_kwargs
                )
        # The question and the template alone are too long; nothing is left to cut.
        return None

    def _count_excess(self, rollout: Rollout, fields: Mapping[str, str]) -> int:
        """Return by how many tokens the prompt exceeds its limit."""
        if self.max_prompt_tokens is None:
            return 0
        messages = self.messages(rollout, fields)
        prompt = encode_prompt(self.tokenizer, messages, self.template_kwargs)
        return len(prompt) - self.max_prompt_tokens

    def _cut_field(
        self, rollout: Rollout, fields: Mapping[str, str], name: str, over: int
    ) -> tuple[str, int, int]:
        """Cut a field's end until the prompt fits or the field is empty."""
        ids = self.tokenizer.encode(fields[name], add_special_tokens=False)
        kept, text = len(ids), fields[name]
        # The cut text may tokenize differently at its end, so the length is measured each time.
        while over > 0 and kept > 0:
            kept = max(0, kept - over)
            # A cut inside a character leaves a replacement character.
            text = self.tokenizer.decode(ids[:kept]).rstrip("\ufffd")
            over = self._count_excess(rollout, {**fields, name: text})
        return text, len(ids) - kept, over


class _AnyField(dict[str, str]):
    """Any field as an empty text, to check a template at configuration."""

    def __missing__(self, key: str) -> str:
        return ""


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put fields into a template; braces inside the fields are kept as they are.

    Example:
        >>> fill("{question} {hint}", {"question": "2+2?", "hint": "{4}"})
        '2+2? {4}'
    """
    return template.format(**fields)
