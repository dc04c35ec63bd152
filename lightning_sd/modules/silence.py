"""Stop a run that learns nothing, and say why."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_sd.types import RunStoppedError

NO_SIGNAL = (
    "A batch had nothing to learn from: no rollout with a teacher, every token masked, or equal "
    "rewards in every group. Its loss is 0; the share of such batches is logged as train/silent."
)

REMEDIES = {
    "no_teacher/critic_failed": "The critic failed: see its warning, and check its address and "
    "key.",
    "no_teacher/critic_not_asked": "The critic is asked in some steps only: data.ask_every.",
    "no_teacher/critique_refused": "Critiques were refused: choose another critic or prompt, or "
    "set data.on_refusal to reference.",
    "no_teacher": "The context gave no view: its fields are missing in the data, or its prompt is "
    "longer than max_prompt_tokens.",
    "no_answer": "The judge found no answer: compare a completion with the task's answer pattern, "
    "and raise max_new_tokens if completions are cut off.",
    "judge_": "The judge was ended: see data.task.judge_limits and docs/judges.md.",
    "equal_rewards": "Rewards are equal within each group: raise `samples` or the temperature, or "
    "choose questions of another difficulty.",
}
"""What to do, by the logged reason or its beginning. More specific reasons come first."""


class SilenceError(RunStoppedError):
    """Training stopped because optimizer steps had nothing to learn from."""


class SilenceGuard:
    """Counts optimizer steps in a row in which no micro-batch had anything to learn from.

    Args:
        max_silent_steps: Number of such steps at which training stops; 0: never.

    Raises:
        ValueError: A negative number.
    """

    def __init__(self, max_silent_steps: int) -> None:
        if max_silent_steps < 0:
            raise ValueError(f"max_silent_steps={max_silent_steps}: must be 0 (off) or more.")
        self.max_silent_steps = max_silent_steps
        self.in_a_row = 0
        self._learned = False
        self._reasons: dict[str, float] = {}

    def check(self, logged: Mapping[str, float]) -> None:
        """Count one optimizer step.

        Args:
            logged: What the step logs, over all ranks.

        Raises:
            SilenceError: ``max_silent_steps`` were reached; or the critic failed for every rollout
                of the first step, so that nothing can be learned at all.
        """
        if logged.get("silent", 0.0) < 1.0:
            self.in_a_row, self._learned, self._reasons = 0, True, {}
            return
        self.in_a_row += 1
        for name in logged:
            if name.startswith(tuple(REMEDIES)) and logged[name] > 0:
                self._reasons[name] = self._reasons.get(name, 0.0) + logged[name]
        if not self.max_silent_steps:
            return
        failed = self._reasons.get("no_teacher/critic_failed", 0.0)
        dead = not self._learned and failed > 0 and failed == self._reasons.get("no_teacher")
        if dead or self.in_a_row >= self.max_silent_steps:
            raise SilenceError(self.explain())

    def explain(self) -> str:
        """Return the number of silent steps, the reasons with their counts, and the remedies."""
        counts = ", ".join(f"{name} {count:g}" for name, count in sorted(self._reasons.items()))
        reasons = set(self._reasons)
        if "no_teacher" in reasons:
            reasons -= {"equal_rewards"}  # not the cause where the teacher is missing
        specific = reasons - {"no_teacher"} or reasons
        remedies = {
            next(remedy for known, remedy in REMEDIES.items() if name.startswith(known))
            for name in specific
        }
        advice = " ".join(sorted(remedies)) or "Every token was masked: check token_weights."
        return (
            f"{self.in_a_row} optimizer step(s) in a row had nothing to learn from "
            f"({counts or 'no reason counted'}). {advice} max_silent_steps="
            f"{self.max_silent_steps} sets when a run stops; 0 never stops it."
        )
