from __future__ import annotations

import pickle

import pytest

from lightning_sd.tasks.base import Task
from lightning_sd.tasks.judges import build_judge
from lightning_sd.tasks.judges.process import JudgeLimits
from lightning_sd.tasks.judges.reward import RewardJudge
from lightning_sd.tasks.judges.verdicts import count_statuses, judge_batch, report_answers
from lightning_sd.types import Question, Verdict
from tests.tasks.judges import functions

HERE = JudgeLimits(seconds=None)


def ask(answer: str = "7", **extra: object) -> Question:
    message = {"role": "user", "content": "What?"}
    return Question(id="1", text="What?", messages=(message,), answer=answer, extra=extra)


def judge(spec, completions: list[str], question: Question | None = None, **options):
    built = build_judge(spec, limits=options.pop("limits", HERE), **options)
    return built.judge([question or ask()] * len(completions), completions)


def test_a_function_returns_a_verdict_or_a_number() -> None:
    verdicts = judge(functions.judge_verdict, ["7", "8"])
    assert verdicts[0] == Verdict(reward=0.25, correct=True, answer="7")
    assert [v.reward for v in judge(functions.judge_number, ["-3.5", "250"])] == [-3.5, 250.0]
    assert [v.correct for v in judge(functions.judge_number, ["0.5", "1", "2"])] == [0, 1, 1]


def test_a_function_is_found_by_its_path_and_a_class_with_its_options() -> None:
    path = "tests.tasks.judges.functions"
    assert judge(f"{path}.judge_number", ["0.5"])[0].reward == 0.5
    spec = {"class_path": f"{path}.Close", "init_args": {"width": 4.0}}
    assert judge(spec, ["8"])[0].reward == 0.75


@pytest.mark.parametrize(
    ("completions", "statuses"),
    [
        (["7", "hang", "8"], ["judged", "timed_out", "judged"]),
        (["7", "eat memory", "8"], ["judged", "crashed", "judged"]),
        (["7", "segfault"], ["judged", "crashed"]),
        (["raise", "7"], ["crashed", "judged"]),
    ],
)
@pytest.mark.parametrize("function", [functions.judge_verdict, functions.reward_rank])
def test_a_bad_completion_costs_only_its_own_verdict(function, completions, statuses) -> None:
    limits = JudgeLimits(seconds=4, megabytes=100)
    verdicts = judge(function, completions, limits=limits)
    assert [verdict.status for verdict in verdicts] == statuses
    assert all(v.reward == 0 and v.reason for v in verdicts if v.status != "judged")


def test_reward_functions_of_trl_get_the_whole_batch() -> None:
    verdicts = judge(functions.reward_rank, ["b", "a", "c"], limits=JudgeLimits(seconds=30))
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 2.0]
    assert [v.reward for v in judge(functions.reward_length, ["abc", "a"])] == [0.0, -2.0]


def test_reward_functions_of_trl_get_columns_and_messages() -> None:
    spec = RewardJudge(functions.reward_solution, HERE, conversational=True)
    verdicts = judge(spec, ["7", "8"], ask(solution="8"), columns=["solution"])
    assert [verdict.reward for verdict in verdicts] == [0.0, 1.0]
    with pytest.raises(ValueError, match=r"requires \['solution'\].*extra_columns"):
        judge(spec, ["7"])


def test_a_reward_of_none_is_zero_and_one_that_is_not_finite_is_a_crash() -> None:
    verdicts = judge(functions.reward_none, ["a", "b", "c"])
    assert [v.reward for v in verdicts] == [0.0, 0.0, 7.0]
    assert [v.status for v in verdicts] == ["judged", "crashed", "judged"]
    assert verdicts[1].reason == "the reward is nan"


