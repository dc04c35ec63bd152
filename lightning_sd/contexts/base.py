"""The extension point: what the self-teacher sees.

A context is a Lightning callback. It works in any LightningModule that offers
:class:`HostsTeacherContext`: a ``tokenizer`` and a ``teacher_context`` attribute, which the
callback fills in ``setup``. The module then calls ``self.teacher_context.views(rollouts)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_sd.models.chat import encode_prompt
from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.types import Message, Rollout, TeacherView


@runtime_checkable
class HostsTeacherContext(Protocol):
    """What a LightningModule must offer so that a context can work in it."""

    tokenizer: Any
    """A transformers tokenizer with a chat template; it may be loaded after ``setup``."""
    teacher_context: Any
    """None; the callback puts itself here."""


class TeacherContext(Callback):
    """Writes, for each rollout, the prompt under which the self-teacher scores it.

    Subclass it with a ``template`` and :meth:`fields`; override :meth:`messages` for full control.
    A prompt longer than ``max_prompt_tokens`` is cut field by field: the fields named in
    ``shortened`` lose their ends, never the question, the template or the earlier turns.

    Example:
        >>> class Hint(TeacherContext):
        ...     template = "{question} (Hint: {hint})"
        ...     shortened = ("hint",)
        ...
        ...     def fields(self, rollout):
        ...         hint = rollout.question.extra.get("hint")
        ...         return {"hint": hint} if hint else None

    Args:
        template: Wording of the last user turn; None: the class's own. It must hold
            ``{question}`` and may hold each of the fields.
        max_prompt_tokens: Longest prompt of the teacher; None: no limit.
        template_kwargs: For the chat template of the teacher's prompt alone, such as Qwen3's
            ``{enable_thinking: true}`` (the paper's teacher thinks, its student does not).

    Raises:
        ValueError: A template without ``{question}``, or a limit below 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """Evidence to be gathered beside the verdict: ``critique`` asks the critic."""
    gives: ClassVar[bool] = True
    """Whether it ever gives a view; False: objectives that need a teacher refuse it."""
    template: str
    """Class attribute of subclasses: the default wording."""
    shortened: ClassVar[tuple[str, ...]] = ()
    """Fields that may be cut, the first one first."""

    def __init__(
        self,
        template: str | None = None,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if template is not None:
            self.template = template
        if "{question}" not in self.template:
            raise ValueError(
                f"template={self.template!r} of {type(self).__name__} lacks {{question}}."
            )
        try:
            _ = self.template.format_map(_AnyField())
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"template={self.template!r} of {type(self).__name__} can't be filled ({error}): "
                "write literal braces twice, {{ and }}."
            ) from error
        if max_prompt_tokens is not None and max_prompt_tokens < 1:
            raise ValueError(f"max_prompt_tokens={max_prompt_tokens}: must be at least 1, or none.")
        self.max_prompt_tokens = max_prompt_tokens
        self.template_kwargs = template_kwargs or {}
        self._tokenizer: Any = None
        self._host: HostsTeacherContext | None = None

    @abstractmethod
    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The template's fields for one rollout, or None: no teacher for it.

        Args:
            rollout: With its evidence (``verdict``, ``critique``) and ``siblings``.
        """

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """The teacher's prompt: the student's, its last turn reworded by the template."""
        content = fill(self.template, {"question": rollout.question.text, **fields})
        return (*rollout.question.messages[:-1], Message(role="user", content=content))

    def prepare(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Called on each batch of training or predict before :meth:`views`.

        A context may renew what it remembers here (keep it in ``state_dict``, and the same on
        every rank), write texts through :meth:`write`, and add completions that the student did
        not sample (``origin="teacher"``, with the ``group`` of their question).

        Args:
            rollouts: A batch with its evidence.

        Returns:
            The rollouts that take part.
        """
        return list(rollouts)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """What the teacher sees, a rollout; None: this one is masked out of the loss.

        Args:
            rollouts: A batch with its evidence.
        """
        return [self._view(rollout) for rollout in rollouts]

    def write(
        self, prompts: Sequence[Sequence[Message]], *, sampler: Sampler, teacher: bool = False
    ) -> list[Completion]:
        """Let the model write a text for each prompt, with the student's or the teacher's weights.

        Args:
            prompts: Chat messages, each ending with a user's turn.
            sampler: With what settings.
            teacher: Use the teacher's weights, and this context's ``template_kwargs``.

        Raises:
            TypeError: The module has no ``write`` method.
        """
        write = getattr(self._host, "write", None)
        if write is None:
            raise TypeError(
                f"{type(self).__name__} needs a module with a `write` method, as "
                f"SelfDistillModule's; {type(self._host).__name__} has none."
            )
        kwargs = self.template_kwargs if teacher else None
        texts: list[Completion] = write(
            prompts, sampler=sampler, teacher=teacher, template_kwargs=kwargs
        )
        return texts

    @property
    def tokenizer(self) -> Any:
        """The module's, with which prompts are measured; set it to use a context on its own."""
        return self._host.tokenizer if self._tokenizer is None and self._host else self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module can use a context, and hand it this one.

        Raises:
            TypeError: The module lacks a part of :class:`HostsTeacherContext`.
            ValueError: There is another context already.
        """
        if not isinstance(pl_module, HostsTeacherContext):
            raise TypeError(
                f"{type(self).__name__} needs a module with the attributes `tokenizer` and "
                f"`teacher_context` (None at first); {type(pl_module).__name__} lacks one of them."
            )
        host: HostsTeacherContext = pl_module
        other = host.teacher_context
        if other is not None and other is not self:
            raise ValueError(
                f"Two teacher contexts, {type(other).__name__} and {type(self).__name__}: keep "
                "one, or write one that composes both."
            )
        host.teacher_context = self
        self.attach(host)

    def attach(self, host: HostsTeacherContext) -> None:
        """Read and write with a module's tokenizer and model, without being its one context."""
        # Not its tokenizer yet: Lightning loads models only after every callback's setup.
        self._host = host

    def _view(self, rollout: Rollout) -> TeacherView | None:
        found = self.fields(rollout)
        if found is None:
            return None
        fields, cut = dict(found), {}
        for name in (None, *self.shortened):
            over = self._over(rollout, fields)
            if name and over > 0:
                fields[name], cut[name], over = self._shorten(rollout, fields, name, over)
            if over <= 0:
                # A context with nothing in it is no context.
                if cut and not any(fields[field] for field in self.shortened):
                    return None
                return TeacherView(
                    self.messages(rollout, fields), cut, template_kwargs=self.template_kwargs
                )
        # The question and the template alone are too long: there is nothing left to cut.
        return None

    def _over(self, rollout: Rollout, fields: Mapping[str, str]) -> int:
        """Tokens by which the prompt exceeds its limit."""
        if self.max_prompt_tokens is None:
            return 0
        messages = self.messages(rollout, fields)
        prompt = encode_prompt(self.tokenizer, messages, self.template_kwargs)
        return len(prompt) - self.max_prompt_tokens

    def _shorten(
        self, rollout: Rollout, fields: Mapping[str, str], name: str, over: int
    ) -> tuple[str, int, int]:
        """Cut a field's end until the prompt fits or nothing of the field is left."""
        ids = self.tokenizer.encode(fields[name], add_special_tokens=False)
        kept, text = len(ids), fields[name]
        # Cutting can split differently at the seam, so the length is measured again each time.
        while over > 0 and kept > 0:
            kept = max(0, kept - over)
            # A cut inside a character leaves the mark of an undecodable byte.
            text = self.tokenizer.decode(ids[:kept]).rstrip("\ufffd")
            over = self._over(rollout, {**fields, name: text})
        return text, len(ids) - kept, over


class _AnyField(dict[str, str]):
    """Stands for any fields, to try a template before there are any."""

    def __missing__(self, key: str) -> str:
        return ""


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put fields into a template; braces inside the fields' own text are left alone.

    Example:
        >>> fill("{question} {hint}", {"question": "2+2?", "hint": "{4}"})
        '2+2? {4}'
    """
    return template.format(**fields)
