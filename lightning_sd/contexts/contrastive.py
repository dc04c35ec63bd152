"""One right hint and several wrong ones, under the same wording."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import CONTRASTIVE
from lightning_sd.types import Message, Rollout, TeacherView


class ContrastiveHints(TeacherContext):
    """The teacher scores a rollout once with a right hint and K times with wrong ones (RLCSD).

    Wrong hints are wrong siblings that give an answer. Nobody is shown its own text: siblings that
    say word for word the same are no hints for each other. A rollout without a right or without a
    wrong hint has no teacher.

    The wording says of every hint that it is correct, of the wrong ones too: the change of style
    that comes with being shown a solution is then the same on both sides, and cancels.

    Which of several siblings is shown is as good as random, yet decided by the texts alone, so the
    same rollouts always get the same hints, whatever their order, rank, or whether the run was
    resumed.

    Args:
        hint: Where the right hint comes from: ``sibling``, another rollout that is right (RLCSD's
            self-rollout), or ``reference``, the question's worked solution (its ground truth).
        wrong_hints: Most wrong hints a rollout (K; RLCSD: 4, its plug-ins: 1).
        template: Wording for right and wrong hints alike, with ``{question}``, ``{hint}`` and,
            if it likes, ``{answer}``.
        max_prompt_tokens: Longest prompt; hints are cut to fit it, and a wrong hint of which
            nothing would be left is dropped.
        template_kwargs: For the chat template of the teacher's prompts.

    Raises:
        ValueError: An unknown source, fewer than one wrong hint, or a template without ``{hint}``.
    """

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
            raise ValueError(f"template={self.template!r} of ContrastiveHints lacks {{hint}}.")
        self.hint, self.wrong_hints = hint, wrong_hints

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The right hint and its answer, or None if there is none."""
        question = rollout.question
        if self.hint == "reference":
            if not question.reference:
                return None
            return {"hint": question.reference, "answer": question.answer or ""}
        right = [s for s in _others(rollout) if s.verdict and s.verdict.correct]
        return next(map(_shown, _drawn(rollout, right, 1)), None)

    def wrong_fields(self, rollout: Rollout) -> list[Mapping[str, str]]:
        """The wrong hints, each with the answer it gives."""
        wrong = [
            s for s in _others(rollout) if s.verdict and not s.verdict.correct and s.verdict.answer
        ]
        return [_shown(s) for s in _drawn(rollout, wrong, self.wrong_hints)]

    def _write_view(self, rollout: Rollout) -> TeacherView | None:
        right = self.fields(rollout)
        wrong = self.wrong_fields(rollout) if right is not None else []
        if right is None or not wrong:
            return None
        first = self._fitted(rollout, right)
        others = [found for found in (self._fitted(rollout, f) for f in wrong) if found]
        if first is None or not others:
            return None
        cuts = {"hint": first[1], "wrong_hints": sum(cut for _, cut in others)}
        return TeacherView(
            first[0],
            {name: cut for name, cut in cuts.items() if cut},
            contrasts=tuple(messages for messages, _ in others),
            template_kwargs=self.template_kwargs,
        )

    def _fitted(
        self, rollout: Rollout, fields: Mapping[str, str]
    ) -> tuple[tuple[Message, ...], int] | None:
        """A prompt within the limit, and the tokens its hint lost; None: nothing of it is left."""
        over, cut = self._count_excess(rollout, fields), 0
        if over > 0:
            text, cut, over = self._cut_field(rollout, fields, "hint", over)
            fields = {**fields, "hint": text}
        if over > 0 or not fields["hint"]:
            return None
        return self.messages(rollout, fields), cut


def _others(rollout: Rollout) -> list[Rollout]:
    """Siblings that may serve as hints: they say something, and something else."""
    return [s for s in rollout.siblings if s.text and s.text != rollout.text]


def _shown(sibling: Rollout) -> Mapping[str, str]:
    """A sibling as a hint. A right one whose answer can't be read gave the question's."""
    own = sibling.verdict.answer if sibling.verdict else None
    return {"hint": sibling.text, "answer": own or sibling.question.answer or ""}


def _drawn(rollout: Rollout, pool: Sequence[Rollout], number: int) -> list[Rollout]:
    """Draw without replacement, by a hash of the texts; equal texts are drawn one by one."""
    seen: Counter[str] = Counter()
    ranked = []
    for other in pool:
        seen[other.text] += 1
        parts = (rollout.question.id, rollout.text, other.text, str(seen[other.text]))
        digest = hashlib.sha256("\0".join(parts).encode(errors="replace")).digest()
        ranked.append((digest, other))
    return [other for _, other in sorted(ranked, key=lambda pair: pair[0])[:number]]
