"""Judges: read the answer of a completion, compare it, and turn it into a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sd._lazy import make_lazy_exports

if TYPE_CHECKING:
    from lightning_sd.tasks.judges.answer import AnswerJudge as AnswerJudge
    from lightning_sd.tasks.judges.build import WeightedJudge as WeightedJudge
    from lightning_sd.tasks.judges.build import build_judge as build_judge
    from lightning_sd.tasks.judges.extract import extract_answer as extract_answer
    from lightning_sd.tasks.judges.process import JudgeLimits as JudgeLimits
    from lightning_sd.tasks.judges.process import JudgeProcess as JudgeProcess
    from lightning_sd.tasks.judges.reward import Judge as Judge
    from lightning_sd.tasks.judges.reward import RewardJudge as RewardJudge
    from lightning_sd.tasks.judges.verdicts import count_statuses as count_statuses
    from lightning_sd.tasks.judges.verdicts import judge_batch as judge_batch
    from lightning_sd.tasks.judges.verdicts import report_answers as report_answers

# The worker process of a judge imports this package, and must not load torch.
__getattr__, __dir__, __all__ = make_lazy_exports(
    __name__,
    {
        "lightning_sd.tasks.judges.answer": ("AnswerJudge",),
        "lightning_sd.tasks.judges.build": ("WeightedJudge", "build_judge"),
        "lightning_sd.tasks.judges.extract": ("extract_answer",),
        "lightning_sd.tasks.judges.process": ("JudgeLimits", "JudgeProcess"),
        "lightning_sd.tasks.judges.reward": ("Judge", "RewardJudge"),
        "lightning_sd.tasks.judges.verdicts": ("count_statuses", "judge_batch", "report_answers"),
    },
)