def test_rewards_are_added_with_their_weights() -> None:
    spec = ["number", "tests.tasks.judges.functions.reward_length"]
    texts = ["<answer>7</answer>", "abc"]
    verdicts = judge(spec, texts, weights=[2.0, 0.5])
    assert [v.reward for v in verdicts] == [2.0 - 0.5 * 15, 0.0]
    assert [(v.correct, v.answer, v.status) for v in verdicts] == [
        (True, "7", "judged"),
        (False, None, "no_answer"),
    ]
    assert [v.reward for v in judge(spec, texts)] == [1.0 - 15, 0.0]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("maths", {}, "judge='maths': choose one of .*'number'"),
        ("no_such_module.judge", {}, "judge='no_such_module.judge'.*import path"),
        ([], {}, r"judge=\[\]"),
        (["exact"], {"weights": [1.0, 2.0]}, "judge_weights="),
        ("exact", {"weights": [1.0]}, "judge_weights="),
        ("exact", {"completion_pattern": "####"}, "completion_pattern='####'"),
    ],
)
def test_bad_specifications_are_named(spec, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_judge(spec, limits=HERE, **options)


def test_what_is_no_judge_is_refused() -> None:
    with pytest.raises(TypeError, match="must be callable"):
        build_judge(7, limits=HERE)
    with pytest.raises(TypeError, match=r"judge=getpid: it must take \(question, completion\)"):
        build_judge("os.getpid", limits=HERE)
    with pytest.raises(TypeError, match=r"judge_text: it returned .*'abc'.* for completion 0"):
        judge(functions.judge_text, ["abc"])
    with pytest.raises(TypeError, match="returned 1 rewards for 2 completions"):
        judge(functions.reward_short, ["a", "b"])


def test_judges_can_be_copied() -> None:
    first = RewardJudge(functions.reward_length, HERE)
    again = pickle.loads(pickle.dumps(first))
    assert again.judge([ask()], ["a"]) == first.judge([ask()], ["a"])


class FloatTask(Task):
    def __init__(self, result: object) -> None:
        self.result = result

    def questions(self, split):
        return [ask()]

    def verify(self, question, completion):
        return self.result


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (0.5, TypeError, r"FloatTask.verify returned 0.5 \(float\) for question '1'. Return a"),
        (None, TypeError, "returned None"),
        (Verdict(float("nan"), False), ValueError, "returned reward=nan"),
        (Verdict("1", True), ValueError, "returned reward='1'"),  # type: ignore[arg-type]
    ],
)
def test_a_verify_that_returns_no_verdict_is_an_error_at_once(result, error, message) -> None:
    with pytest.raises(error, match=message):
        judge_batch(FloatTask(result), [ask()], ["7"])


def test_statuses_are_counted_and_reported() -> None:
    right, none = Verdict(1.0, True, "7"), Verdict(0.0, False, status="no_answer")
    late = Verdict(0.0, False, status="timed_out", reason="no result within 5 s")
    shares = count_statuses([right, none, late, none])
    assert shares == {"no_answer": 0.5, "timed_out": 0.25, "crashed": 0.0}
    assert set(count_statuses([]).values()) == {0.0}
    report = report_answers([right, none, late], ["<answer>7</answer>", "It is seven.", "7^x"])
    assert (report.answered, report.failed, report.example) == (1, 1, "It is seven.")
    assert str(report) == (
        "1 of 3 completions had an answer (1 without). One without an answer: 'It is seven.'. The "
        "judge failed on 1: no result within 5 s"
    )
    assert str(report_answers([right], ["7"])) == "1 of 1 completions had an answer"


def test_a_judge_without_limits_of_its_own_takes_those_of_the_task() -> None:
    short = JudgeLimits(seconds=4)
    path = "tests.tasks.judges.functions.judge_verdict"
    spec = {"class_path": "lightning_sd.tasks.judges.RewardJudge", "init_args": {"function": path}}
    assert [v.status for v in judge(spec, ["hang"], limits=short)] == ["timed_out"]
    own = RewardJudge(path, HERE)
    own.use_limits(short)
    assert own._process.limits is HERE
