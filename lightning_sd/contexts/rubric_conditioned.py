"""A rubric and the model's own analysis of it as context (RCSD, stage II)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning_sd._serialize import build
from lightning_sd.contexts.base import TeacherContext, fill
from lightning_sd.contexts.rubrics.analysis_memory import AnalysisMemory
from lightning_sd.contexts.rubrics.guard import LeakGuard
from lightning_sd.contexts.rubrics.prompts import ANALYZE, ANSWER, CONDITIONED
from lightning_sd.contexts.rubrics.rubric import Rubric
from lightning_sd.contexts.rubrics.sources import GroundTruthRubric, RubricSource
from lightning_sd.rollout.base import Sampler
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Question, Rollout, TeacherView


class RubricConditioned(TeacherContext):
    """Show the teacher the question, its reference answer and a rubric (RCSD, stage II).

    With ``reason_first`` the model first writes one analysis per question: what a good answer must
    have. The teacher's prompt then has three turns: the request for the analysis, the analysis, and
    ``answer``, which says that all of this is private. Without an analysis the prompt is one turn
    that ends with ``answer``.

    Analyses are written by the ``student``'s current parameters in each step (RCSD's released
    script), or by the ``teacher``'s. Those of a frozen teacher are written once and stored in the
    checkpoint and, optionally, in a file. A rollout has no teacher if its question has no rubric,
    or if ``guard`` masks it.

    Args:
        rubrics: Source of the rubrics. Default: the ground truth in ``extra["rubric"]``.
        reason_first: Let the model write an analysis first.
        writer: Which parameters write the analysis.
        sampler: How analyses are sampled. Default: up to 512 tokens at temperature 1.
        analyses: JSON lines file with a frozen teacher's analyses, shared between runs. Default: no
            file.
        guard: Counts rollouts that cite the rubric or the reference, which the student cannot
            know, as ``train/leaks``; it may also mask them. Default: it only counts.
        analyze: Wording of the request for the analysis.
        answer: Wording of the request for the answer.
        template: Wording of the first turn, with ``{question}``, ``{rubric}``, ``{request}`` and,
            optionally, ``{reference}``.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The ends of the
            analysis, the reference and the rubric are cut to fit, in this order. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt, and for the
            analysis if the teacher writes it.

    Raises:
        ValueError: An unknown ``writer``, a template that lacks a field, ``analyses`` without a
            teacher that writes them, or as :class:`TeacherContext`.
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
        analyze: str = ANALYZE,
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
                raise ValueError(f"template={self.template!r} lacks {{{name}}}; add it.")
        if analyses is not None and not (reason_first and writer == "teacher"):
            raise ValueError(
                f"analyses={analyses!r}: only analyses of a frozen teacher are stored; set "
                "reason_first=true and writer=teacher, or remove analyses."
            )
        self.rubrics: RubricSource = build(rubrics) or GroundTruthRubric()
        self.sampler: Sampler = build(sampler) or TransformersSampler(max_new_tokens=512)
        self.guard: LeakGuard = build(guard) or LeakGuard()
        self.reason_first, self.writer = reason_first, writer
        self.analyze, self.answer = analyze, answer
        self.memory = AnalysisMemory(self.sampler, analyses)
        self._rubrics: dict[str, Rubric | None] = {}
        self._analyses: dict[str, str] = {}

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Count rollouts that cite the rubric, and let the model write this batch's analyses."""
        leaks = sum(bool(self.guard.find_citations(rollout)) for rollout in rollouts)
        self.log_mean("leaks", leaks, len(rollouts))
        if self.reason_first:
            questions = self._read_rubrics(rollouts)
            self._analyses = self._write_analyses(
                [question for question in questions if self._rubrics[question.id] is not None]
            )
        return list(rollouts)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Return what the teacher sees of each rollout; see :class:`TeacherContext`."""
        self._read_rubrics(rollouts)
        return super().views(rollouts)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return rubric, reference and analysis; None without a rubric, or if the guard masks."""
        question = rollout.question
        rubric = self._rubrics.get(question.id)
        if rubric is None or self.guard.masks_rollout(rollout):
            return None
        return {
            "rubric": rubric.render(),
            "reference": question.reference or "",
            "analysis": self._analyses.get(question.id, ""),
        }

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return a prompt of one turn, or of three turns if there is an analysis."""
        if not fields["analysis"]:
            return self._write_first_turn(rollout.question, fields, self.answer)
        return (
            *self._write_first_turn(rollout.question, fields, self.analyze),
            Message(role="assistant", content=fields["analysis"]),
            Message(role="user", content=self.answer),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the analyses of a frozen teacher."""
        return {"analyses": dict(self.memory.texts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the analyses."""
        self.memory.texts = dict(state_dict["analyses"])

    def _write_first_turn(
        self, question: Question, fields: Mapping[str, str], request: str
    ) -> tuple[Message, ...]:
        values = {**fields, "question": question.text, "request": request}
        return (
            *question.messages[:-1],
            Message(role="user", content=fill(self.template, values)),
        )

    def _read_rubrics(self, rollouts: Sequence[Rollout]) -> list[Question]:
        """Read the rubrics of a batch into ``_rubrics``; return its different questions."""
        questions = list({r.question.id: r.question for r in rollouts}.values())
        ids = [question.id for question in questions]
        self._rubrics = dict(zip(ids, self.rubrics.read_rubrics(questions), strict=True))
        return questions

    def _write_analyses(self, questions: Sequence[Question]) -> dict[str, str]:
        """Return an analysis of each question, by the question's id."""
        prompts = [self._write_request(question) for question in questions]
        # Texts of parameters that change are never reused.
        frozen = self.writer == "teacher" and bool(prompts)
        fingerprint = self.frozen_teacher_fingerprint() if frozen else None
        if fingerprint is None:
            texts = self._write_texts(prompts)
        else:
            texts = self.memory.recall_or_write(prompts, fingerprint, self._write_texts)
        return {question.id: text for question, text in zip(questions, texts, strict=True)}

    def _write_request(self, question: Question) -> tuple[Message, ...]:
        rubric = self._rubrics[question.id]
        assert rubric is not None
        fields = {"rubric": rubric.render(), "reference": question.reference or ""}
        return self._write_first_turn(question, fields, self.analyze)

    def _write_texts(self, prompts: Sequence[Sequence[Message]]) -> list[str]:
        """Write one text per prompt, and remove its thinking."""
        if not prompts:
            return []
        written = self.write(prompts, sampler=self.sampler, teacher=self.writer == "teacher")
        texts = [self.tokenizer.decode(text.ids, skip_special_tokens=True) for text in written]
        return [extract_response(text) for text in texts]
