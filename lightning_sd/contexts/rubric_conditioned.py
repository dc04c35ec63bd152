"""A rubric, and what the model itself makes of it, as context (RCSD, stage II)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning_sd._serialize import build
from lightning_sd.contexts.base import TeacherContext, fill
from lightning_sd.contexts.rubrics.analyses import Analyses
from lightning_sd.contexts.rubrics.guard import LeakGuard
from lightning_sd.contexts.rubrics.rubric import Rubric
from lightning_sd.contexts.rubrics.sources import GroundTruthRubric, RubricSource
from lightning_sd.contexts.rubrics.wording import ANALYSE, ANSWER, CONDITIONED
from lightning_sd.rollout.base import Sampler
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Question, Rollout, TeacherView


class RubricConditioned(TeacherContext):
    """The teacher sees the question, its reference answer and a rubric (RCSD, stage II).

    With ``reason_first`` the model first writes, in training, what a good answer must have, one
    text a question; the teacher's prompt is then three turns: the request for that analysis, the
    analysis, and ``answer``, which says that all of it is private. Otherwise, and where no analysis
    was written, it is one turn that ends with ``answer``. Analyses are written by the ``student``'s
    current weights, anew in each step (the released script), or by the ``teacher``'s. A frozen
    teacher's are written once: they stand in the checkpoint and, if asked, in a file.

    Args:
        rubrics: Where rubrics come from; None: the ground truth. A question without one has no
            teacher.
        reason_first: Whether an analysis is written.
        writer: Whose weights write it.
        sampler: With what settings. Default: up to 512 tokens at temperature 1.
        analyses: File that keeps a frozen teacher's analyses for other runs; None: no file.
        guard: Counts (``train/leaks``) and may mask rollouts that cite what the student cannot
            know. Default: counts.
        analyse: Request for the analysis.
        answer: Request for the answer.
        template: Wording of the first turn, with ``{question}``, ``{rubric}``, ``{request}`` and,
            if the teacher is to see it, ``{reference}``.
        max_prompt_tokens: Longest prompt of the teacher; the analysis is cut first, then the
            reference, the rubric last.
        template_kwargs: For the chat template of the teacher's prompt.

    Raises:
        ValueError: An unknown writer, a template that lacks a field, or a file for analyses that
            are not a frozen teacher's.
    """

    template = CONDITIONED
    cut_fields: ClassVar[tuple[str, ...]] = ("analysis", "reference", "rubric")

    def __init__(
        self,
        rubrics: RubricSource | None = None,
        reason_first: bool = True,
        writer: Literal["student", "teacher"] = "student",
        sampler: Sampler | None = None,
        analyses: str | None = None,
        guard: LeakGuard | None = None,
        analyse: str = ANALYSE,
        answer: str = ANSWER,
        template: str | None = None,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(template, max_prompt_tokens, template_kwargs)
        if writer not in ("student", "teacher"):
            raise ValueError(f"writer={writer!r}: choose student or teacher.")
        for name in ("rubric", "request"):
            if f"{{{name}}}" not in self.template:
                raise ValueError(f"template={self.template!r} lacks {{{name}}}.")
        if analyses is not None and not (reason_first and writer == "teacher"):
            raise ValueError(
                f"analyses={analyses!r}: only a frozen teacher's analyses are kept; set "
                "reason_first and writer=teacher, or leave it out."
            )
        self.rubrics: RubricSource = build(rubrics) or GroundTruthRubric()
        self.sampler: Sampler = build(sampler) or TransformersSampler(max_new_tokens=512)
        self.guard: LeakGuard = build(guard) or LeakGuard()
        self.reason_first, self.writer = reason_first, writer
        self.analyse, self.answer = analyse, answer
        self.memory = Analyses(self.sampler, analyses)
        self._found: dict[str, Rubric | None] = {}
        self._shown: dict[str, str] = {}

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Count citations, and have the analyses of this batch written."""
        cited = sum(bool(self.guard.cited(rollout)) for rollout in rollouts)
        self.log_mean("leaks", cited, len(rollouts))
        if self.reason_first:
            asked = [q for q in self._look_up(rollouts) if self._found[q.id] is not None]
            self._shown = self._analyses(asked)
        return list(rollouts)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """See :class:`TeacherContext`."""
        self._look_up(rollouts)
        return super().views(rollouts)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Rubric, reference and analysis; None without a rubric, or if the guard drops it."""
        question = rollout.question
        rubric = self._found.get(question.id)
        if rubric is None or self.guard.drops(rollout):
            return None
        return {
            "rubric": rubric.render(),
            "reference": question.reference or "",
            "analysis": self._shown.get(question.id, ""),
        }

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """One turn, or three if there is an analysis."""
        first = self._first(rollout.question, fields, self.answer)
        if not fields["analysis"]:
            return first
        return (
            *self._first(rollout.question, fields, self.analyse),
            Message(role="assistant", content=fields["analysis"]),
            Message(role="user", content=self.answer),
        )

    def state_dict(self) -> dict[str, Any]:
        """A frozen teacher's analyses."""
        return {"analyses": dict(self.memory.kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.memory.kept = dict(state_dict["analyses"])

    def _first(
        self, question: Question, fields: Mapping[str, str], request: str
    ) -> tuple[Message, ...]:
        shown = {**fields, "question": question.text, "request": request}
        return (
            *question.messages[:-1],
            Message(role="user", content=fill(self.template, shown)),
        )

    def _look_up(self, rollouts: Sequence[Rollout]) -> list[Question]:
        """The batch's different questions; their rubrics stand in ``_found``."""
        questions = list({r.question.id: r.question for r in rollouts}.values())
        ids = [question.id for question in questions]
        self._found = dict(zip(ids, self.rubrics.rubrics(questions), strict=True))
        return questions

    def _analyses(self, questions: Sequence[Question]) -> dict[str, str]:
        """An analysis of each question, by its id."""
        prompts = [self._request(question) for question in questions]
        weights = self._frozen_weights() if prompts else None
        if weights is None:
            texts = self._written(prompts)
        else:
            texts = self.memory.texts(prompts, weights, self._written)
        return {question.id: text for question, text in zip(questions, texts, strict=True)}

    def _request(self, question: Question) -> tuple[Message, ...]:
        rubric = self._found[question.id]
        assert rubric is not None
        fields = {"rubric": rubric.render(), "reference": question.reference or ""}
        return self._first(question, fields, self.analyse)

    def _written(self, prompts: Sequence[Sequence[Message]]) -> list[str]:
        if not prompts:
            return []
        found = self.write(prompts, sampler=self.sampler, teacher=self.writer == "teacher")
        texts = [self.tokenizer.decode(text.ids, skip_special_tokens=True) for text in found]
        return [extract_response(text) for text in texts]

    def _frozen_weights(self) -> str | None:
        """Fingerprint of the weights that write, if they stay as they are."""
        return None if self.writer == "student" else self.frozen_teacher_fingerprint()
