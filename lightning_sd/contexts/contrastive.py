"""One correct hint and several wrong ones as contexts, in the same wording (RLCSD)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import CONTRASTIVE
from lightning_sd.types import Message, Question, Rollout, TeacherView


class ContrastiveHints(TeacherContext):
    """Let the teacher score a rollout once with a correct hint and K times with wrong ones (RLCSD).

    The wrong hints are wrong siblings that give an answer; they become ``TeacherView.contrasts``.
    A rollout is never its own hint; siblings with identical text are excluded. A rollout has no
    teacher if it has no correct hint or no wrong hint.

    All hints have the same wording, which calls even the wrong ones correct. Seeing any solution
    changes the teacher's style, and this change cancels between the two sides.

    Hints are chosen by a hash of the texts. The same rollouts get the same hints in any order, on
    any rank, and after a resume.

    Args:
        hint: Source of the correct hint. ``sibling``: another rollout that is correct (RLCSD's
            self-rollout). ``reference``: the question's reference solution (its ground truth).
        wrong_hints: Maximum number of wrong hints per rollout (K; RLCSD: 4, its plug-ins: 1).
        template: Wording of correct and wrong hints, with ``{question}``, ``{hint}`` and,
            optionally, ``{answer}``.
        max_prompt_tokens: Maximum length of each prompt, in tokens. The end of the hint is cut to
            fit, and a wrong hint of which nothing is left is dropped. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompts only.

    Raises:
        ValueError: An unknown ``hint``, ``wrong_hints`` below 1, a template without ``{hint}``, or
            as :class:`TeacherContext`.
    """

    reads_verdicts: ClassVar[bool] = True
    template = CONTRASTIVE
    cut_fields: ClassVar[tuple[str, ...]] = ("hint",)

    def __init__(
        self,
        hint: Literal["sibling", "reference"] = "sibling",
        wrong_hints: int = 4,
        template: str | None = None,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(template, max_prompt_tokens, template_kwargs)
        if hint not in ("sibling", "reference"):
            raise ValueError(f"hint={hint!r}: choose sibling or reference.")
        if wrong_hints < 1:
            raise ValueError(f"wrong_hints={wrong_hints}: must be at least 1.")
        if "{hint}" not in self.template:
            raise ValueError(
                f"template={self.template!r} of ContrastiveHints lacks {{hint}}; add it."
            )
        self.hint, self.wrong_hints = hint, wrong_hints

    def has_evidence(self, question: Question) -> bool:
        """Return whether the question has a reference, where that is the hint."""
        return self.hint != "reference" or bool(question.reference)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the correct hint and its answer, or None if there is none."""
        question = rollout.question
        if self.hint == "reference":
            if not question.reference:
                return None
            return {"hint": question.reference, "answer": question.answer or ""}
        correct = [s for s in _list_candidates(rollout) if s.verdict and s.verdict.correct]
        return next(map(_describe_hint, _draw_hints(rollout, correct, 1)), None)

    def list_wrong_fields(self, rollout: Rollout) -> list[Mapping[str, str]]:
        """Return the wrong hints, each with the answer that it gives; at most ``wrong_hints``."""
        wrong = [
            sibling
            for sibling in _list_candidates(rollout)
            if sibling.verdict and not sibling.verdict.correct and sibling.verdict.answer
        ]
        return [_describe_hint(s) for s in _draw_hints(rollout, wrong, self.wrong_hints)]

    def write_view(self, rollout: Rollout, fields: Mapping[str, str] | None) -> TeacherView | None:
        """Write the prompts of the correct hint and of the wrong ones.

        See :meth:`TeacherContext.write_view`.
        """
        wrong = self.list_wrong_fields(rollout) if fields is not None else []
        if fields is None or not wrong:
            return None
        first = self._fit_prompt(rollout, fields)
        contrasts = [prompt for f in wrong if (prompt := self._fit_prompt(rollout, f))]
        if first is None or not contrasts:
            return None
        cuts = {"hint": first[1], "wrong_hints": sum(cut for _, cut in contrasts)}
        return TeacherView(
            first[0],
            {name: cut for name, cut in cuts.items() if cut},
            contrasts=tuple(messages for messages, _ in contrasts),
            template_kwargs=self.template_kwargs,
        )

    def _fit_prompt(
        self, rollout: Rollout, fields: Mapping[str, str]
    ) -> tuple[tuple[Message, ...], int] | None:
        """Return a prompt within the limit and the number of tokens cut from its hint.

        Returns:
            None if nothing of the hint is left.
        """
        over, cut = self._count_excess(rollout, fields), 0
        if over > 0:
            text, cut, over = self._cut_field(rollout, fields, "hint", over)
            fields = {**fields, "hint": text}
        if over > 0 or not fields["hint"]:
            return None
        return self.messages(rollout, fields), cut


def _list_candidates(rollout: Rollout) -> list[Rollout]:
    """List the siblings that may be hints: those with a text that differs from the rollout's."""
    return [s for s in rollout.siblings if s.text and s.text != rollout.text]


def _describe_hint(sibling: Rollout) -> Mapping[str, str]:
    """Return a sibling as the fields of a hint.

    A correct sibling from which no answer could be read gave the question's answer.
    """
    own = sibling.verdict.answer if sibling.verdict else None
    return {"hint": sibling.text, "answer": own or sibling.question.answer or ""}


def _draw_hints(rollout: Rollout, pool: Sequence[Rollout], number: int) -> list[Rollout]:
    """Draw siblings without replacement, in the order of a hash of the texts."""
    repeats: Counter[str] = Counter()
    ranked = []
    for other in pool:
        repeats[other.text] += 1  # siblings with equal texts get different hashes
        parts = (rollout.question.id, rollout.text, other.text, str(repeats[other.text]))
        digest = hashlib.sha256("\0".join(parts).encode(errors="replace")).digest()
        ranked.append((digest, other))
    return [other for _, other in sorted(ranked, key=lambda pair: pair[0])[:number]]
